"""A machine in memory for each test, whose digest is compared with its rows at the end."""

from collections.abc import Iterator

import pytest

from tests.state.world import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    assert world.machine.verify(), "the digest kept while applying is not that of the rows"
    world.close()
