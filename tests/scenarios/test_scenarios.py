"""Plays every `*.txt` beside this module and compares what happens with what the script says, line by line.

A script is made of commands, each behind `> `, with the expected trace indented below; everything else is for the reader.
With COORDD_REWRITE_SCENARIOS=1 in the environment the traces are written anew: read the difference before you keep it.
"""

import os
from pathlib import Path

import pytest

from tests.scenarios.stage import Stage

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
INDENT = "    "


def perform(text: str) -> str:
    """The script with the traces that its commands have now."""
    stage = Stage()
    played: list[str] = []
    for line in text.splitlines():
        if line.startswith(INDENT):
            continue
        played.append(line)
        if line.startswith("> "):
            played += [INDENT + said for said in stage.run(line[2:])]
    return "\n".join(played) + "\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scenario(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    played = perform(text)
    if os.environ.get("COORDD_REWRITE_SCENARIOS"):
        script.write_text(played, encoding="utf-8")
    assert played.splitlines() == text.splitlines()


def test_a_wrong_word_in_a_script_is_noticed() -> None:
    text = SCRIPTS[0].read_text(encoding="utf-8")
    expected = next(line for line in text.splitlines() if line.startswith(INDENT))
    assert perform(text.replace(expected, expected + " or not", 1)) != text.replace(expected, expected + " or not", 1)


def test_there_are_scenarios() -> None:
    assert len(SCRIPTS) >= 8
