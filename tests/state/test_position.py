"""Reading off a finished file where in the log it stands."""

import sqlite3
from pathlib import Path

import pytest

from coordd.errors import DamagedError, UnsupportedError
from coordd.messages.command import KvPut
from coordd.messages.entry import encode_configuration
from coordd.state.position import Position, read_position
from tests.state.test_machine import CONFIGURATION, checksums
from tests.state.world import World


def snapshot(folder: Path, *, configured: bool = True) -> Path:
    """A copy as the snapshot store makes it, of a state at index 3."""
    world = World(str(folder / "state.db"))
    world.done(KvPut("a", b""))
    world.term = 2
    if configured:
        world.machine.apply(2, [(2, encode_configuration(CONFIGURATION))])
    else:
        world.done(KvPut("b", b""))
    world.done(KvPut("c", b""))
    copy = folder / "copy.db"
    world.machine._connection.execute("VACUUM INTO ?", (str(copy),))
    world.close()
    return copy


def test_a_snapshot_says_where_it_stands_and_is_left_as_it_is(tmp_path: Path) -> None:
    copy = snapshot(tmp_path)
    before = checksums(tmp_path)
    assert read_position(copy) == Position(3, 2, CONFIGURATION, 2)
    assert checksums(tmp_path) == before


def test_a_file_of_no_cluster_is_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="copy"):
        read_position(snapshot(tmp_path, configured=False))


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM meta",
        "UPDATE meta SET configuration = '{'",
        "UPDATE meta SET configuration = 'k' || x'ff'",
        "DROP TABLE meta",
    ],
)
def test_a_file_that_does_not_say_it_is_damaged(tmp_path: Path, damage: str) -> None:
    copy = snapshot(tmp_path)
    connection = sqlite3.connect(copy)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(DamagedError, match=r"copy\.db"):
        read_position(copy)


@pytest.mark.parametrize("later", ["PRAGMA user_version = 99", "UPDATE meta SET feature_level = 99"])
def test_rule_95_a_file_of_a_later_version_is_not_taken_for_a_damaged_one(tmp_path: Path, later: str) -> None:
    copy = snapshot(tmp_path)
    connection = sqlite3.connect(copy)
    connection.execute(later)
    connection.commit()
    connection.close()
    with pytest.raises(UnsupportedError, match=r"copy\.db .* 99"):
        read_position(copy)


def test_a_file_that_is_no_database_of_ours(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE meta (name TEXT)")
    connection.close()
    with pytest.raises(DamagedError, match="other"):
        read_position(other)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="nowhere"):
        read_position(tmp_path / "nowhere.db")
    assert not (tmp_path / "nowhere.db").exists()
