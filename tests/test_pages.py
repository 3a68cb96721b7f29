"""What the pages on tests name exists, and no scenario is left out of its page."""

import re
from pathlib import Path

from tests.test_rules import TEST, exists

ROOT = Path(__file__).parents[1]
SCENARIOS = ROOT / "tests" / "scenarios"
PAGES = [SCENARIOS / "README.md", ROOT / "docs" / "tests.md"]


def test_every_test_that_a_page_names_exists() -> None:
    named = {(page.name, test) for page in PAGES for test in TEST.findall(page.read_text(encoding="utf-8"))}
    assert named
    assert [
        (page, test) for page, test in named if not (exists(test) if "::" in test else (ROOT / test).exists())
    ] == []


def test_the_page_on_scenarios_names_them_all() -> None:
    _, _, table = (SCENARIOS / "README.md").read_text(encoding="utf-8").partition("\n## ")
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    assert {script.stem for script in SCENARIOS.glob("*.txt")} <= named
