"""What has changed in a state file since it was written is found from the disk, in slices, whoever has it open."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordd.acl.authorizer import ALLOW_ALL
from coordd.errors import DamagedError, StorageError
from coordd.messages.command import KvPut
from coordd.messages.query import KvGet, KvPairs
from coordd.state.machine import Machine
from coordd.state.scrub import Scrub, find_fault
from tests.state.world import World

KEYS = 300


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path / "state.db"))
    for number in range(KEYS):
        world.done(KvPut(f"key{number}", b"value%06d" % number))
    world.session("s1")
    world.session("s2")
    assert world.machine.checkpoint()
    yield world
    world.close()


def flip(path: Path, text: bytes) -> None:
    """One bit of the last byte of a text, wherever it stands."""
    content = path.read_bytes()
    assert text in content
    with path.open("r+b", buffering=0) as file:
        at = content.rindex(text) + len(text) - 1
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))


def scrubbed(scrub: Scrub, rows: int = 50) -> tuple[str, int]:
    """What it finds, and in how many slices."""
    slices = 0
    while True:
        left = iter(range(rows))
        slices += 1
        found = scrub.step(lambda left=left: next(left, None) is None)  # type: ignore[misc]  # mypy: a default of a lambda
        if found is not None:
            return found, slices


def test_a_whole_file_is_whole_also_while_it_is_changed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    assert find_fault(path) == ""
    scrub = Scrub(path, lambda: world.machine.digests)
    found = scrub.step(iter([False] * 20 + [True]).__next__)
    assert found is None
    for number in range(100):
        world.done(KvPut(f"key{number}", b"another"))
    found, slices = scrubbed(scrub)
    assert found == ""
    assert slices > 3
    scrub.close()
    assert world.machine.checkpoint()  # nothing is held up


@pytest.mark.parametrize("rows", [1, 7, 100_000])
def test_a_bit_that_turned_over_is_found(world: World, tmp_path: Path, rows: int) -> None:
    path = tmp_path / "state.db"
    flip(path, b"value000123")
    found, _ = scrubbed(Scrub(path, lambda: world.machine.digests), rows)
    assert "rows of table kv" in found
    assert world.machine.checkpoint()


def test_so_it_is_in_the_write_ahead_log_and_after_a_checkpoint(world: World, tmp_path: Path) -> None:
    """SQLite copies a page from there without looking at its checksum."""
    path = tmp_path / "state.db"
    world.done(KvPut("fresh", b"written lately"))
    flip(Path(f"{path}-wal"), b"written lately")
    assert "table kv" in scrubbed(Scrub(path, lambda: world.machine.digests))[0]
    assert world.machine.checkpoint()
    assert "table kv" in scrubbed(Scrub(path, lambda: world.machine.digests))[0]


def test_a_file_of_another_time_is_noticed(world: World, tmp_path: Path) -> None:
    """A write that the disk has lost, as a whole."""
    before = world.machine.digests
    world.done(KvPut("one", b"more"))
    found, _ = scrubbed(Scrub(tmp_path / "state.db", lambda: before))
    assert "not the one that was written" in found


def test_what_the_server_has_in_memory_is_not_read_again(world: World, tmp_path: Path) -> None:
    """All keys are right after their bytes have changed in the file, and after a restart none is served."""
    path = tmp_path / "state.db"
    world.machine.close()
    world.machine = Machine.open(str(path))
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for number in range(KEYS):
            file.seek(content.rindex(b"value%06d" % number))
            file.write(b"wrong")
    for number in range(KEYS):
        value = world.machine.query(KvGet(f"key{number}"), ALLOW_ALL).value
        assert isinstance(value, KvPairs)
        assert [pair.value for pair in value.pairs] == [b"value%06d" % number]
    with pytest.raises(DamagedError, match="digest"):
        Machine.open(str(path), examined=True)


def test_an_index_that_differs_from_its_table_is_found(world: World, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, '(node, id)', '(id, node)') WHERE name LIKE '%_by_node'"
        )
        connection.commit()
    assert find_fault(path) != ""
    assert scrubbed(Scrub(path, lambda: world.machine.digests))[0] == ""


def test_a_copy_is_judged_by_its_own_digests(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    assert scrubbed(Scrub(copy))[0] == ""
    flip(copy, b"value000123")
    assert "rows of table kv" in scrubbed(Scrub(copy))[0]


def scribbled(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough" * 100)


def without_digests(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM digests")


@pytest.mark.parametrize("damage", [scribbled, without_digests])
def test_what_can_not_be_read_is_damaged(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "other.db"
    Machine.open(str(path)).close()
    damage(path)
    assert "can't be read" in scrubbed(Scrub(path))[0]


def test_a_structure_that_can_not_be_read_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    scribbled(path)
    assert "can't be read" in find_fault(path)


def test_what_can_not_be_looked_at_now_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="now"):
        find_fault(tmp_path / "none.db")
    scrub = Scrub(tmp_path / "none.db")
    with pytest.raises(StorageError, match="now"):
        scrubbed(scrub)
    scrub.close()
