"""The feature level: raised by the log, kept in the state, and never ignored by a version that does not know it."""

from pathlib import Path
from typing import get_args

import pytest

from coordd.errors import UnsupportedError
from coordd.messages import levels
from coordd.messages.command import Command, Done, KvPut, RaiseFeatureLevel
from coordd.state.machine import Machine, examine
from tests.state.world import World, entry, rows


def test_every_kind_of_command_has_a_level_that_this_version_supports() -> None:
    assert set(levels.INTRODUCED) == set(get_args(Command))
    assert min(levels.INTRODUCED.values()) == levels.FIRST
    assert max(levels.INTRODUCED.values()) <= levels.SUPPORTED


def test_a_new_state_is_at_the_first_level(world: World) -> None:
    assert world.machine.feature_level == levels.FIRST


def test_it_is_raised_and_never_lowered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "SUPPORTED", 3)
    before = world.machine.digest
    world.done(RaiseFeatureLevel(world.term, 3))
    assert world.machine.feature_level == 3
    assert world.machine.digest != before
    for level in (3, 2, 0, -1):
        assert world.run(RaiseFeatureLevel(world.term, level)) == Done(world.index, ok=False)
    assert world.machine.feature_level == 3


def test_rule_95_a_raise_under_another_term_does_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "SUPPORTED", 2)
    world.term = 7
    world.refused(RaiseFeatureLevel(6, 2))
    world.refused(RaiseFeatureLevel(6, 9))
    assert world.machine.feature_level == 1


def test_rule_95_a_version_that_does_not_know_the_level_stops_and_changes_nothing(world: World) -> None:
    world.done(KvPut("a", b"1"))
    before = rows(world.machine)
    batch = [(1, entry(KvPut("a", b"2"))), (1, entry(RaiseFeatureLevel(1, levels.SUPPORTED + 1)))]
    with pytest.raises(UnsupportedError, match=r"^entry 3 of the log is of feature level 2, .* supports level 1: "):
        world.machine.apply(2, batch)
    assert rows(world.machine) == before
    assert world.machine.applied == 1


def test_the_level_is_part_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "state.db")
    monkeypatch.setattr(levels, "SUPPORTED", 2)
    world = World(path)
    world.done(RaiseFeatureLevel(1, 2))
    world.close()
    machine = Machine.open(path)
    assert machine.feature_level == 2
    machine.close()


def test_rule_95_a_state_of_a_level_that_is_not_known_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "state.db")
    with monkeypatch.context() as later:
        later.setattr(levels, "SUPPORTED", 2)
        world = World(path)
        world.done(RaiseFeatureLevel(1, 2))
        world.close()
    content = Path(path).read_bytes()
    for refuse in (examine, Machine.open):
        with pytest.raises(UnsupportedError, match=r"state\.db is of feature level 2, this version .* level 1"):
            refuse(path)
    assert Path(path).read_bytes() == content
