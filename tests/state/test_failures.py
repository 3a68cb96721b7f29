"""Which error stands for what SQLite says."""

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from coordd.errors import DamagedError, DiskFullError, StorageError, UnsupportedError
from coordd.messages.command import KvPut, Register, RegisterClient, ServiceDefinition
from coordd.messages.query import KvList, ServiceHealth
from coordd.state.checkpoint import checkpoint_file
from coordd.state.failures import storage_error
from coordd.state.machine import Machine, examine
from coordd.state.scrub import find_fault
from tests.state import recording
from tests.state.world import World


def test_only_a_full_disk_may_be_waited_out() -> None:
    error = sqlite3.OperationalError("database or disk is full")
    assert not isinstance(storage_error(error), DiskFullError)
    error.sqlite_errorname = "SQLITE_FULL"
    full = storage_error(error, "/data/state.db")
    assert isinstance(full, DiskFullError)
    assert str(full) == "no space left for /data/state.db: free some, nothing was changed"
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    assert not isinstance(storage_error(error), DiskFullError)
    assert "check the disk" in str(storage_error(error))


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be opened") as caught:
        examine(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_what_makes_no_sense_is_damage_and_what_can_not_be_read_is_not() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    assert "can't be read (disk" in str(storage_error(error, "it", "read"))
    error.sqlite_errorname = "SQLITE_CORRUPT_INDEX"
    assert isinstance(storage_error(error, "it"), DamagedError)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET configuration = CAST(x'7bff7d' AS TEXT)",
        "UPDATE meta SET feature_level = 'one'",
        "UPDATE meta SET feature_level = 257",
    ],
)
def test_rows_that_make_no_sense_are_damage_and_nothing_else(tmp_path: Path, damage: str) -> None:
    """The first was found by seed 1969: a server with such a flipped bit ended at each start, and was not refilled."""
    world = World(str(tmp_path / "state.db"))
    world.done(KvPut("key", b"value"))
    world.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute(damage)
        connection.commit()
    with pytest.raises(DamagedError, match=r"damaged|can't be read as replicated state"):
        examine(str(tmp_path / "state.db"))


def test_a_column_that_is_not_there_any_more_is_damage(tmp_path: Path) -> None:
    """Likewise."""
    path = tmp_path / "state.db"
    World(str(path)).close()
    path.write_bytes(path.read_bytes().replace(b"applied_term", b"applied_tdrm"))
    with pytest.raises(DamagedError, match=r"table meta .* is damaged"):
        examine(str(path))


@pytest.mark.parametrize("use", [lambda path: examine(str(path)), find_fault, checkpoint_file])
def test_words_about_a_damaged_schema_that_are_no_text_are_damage(
    tmp_path: Path, use: Callable[[Path], object]
) -> None:
    """Found by seed 2077: what SQLite says of the schema repeats a byte of it that is no UTF-8, and Python stumbles over it."""
    path = tmp_path / "state.db"
    world = World(str(path))
    world.machine.checkpoint()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE kv (key", b"CREATE TABLE kv (\xe5'\xe5"))
    (tmp_path / "state.db-wal").unlink()
    if use is find_fault:
        assert find_fault(path)
    else:
        with pytest.raises(DamagedError):
            use(path)


@pytest.mark.parametrize(
    ("damage", "act"),
    [
        ("UPDATE clients SET replies = '{'", lambda world: world.run(KvPut("key", b"2"), client=1, number=2)),
        ("UPDATE services SET meta = '{'", lambda world: world.ask(ServiceHealth("web"))),
        ("DROP TABLE digests", lambda world: world.run(KvPut("key", b"2"))),
    ],
)
def test_damage_that_is_met_in_use_has_a_name(damage: str, act: Callable[[World], object]) -> None:
    """It ends the process; the next start finds it, and another server sends a whole state."""
    world = World()
    world.done(RegisterClient("a", 1))
    world.run(KvPut("key", b"1"), client=1, number=1)
    world.done(Register("n1", "10.0.0.1", services=(ServiceDefinition("web1", "web"),)))
    world.machine._connection.execute(damage)
    world.machine._clients.forget()
    for table in world.machine._rows.tables:
        table.forget()
    with pytest.raises(StorageError, match=r"damaged|no such table"):
        act(world)
    world.close()


def test_a_bit_flipped_anywhere_is_damage_or_changes_nothing(tmp_path: Path) -> None:
    """Of a file with rows in every table. A format that is another is refused as well."""
    written = tmp_path / "written.db"
    machine = Machine.open(str(written))
    machine.apply(1, list(recording.log()))
    digest = machine.digest
    machine.checkpoint()
    content = written.read_bytes()
    machine.close()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng, flipped = random.Random(seed), tmp_path / "flipped.db"
    occupied = [place for place, byte in enumerate(content) if byte]
    outcomes: Counter[str] = Counter()
    for _ in range(300):
        place = rng.choice(occupied)
        flipped.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        try:
            examine(str(flipped))
        except (DamagedError, UnsupportedError) as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["harmless"] += 1
            again = Machine.open(str(flipped), examined=True)
            assert (again.digest, again.applied) == (digest, machine.applied)
            again.close()
            for side in tmp_path.glob("flipped.db-*"):
                side.unlink()
    assert outcomes["DamagedError"] > 100, outcomes


def test_a_page_that_makes_no_sense_when_it_is_read_has_a_name(tmp_path: Path) -> None:
    """Of a state that is larger than its cache: its pages were verified at the start, and are read again."""
    world = World(str(tmp_path / "state.db"))
    for number in range(2000):
        world.done(KvPut(f"key{number:05}", b"v" * 500))
    world.machine.checkpoint()
    world.machine._connection.execute("PRAGMA cache_size = 1")
    size = (tmp_path / "state.db").stat().st_size
    with (tmp_path / "state.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    world.machine._connection.execute("PRAGMA shrink_memory")
    with pytest.raises(DamagedError, match=r"table kv .* is damaged"):
        world.ask(KvList("key"))
    world.close()
