"""The machine as a whole: batches, files, failures, and readers beside it."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from coordd.acl.authorizer import ALLOW_ALL
from coordd.errors import CoorddError, DamagedError, DiskFullError, InvariantError, StorageError, UnsupportedError
from coordd.messages.command import KvPut, LockAcquire, RegisterClient
from coordd.messages.entry import NOOP_ENTRY, encode_configuration
from coordd.messages.query import KvGet, KvList, KvPairs, ListLocks
from coordd.state import machine as machine_module
from coordd.state import tables
from coordd.state.kv import put
from coordd.state.machine import Applied, Machine, examine
from coordd.state.rows import Rows
from coordd.types import Configuration, Member, ServerId
from tests.state.world import SECOND, World, entry, rows

CONFIGURATION = Configuration(
    "cluster", "test", (Member(ServerId("a#00"), "127.0.0.1:1", "127.0.0.1:2", "k" * 40, voter=True),)
)


def filled(path: str) -> World:
    world = World(path)
    client = world.done(RegisterClient()).index
    for number in range(1, 20):
        world.run(KvPut(f"k{number % 7}", bytes([number])), client, number)
    world.session("s1")
    world.session("s2")
    world.grant(LockAcquire("l", "s1"))
    world.grant(LockAcquire("l", "s2", wait_ms=60_000))
    return world


def test_noop_and_configuration(world: World) -> None:
    machine = world.machine
    assert machine.apply(1, [(1, NOOP_ENTRY), (1, encode_configuration(CONFIGURATION))]) == [
        Applied(1, 0, 0, None),
        Applied(2, 0, 0, None),
    ]
    assert (machine.applied, machine.applied_term) == (2, 1)
    assert (machine.configuration, machine.configuration_index) == (CONFIGURATION, 2)


def test_an_empty_batch_changes_nothing(world: World) -> None:
    before = rows(world.machine)
    assert world.machine.apply(1, []) == []
    assert world.machine.applied == 0
    assert rows(world.machine)["kv"] == before["kv"]


def test_changes_are_those_of_the_last_batch(world: World) -> None:
    world.machine.apply(1, [(1, entry(KvPut("a", b""))), (1, entry(KvPut("b", b"")))])
    assert world.machine.changes == {("kv", "a"), ("kv", "b")}
    world.machine.apply(3, [(1, NOOP_ENTRY)])
    assert world.machine.changes == set()


def test_state_time_never_goes_back(world: World) -> None:
    world.time = 9 * SECOND
    world.done(KvPut("a", b""))
    world.time = 3 * SECOND
    world.done(KvPut("a", b""))
    assert world.machine.state_time == 9 * SECOND


@pytest.mark.parametrize("first", [0, 2, 3])
def test_the_log_is_applied_in_order(world: World, first: int) -> None:
    with pytest.raises(InvariantError):
        world.machine.apply(first, [(1, NOOP_ENTRY)])


# --- what this version can't read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x07",
        b"\x01",
        b"\x01short",
        entry(KvPut("a", b""))[:-1],
        entry(KvPut("a", b""))[:33] + msgspec.msgpack.encode(["zz", 1, 2]),
        entry(KvPut("a", b""))[:33] + msgspec.msgpack.encode(["kp", 1, 2]),
        b"\x02nonsense",
        entry(KvPut("key", b"")).replace(b"key", b"k\xff\xfe"),
        encode_configuration(Configuration("name", "", ())).replace(b"\xa4name", b"\xa4na\xff\xfe"),
    ],
)
def test_an_unreadable_entry_stops_and_changes_nothing(world: World, bad: bytes) -> None:
    world.done(KvPut("a", b"1"))
    before, digest = rows(world.machine), world.machine.digest
    with pytest.raises(InvariantError):
        world.machine.apply(2, [(1, entry(KvPut("a", b"2"))), (1, bad)])
    assert (rows(world.machine), world.machine.digest, world.machine.applied) == (before, digest, 1)


def test_a_failing_batch_is_rolled_back_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(str(tmp_path / "state.db"))
    machine = world.machine
    before, digest, applied = rows(machine), machine.digest, machine.applied

    def breaks(table: Rows, command: KvPut) -> object:
        if command.key == "bug":
            raise ZeroDivisionError
        return put(table, command)

    monkeypatch.setitem(machine._commands._apply, KvPut, breaks)
    batch = [(1, entry(KvPut("k1", b"lost"), 90 * SECOND, 1, 20, 20)), (1, entry(KvPut("bug", b"")))]
    with pytest.raises(ZeroDivisionError):
        machine.apply(applied + 1, batch)
    assert (rows(machine), machine.digest, machine.applied) == (before, digest, applied)
    assert machine.verify()
    value = machine.query(KvGet("k1"), ALLOW_ALL).value
    assert isinstance(value, KvPairs)
    assert value.pairs[0].value != b"lost"
    machine.apply(applied + 1, batch[:1])
    assert machine.verify()
    value = machine.query(KvGet("k1"), ALLOW_ALL).value
    assert isinstance(value, KvPairs)
    assert value.pairs[0].value == b"lost", "the client's number was forgotten with the batch"
    world.close()


def test_a_full_disk_is_named_and_passes(tmp_path: Path) -> None:
    world = World(str(tmp_path / "state.db"))
    world.done(KvPut("a", b"1"))
    connection = world.machine._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    digest = world.machine.digest
    with pytest.raises(DiskFullError):
        world.machine.apply(2, [(1, entry(KvPut("b", bytes(100_000))))])
    assert (world.machine.applied, world.machine.digest) == (1, digest)
    assert world.ask(KvGet("a")).index == 1
    connection.execute("PRAGMA max_page_count = 1000000")
    world.done(KvPut("b", bytes(100_000)))
    assert world.machine.verify()
    world.close()


# --- the file -----------------------------------------------------------------------------------------------------------


def test_a_reopened_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Beside a twin that is never closed; both get the same log."""
    path = str(tmp_path / "state.db")
    filled(path).close()
    opened, twin = World(path), filled(":memory:")
    opened.time = twin.time = 90 * SECOND  # the waiter's deadline passes: timers came back too
    for world in (opened, twin):
        world.machine.apply(world.index + 1, [(1, encode_configuration(CONFIGURATION))])
        world.run(KvPut("k1", b"again"), 1, 19)
        world.run(KvPut("k1", b"more"), 1, 20)
    assert rows(opened.machine) == rows(twin.machine)
    assert opened.machine.digest == twin.machine.digest
    assert opened.ask(ListLocks()) == twin.ask(ListLocks())
    opened.close()
    again = World(path)
    assert again.machine.configuration == CONFIGURATION
    assert (again.machine.applied, again.machine.applied_term) == (twin.machine.applied, 1)
    assert again.machine.state_time == 90 * SECOND
    assert again.machine.row_counts == twin.machine.row_counts
    again.close()
    twin.close()


def test_a_file_left_by_a_killed_process_is_whole(tmp_path: Path) -> None:
    """Copied while open: what a SIGKILL leaves."""
    world = filled(str(tmp_path / "state.db"))
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"state.db{suffix}", tmp_path / f"copy.db{suffix}")
    copy = Machine.open(str(tmp_path / "copy.db"))
    assert (copy.applied, copy.digest) == (world.machine.applied, world.machine.digest)
    copy.close()
    world.close()


def test_a_file_that_was_examined_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "state.db")
    filled(path).close()
    examine(path)
    monkeypatch.setattr(machine_module, "examine", None)
    machine = Machine.open(path, examined=True)
    assert machine.verify()
    machine.close()


def test_a_crash_while_the_file_was_made_leaves_nothing_to_mourn(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    _change(path, "PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0
    machine = Machine.open(str(path))
    assert machine.applied == 0
    machine.close()


def test_checkpoint_empties_the_wal(tmp_path: Path) -> None:
    world = filled(str(tmp_path / "state.db"))
    assert world.machine.checkpoint()
    shutil.copy(tmp_path / "state.db", tmp_path / "copy.db")
    copy = Machine.open(str(tmp_path / "copy.db"))
    assert copy.digest == world.machine.digest
    copy.close()
    world.close()


def test_a_snapshot_made_beside_is_the_same_state(tmp_path: Path) -> None:
    world = filled(str(tmp_path / "state.db"))
    beside = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    beside.execute("VACUUM INTO ?", (str(tmp_path / "snapshot.db"),))
    beside.close()
    world.done(KvPut("later", b""))
    snapshot = Machine.open(str(tmp_path / "snapshot.db"))
    assert snapshot.applied == world.machine.applied - 1
    snapshot.apply(snapshot.applied + 1, [world.log[-1]])
    assert snapshot.digest == world.machine.digest
    snapshot.close()
    world.close()


def test_checkpoint_says_when_a_reader_holds_it_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    world = filled(str(path))
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM kv").fetchone()
    world.done(KvPut("a", b""))
    assert not world.machine.checkpoint()
    reader.execute("COMMIT")
    assert world.machine.checkpoint()
    reader.close()
    world.close()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 program is not installed")
def test_the_sqlite3_program_reads_the_file_of_a_running_server(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    world = filled(str(path))

    def asked(sql: str) -> str:
        command = ["sqlite3", "-readonly", str(path), sql]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    assert asked("SELECT key, version FROM kv ORDER BY key LIMIT 2") == "k0|2\nk1|3"
    assert asked("SELECT applied FROM meta") == str(world.index)
    assert asked("SELECT name, holder, mode FROM locks") == "l|s1|exclusive"
    world.done(KvPut("seen", b"at once"))
    assert asked("SELECT value FROM kv WHERE key = 'seen'") == "at once"
    world.close()


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    filled(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE kv SET value = x'00' WHERE key = 'k3'")
    connection.close()
    with pytest.raises(DamagedError, match="digest"):
        Machine.open(str(path))


def scribbled(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough" * 100)


def without_rows(path: Path) -> None:
    _change(path, "DROP TABLE kv")


def without_digests(path: Path) -> None:
    _change(path, "DELETE FROM digests")


def with_odd_digests(path: Path) -> None:
    _change(path, "UPDATE digests SET digest = 'odd'")


def of_another_version(path: Path) -> None:
    _change(path, "PRAGMA user_version = 99")


def _change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (scribbled, DamagedError),
        (without_rows, DamagedError),
        (without_digests, DamagedError),
        (with_odd_digests, DamagedError),
        (of_another_version, UnsupportedError),
    ],
)
def test_a_file_that_can_not_be_used(tmp_path: Path, damage: Callable[[Path], None], error: type[CoorddError]) -> None:
    path = tmp_path / "state.db"
    filled(str(path)).close()
    damage(path)
    before = checksums(tmp_path)
    with pytest.raises(error, match=r"state\.db"):
        Machine.open(str(path))
    assert checksums(tmp_path) == before


def test_a_damaged_wal_stays_as_evidence(tmp_path: Path) -> None:
    world = World(str(tmp_path / "state.db"))
    for number in range(50):
        world.done(KvPut(f"k{number}", bytes(1000)))
    shutil.copy(tmp_path / "state.db", tmp_path / "copy.db")
    wal = bytearray((tmp_path / "state.db-wal").read_bytes())
    world.close()
    (tmp_path / "copy.db-wal").write_bytes(wal)
    with sqlite3.connect(tmp_path / "copy.db") as connection:  # the last transaction, of a bug: rows without digest
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("DELETE FROM kv WHERE key = 'k7'")
        connection.commit()
        wal = bytearray((tmp_path / "copy.db-wal").read_bytes())
        (tmp_path / "bad.db").write_bytes((tmp_path / "copy.db").read_bytes())
    connection.close()
    (tmp_path / "bad.db-wal").write_bytes(wal)
    before = checksums(tmp_path)
    with pytest.raises(DamagedError):
        Machine.open(str(tmp_path / "bad.db"))
    assert checksums(tmp_path) == before
    assert "bad.db-wal" in before


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    _change(path, "CREATE TABLE theirs (x)")
    before = checksums(tmp_path)
    with pytest.raises(DamagedError, match="no replicated state"):
        Machine.open(str(path))
    assert checksums(tmp_path) == before


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        Machine.open(str(tmp_path / "nowhere" / "state.db"))


def test_where_there_is_no_write_ahead_log_nothing_is_kept() -> None:
    """SQLite silently stays with another journal then, as it does for its nameless temporary database."""
    with pytest.raises(StorageError, match="write-ahead log"):
        Machine.open("", examined=True)


def test_a_file_that_somebody_else_holds_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "_BUSY_SECONDS", 0.0)
    path = tmp_path / "state.db"
    world = filled(str(path))
    world.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="locked") as raised:
        Machine.open(str(path), examined=True)
    assert not isinstance(raised.value, DamagedError)
    other.close()


def test_a_file_that_can_not_be_written_any_more_is_an_error_of_the_storage(tmp_path: Path) -> None:
    world = filled(str(tmp_path / "state.db"))
    applied = world.machine.applied
    world.machine._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(StorageError, match="readonly") as raised:
        world.machine.apply(applied + 1, [(1, entry(KvPut("k", b"")))])
    assert not isinstance(raised.value, DiskFullError)
    assert world.machine.applied == applied
    world.close()


def test_a_checkpoint_that_fails_says_so(tmp_path: Path) -> None:
    world = filled(str(tmp_path / "state.db"))
    world.machine._connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        world.machine.checkpoint()
    world.machine._connection.execute("ROLLBACK")
    assert world.machine.checkpoint()
    world.close()


def test_rows_are_kept_in_memory_up_to_a_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CACHED_ROWS", 3)
    for number in range(10):
        world.done(KvPut(f"k{number}", bytes([number])))
    assert len(world.machine._rows.kv._cache) == 3
    for number in range(10):
        value = world.value(KvGet(f"k{number}"))
        assert isinstance(value, KvPairs)
        assert value.pairs[0].value == bytes([number])
    assert len(world.machine._rows.kv._cache) == 3


def test_large_values_are_not_kept_in_memory(world: World) -> None:
    for number in range(30):
        world.done(KvPut(f"big{number}", bytes(100_000)))
    world.ask(KvList("big"))
    assert not world.machine._rows.kv._cache


def test_a_value_that_grows_is_not_remembered_small(world: World) -> None:
    world.done(KvPut("a", b"small"))
    world.done(KvPut("a", bytes(10_000)))
    value = world.value(KvGet("a"))
    assert isinstance(value, KvPairs)
    assert (len(value.pairs[0].value), value.pairs[0].version) == (10_000, 2)
