"""docs/rules.md is true: every rule is there once, and whatever it names exists and is what the removals prove."""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.removals import REMOVALS
from tests.sim.bugs import BUGS
from tests.sim.planted import SEEDS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "rules.md"
RULES = range(1, 112)
MOST_THAT_DO_NOT_APPLY = 15

PLACE = re.compile(r"`([a-z_.]+):([A-Za-z_.0-9]+)`")
TEST = re.compile(r"`(tests/[^`]+)`")
PLANTED = re.compile(r"planted: \*([^*]+)\*")


class Row(NamedTuple):
    number: int
    rule: str
    places: list[tuple[str, str]]
    tests: list[str]
    planted: list[str]
    words: str


def read_rows(text: str) -> list[Row]:
    found = []
    for line in text.splitlines():
        if not re.match(r"\| \d+ \|", line):
            continue
        number, rule, places, last = (cell.strip() for cell in line.strip("|").split(" | "))
        words = " ".join(part for part in last.split("<br>") if not TEST.match(part) and not PLANTED.match(part))
        found.append(Row(int(number), rule, PLACE.findall(places), TEST.findall(last), PLANTED.findall(last), words))
    return found


ROWS = read_rows(PAGE.read_text(encoding="utf-8"))


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Qualified names of what a module defines: functions, classes, what they contain, and assignments."""
    names: set[str] = set()

    def collect(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    collect(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(path.read_text(encoding="utf-8")), "")
    return frozenset(names)


def exists(test: str) -> bool:
    """Whether a node id names a test; of parameters, those of the scenarios are looked up too."""
    path, _, name = test.partition("::")
    name, _, case = name.partition("[")
    file = ROOT / path
    if not file.is_file() or name not in names_in(file) or not name.startswith(("test_", "Test")):
        return False
    return not case or (file.parent / f"{case.removesuffix(']')}.txt").is_file()


def test_every_rule_has_one_row() -> None:
    assert [row.number for row in sorted(ROWS)] == list(RULES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_what_a_row_names_exists(row: Row) -> None:
    assert row.rule.endswith(".")
    for module, name in row.places:
        path = ROOT / "coordd" / "coordd" / (module.replace(".", "/") + ".py")
        assert path.is_file(), module
        assert name in names_in(path), f"{module}:{name}"
    assert [test for test in row.tests if not exists(test)] == []
    assert set(row.planted) <= BUGS.keys() & SEEDS.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_a_row_claims_what_the_removals_prove(row: Row) -> None:
    proven = {f"tests/{test}" for removal in REMOVALS if removal.rule == row.number for test in removal.tests}
    assert proven == set(row.tests)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_a_rule_without_a_test_says_why(row: Row) -> None:
    if row.tests or row.planted:
        assert row.places
    else:
        assert row.words.startswith(("Does not apply: ", "Not yet: "))


def test_few_rules_do_not_apply() -> None:
    assert sum(row.words.startswith("Does not apply") for row in ROWS) <= MOST_THAT_DO_NOT_APPLY


def test_a_wrong_row_is_noticed() -> None:
    (row,) = read_rows("| 7 | A rule. | `raft.log:nowhere` | `tests/raft/test_log.py::test_nothing`<br>planted: *no* |")
    with pytest.raises(AssertionError, match="nowhere"):
        test_what_a_row_names_exists(row)
    assert not exists("tests/raft/test_log.py::test_nothing")
    assert not exists("tests/raft/no.py::test_nothing")
    assert not exists("tests/scenarios/test_scenarios.py::test_scenario[nowhere]")
    with pytest.raises(AssertionError):
        test_a_row_claims_what_the_removals_prove(row)
    (bare,) = read_rows("| 8 | A rule. | — |  Something |")
    with pytest.raises(AssertionError):
        test_a_rule_without_a_test_says_why(bare)


def test_the_table_of_the_core_names_the_rules_that_live_in_each_module() -> None:
    lives: dict[str, set[int]] = {}
    for row in ROWS:
        for module, _ in row.places:
            lives.setdefault(module, set()).add(row.number)
    told: dict[str, set[int]] = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and re.fullmatch(r"[0-9, ]+", cells[2]):
            modules = "raft." + "+".join(re.findall(r"`(\w+)\.py`", cells[0]))
            told[modules] = {int(number) for number in cells[2].split(",")}
    in_core = {module: rules for module, rules in lives.items() if module.startswith("raft.")}
    in_core["raft.replication+progress"] = in_core.pop("raft.replication") | in_core.pop("raft.progress", set())
    assert told == in_core
