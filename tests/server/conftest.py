"""Servers for tests, closed at the end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordd.server.settings import LimitSettings
from tests.server.support import Desk, World

MakeDesk = Callable[..., Desk]
MakeWorld = Callable[..., World]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    """`make_desk(servers=3, lead=True, founded=True, **limits)`."""
    desks: list[Desk] = []

    def make(servers: int = 3, *, lead: bool = True, founded: bool = True, **limits: int) -> Desk:
        folder = tmp_path / f"desk{len(desks)}"
        desks.append(Desk(folder, servers, founded=founded, limits=LimitSettings(**limits)))
        if lead and founded:
            desks[-1].lead()
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """`make_world(servers=1, founded=True)`."""
    worlds: list[World] = []

    def make(servers: int = 1, *, founded: bool = True) -> World:
        worlds.append(World(tmp_path / f"world{len(worlds)}", servers, founded=founded))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
