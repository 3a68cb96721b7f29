"""The planted bugs fit the product, and each is known to be caught; `python -m tests.sim.planted --check` shows it again."""

import ast
from pathlib import Path

import pytest

from tests.sim.bugs import BUGS, SERVER, STORAGE
from tests.sim.mutation import planted
from tests.sim.planted import LIMIT, hunt, recorded

TESTS = Path(__file__).parents[1]


def test_there_are_enough_and_enough_of_them_in_storage() -> None:
    below = [name for name, bug in BUGS.items() if any(edit.where.startswith(STORAGE) for edit in bug.edits)]
    served = [name for name, bug in BUGS.items() if any(edit.where.startswith(SERVER) for edit in bug.edits)]
    assert len(BUGS) >= 30
    assert len(below) >= 2
    assert served


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_fits_and_is_known_to_be_caught(name: str) -> None:
    with planted(*BUGS[name].edits):
        pass
    catch = recorded()[name]
    assert catch.seconds < LIMIT
    if BUGS[name].test:
        assert catch.by == f"tests/{BUGS[name].test}"
        path, _, test = BUGS[name].test.partition("::")
        names = {node.name for node in ast.walk(ast.parse((TESTS / path).read_text())) if hasattr(node, "name")}
        assert test.partition("[")[0].rpartition("::")[2] in names
    else:
        assert catch.by.startswith("seed ")


def test_nothing_is_recorded_of_bugs_that_are_no_more() -> None:
    assert set(recorded()) <= set(BUGS)


def test_a_bug_that_does_nothing_survives() -> None:
    """Else the hunt would catch anything."""
    name = "vote not stored"
    edit = BUGS[name].edits[0]
    BUGS["harmless"] = type(BUGS[name])("1", (edit._replace(new=edit.old),))
    try:
        assert hunt("harmless", range(1, 3)) is None
    finally:
        del BUGS["harmless"]
