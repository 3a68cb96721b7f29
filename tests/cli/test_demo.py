"""The demo: each step can fail, a failure is seen from outside, and nothing is left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from coordd_cli import processes
from coordd_cli.demo.play import play
from coordd_cli.demo.report import Report
from coordd_cli.demo.stage import CommandError, Stage
from coordd_cli.demo.steps import STEPS, Step


def good(stage: Stage) -> None:
    stage.report.command(["echo", "two words"])
    stage.expect(True, "all is well")


def bad(stage: Stage) -> None:
    stage.expect(False, "all is well")


def impossible(stage: Stage) -> None:
    raise CommandError("exit code 7 instead of 0")


def run(capsys: pytest.CaptureFixture[str], steps: list[Step], broken: Collection[str] = ()) -> dict[str, Any]:
    report = Report(as_json=True)
    play(steps, report, keep=False, broken=broken)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["ok"] is not report.failed
    return document


def step(name: str, function: Callable[[Stage], None], *needs: str) -> Step:
    return Step(name, name.title(), function, needs)


def test_a_play_in_which_all_goes_well(capsys: pytest.CaptureFixture[str]) -> None:
    document = run(capsys, [step("a", good), step("b", good, "coordd")])
    assert document["ok"]
    assert [one["status"] for one in document["steps"]] == ["ok", "ok"]
    assert document["steps"][0]["commands"] == ["echo 'two words'"]


def test_an_unmet_expectation_fails_but_the_play_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    document = run(capsys, [step("a", bad), step("b", good)])
    assert [one["status"] for one in document["steps"]] == ["failed", "ok"]
    assert document["steps"][0]["error"] == "did not hold: all is well"


def test_a_step_that_can_not_be_done_ends_the_play(capsys: pytest.CaptureFixture[str]) -> None:
    document = run(capsys, [step("a", impossible), step("b", good)])
    assert [one["status"] for one in document["steps"]] == ["failed", "skipped"]


def test_a_broken_step_expects_the_opposite(capsys: pytest.CaptureFixture[str]) -> None:
    document = run(capsys, [step("a", good), step("b", good), step("c", bad)], {"a", "c"})
    assert [one["status"] for one in document["steps"]] == ["failed", "ok", "ok"]


def test_what_does_not_exist_yet_is_announced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(processes.MODULES, "coordd-agent", "coordd.not_there")
    document = run(capsys, [step("a", impossible, "coordd", "coordd-agent"), step("b", good)])
    assert [one["status"] for one in document["steps"]] == ["not yet", "ok"]
    assert document["steps"][0]["error"] == "there is no coordd-agent yet"


def test_the_stage_is_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Stage] = []

    def look(stage: Stage) -> None:
        seen.append(stage)
        stage.start_http().log.touch()

    run(capsys, [step("a", look)])
    assert not seen[0].folder.exists()
    assert not seen[0].helpers[0].alive


def test_steps_have_names_of_their_own() -> None:
    names = [one.name for one in STEPS]
    assert len(names) == len(set(names))
    assert "all" not in names


def demo(*arguments: str, environment: dict[str, str], folder: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "coordd_cli.main", "demo", "--json", *arguments],
        env={**environment, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo(environment: dict[str, str], short_folder: Path) -> None:
    status, document = demo(environment=environment, folder=short_folder)
    assert {one["name"]: one["error"] for one in document["steps"] if one["status"] != "ok"} == {}
    assert (status, document["ok"]) == (0, True)
    assert os.listdir(short_folder) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_each_step_of_the_demo_can_fail(environment: dict[str, str], short_folder: Path) -> None:
    """All are broken at once: each does its work, and then finds that the opposite of what it shows does not hold."""
    status, document = demo("--break", "all", environment=environment, folder=short_folder)
    assert {one["name"]: one["status"] for one in document["steps"]} == {one.name: "failed" for one in STEPS}
    assert all(one["error"].startswith("did not hold: NOT: ") for one in document["steps"])
    assert status == 1


def test_an_unknown_step_can_not_be_broken(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "coordd_cli.main", "demo", "--break", "leg"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "there is no step leg; there are http, " in done.stderr) == (2, True)
