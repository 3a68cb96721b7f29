"""What is left out of the coverage of raft/ and state/ is little, and each omission says why."""

import io
import re
import tokenize
from pathlib import Path

ROOMS = [Path(__file__).parents[1] / "coordd" / "coordd" / room for room in ("raft", "state")]
MOST = 10
MARK = re.compile(r"pragma: no (?:cover|branch)(.*)")


def marks(module: Path) -> list[tuple[int, str]]:
    """Line and reason of each mark in a comment; the reason stands behind it, or in a comment on the line above."""
    found = []
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(module.read_text(encoding="utf-8")).readline)
        if token.type == tokenize.COMMENT
    }
    for line, comment in comments.items():
        if mark := MARK.search(comment):
            found.append((line, mark[1].strip(" -:") or comments.get(line - 1, "")))
    return found


def test_few_branches_are_left_out_and_each_says_why() -> None:
    found = {
        f"{module.name}:{line}": why for room in ROOMS for module in room.rglob("*.py") for line, why in marks(module)
    }
    assert len(found) <= MOST, found
    bare = [place for place, why in found.items() if len(why.split()) < 3]
    assert not bare, "say why this can't be tested"
