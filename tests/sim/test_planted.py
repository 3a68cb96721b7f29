"""Every planted bug is caught: without this, a run that finds nothing proves nothing."""

import pytest

from tests.sim.planted import BUGS, SEEDS, hunt

MORE_SEEDS = 8
"""Tried after the one that is noted, since any change of the product changes what a seed does."""


@pytest.mark.parametrize("name", BUGS)
def test_the_bug_is_caught(name: str) -> None:
    first = SEEDS[name]
    assert hunt(name, range(first, first + 1 + MORE_SEEDS)) is not None, f"{name}: run python -m tests.sim.planted"
