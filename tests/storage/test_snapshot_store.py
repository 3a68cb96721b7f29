"""Snapshots: built from a state in use, received in pieces over restarts, verified before anybody hears of them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordd.errors import DamagedError, DiskFullError, InvariantError, StorageError
from coordd.storage.pace import Pace
from coordd.storage.snapshot_store import SnapshotFile, SnapshotStore, digest_of
from coordd.types import Configuration, SnapshotMeta
from tests.storage.support import rows, scribble


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path)


@pytest.fixture
def live(store: SnapshotStore) -> Iterator[tuple[str, sqlite3.Connection]]:
    """A state file in use, with part of its content still in the WAL."""
    name = store.new_name(7)
    with closing(sqlite3.connect(store.path(name), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE kv (key INTEGER PRIMARY KEY, value BLOB)")
        connection.executemany("INSERT INTO kv VALUES (?, randomblob(500))", ((key,) for key in range(2000)))
        yield name, connection


def meta(file: SnapshotFile) -> SnapshotMeta:
    return SnapshotMeta(7, 2, 0, Configuration("c", "c", ()), 1, file.size, file.digest)


def send(store: SnapshotStore, file: SnapshotFile, other: SnapshotStore, chunk: int = 100_000) -> str | None:
    incoming = other.receive(meta(file))
    while not incoming.complete:
        assert incoming.write(incoming.offset, store.read_chunk(file.name, incoming.offset, chunk))
    return incoming.finish()


def test_a_build_holds_what_was_committed_while_others_write(
    store: SnapshotStore, live: tuple[str, sqlite3.Connection]
) -> None:
    name, connection = live
    connection.execute("BEGIN")
    connection.execute("DELETE FROM kv")
    built = store.build(name)
    connection.execute("ROLLBACK")
    path = store.path(built.name)
    assert (built.size, built.digest) == (path.stat().st_size, digest_of(path, Pace()))
    assert path.stat().st_mode & 0o777 == 0o600
    assert rows(path, "SELECT count(*) FROM kv") == [(2000,)]


def test_a_build_ends_when_the_source_grows_too_much(
    store: SnapshotStore, live: tuple[str, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.storage.snapshot_store._STEPS_BETWEEN_LOOKS", 100)
    with pytest.raises(StorageError, match="given up: its log of changes grew too large"):
        store.build(live[0], wal_limit=1000)
    assert list(store.folder.glob("snapshot-*")) == []


def test_a_build_of_a_missing_file_leaves_nothing(store: SnapshotStore) -> None:
    with pytest.raises(StorageError):
        store.build("state-1-none.db")
    assert list(store.folder.iterdir()) == []


def test_a_damaged_index_is_not_copied(store: SnapshotStore) -> None:
    """Found by seed 46: the rows had their digest, and the follower that got the copy ended when it opened it."""
    name = store.new_name(7)
    path = store.path(name)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (id TEXT PRIMARY KEY, node TEXT) WITHOUT ROWID")
        connection.execute("CREATE INDEX sessions_by_node ON sessions (node, id)")
        connection.execute("INSERT INTO sessions VALUES ('one', 'a-node')")
        connection.commit()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a-nodeone", b"b-nodeone"))  # in this order only in the index
    assert path.read_bytes() != content
    with pytest.raises(DamagedError, match="is damaged"):
        store.build(name)


def test_a_snapshot_arrives_whole_under_a_new_name(
    store: SnapshotStore, live: tuple[str, sqlite3.Connection], tmp_path: Path
) -> None:
    built = store.build(live[0])
    (tmp_path / "other").mkdir()
    other = SnapshotStore(tmp_path / "other")
    name = send(store, built, other)
    assert name is not None
    assert name.startswith("state-7-")
    assert other.path(name).read_bytes() == store.path(built.name).read_bytes()
    assert other.path(name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in other.folder.iterdir()] == [name]
    assert send(store, built, other) != name


def test_a_transfer_goes_on_after_a_restart(
    store: SnapshotStore, live: tuple[str, sqlite3.Connection], tmp_path: Path
) -> None:
    built = store.build(live[0])
    content = store.path(built.name).read_bytes()
    (tmp_path / "other").mkdir()
    other = SnapshotStore(tmp_path / "other")
    first = other.receive(meta(built))
    assert first.write(0, content[:1000])
    assert not first.write(0, content[:1000]), "a repeated chunk is not the next one"
    assert not first.write(2000, content[2000:3000]), "a gap"
    assert not first.write(1000, content), "more than was announced"
    with pytest.raises(InvariantError):
        first.finish()
    first.close()
    again = SnapshotStore(other.folder).receive(meta(built))
    assert again.offset == 1000
    assert again.write(1000, content[1000:])
    assert again.finish() is not None


def test_a_part_longer_than_the_snapshot_is_begun_again(store: SnapshotStore) -> None:
    store.path("incoming-aa.part").write_bytes(bytes(100))
    incoming = store.receive(meta(SnapshotFile("x", 10, "aa")))
    assert incoming.offset == 0
    assert incoming.write(0, b"01234")
    assert store.path("incoming-aa.part").read_bytes() == b"01234"
    incoming.discard()
    assert list(store.folder.iterdir()) == []


def test_a_snapshot_that_differs_is_deleted(
    store: SnapshotStore, live: tuple[str, sqlite3.Connection], tmp_path: Path
) -> None:
    built = store.build(live[0])
    scribble(store.path(built.name), built.size // 2)
    (tmp_path / "other").mkdir()
    other = SnapshotStore(tmp_path / "other")
    assert send(store, built, other) is None
    assert list(other.folder.iterdir()) == []


def test_only_one_snapshot_arrives_at_a_time(store: SnapshotStore) -> None:
    one = SnapshotFile("x", 10, "aa")
    two = SnapshotFile("y", 10, "bb")
    store.receive(meta(one)).close()
    store.receive(meta(two)).close()
    assert [path.name for path in store.folder.iterdir()] == ["incoming-bb.part"]


def test_files_that_nobody_names_are_removed(store: SnapshotStore) -> None:
    kept, old = store.new_name(9), store.new_name(8)
    others = [
        "raft.db",
        "raft.db-wal",
        "high_water",
        "identity.json",
        "server.key",
        "incoming-aa.part",
        "state-notes.txt",
    ]
    snapshot = f"snapshot-{'0' * 32}.db"
    for name in [kept, f"{kept}-wal", f"{kept}-shm", old, f"{old}-wal", snapshot, *others]:
        store.path(name).touch()
    assert store.remove_all_but([kept]) == sorted([old, f"{old}-wal", snapshot])
    assert {path.name for path in store.folder.iterdir()} == {kept, f"{kept}-wal", f"{kept}-shm", *others}
    store.remove(kept)
    assert {path.name for path in store.folder.iterdir()} == set(others)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_apart(store: SnapshotStore) -> None:
    store.path("incoming-aa.part").symlink_to("/dev/full")
    incoming = store.receive(meta(SnapshotFile("x", 10, "aa")))
    with pytest.raises(DiskFullError):
        incoming.write(0, b"0123456789")
    incoming.close()


# --- beside the daily work --------------------------------------------------------------------------------------------


class Waits:
    """A clock that goes on only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def pace(self, bytes_per_second: float) -> Pace:
        return Pace(bytes_per_second, clock=lambda: self.now, wait=self.wait)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.storage.snapshot_store._STEPS_BETWEEN_LOOKS", 100)


def test_rule_100_a_copy_keeps_to_the_rate(
    tmp_path: Path, live: tuple[str, sqlite3.Connection], often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordd.storage.snapshot_store._SYNC_BYTES", 100_000)
    synced: list[int] = []
    monkeypatch.setattr("os.fdatasync", synced.append)
    with closing(sqlite3.connect(tmp_path / live[0])) as connection:  # larger than the copying connection's page cache
        connection.execute("INSERT INTO kv SELECT key + 2000, randomblob(2000) FROM kv")
        connection.commit()
    waits = Waits()
    built = SnapshotStore(tmp_path, waits.pace(1_000_000)).build(live[0])
    reading = built.size / 1_000_000
    copying = waits.now - 100.0 - reading
    assert reading / 2 < copying <= reading + 0.01  # what stays in SQLite's cache to the end is written at once
    assert len(synced) >= 10


def test_rule_100_reading_a_file_keeps_to_the_rate(store: SnapshotStore, live: tuple[str, sqlite3.Connection]) -> None:
    path = store.path(store.build(live[0]).name)
    waits = Waits()
    digest_of(path, waits.pace(100_000))
    assert waits.now - 100.0 == pytest.approx(
        min(path.stat().st_size / 100_000, 1.0 * -(-path.stat().st_size // (1 << 20)))
    )


def test_rule_100_a_copy_hurries_when_changes_pile_up(
    tmp_path: Path, live: tuple[str, sqlite3.Connection], often: None
) -> None:
    waits = Waits()
    store = SnapshotStore(tmp_path, waits.pace(1_000))
    wal = store.path(live[0] + "-wal").stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coordd.storage.snapshot_store.digest_of", lambda path, pace: "")
        store.build(live[0], wal_limit=2 * wal - 1)
    assert waits.now == 100.0


def test_a_paced_work_ends_with_the_server(tmp_path: Path, live: tuple[str, sqlite3.Connection], often: None) -> None:
    store = SnapshotStore(tmp_path)
    whole = store.path(store.build(live[0]).name)
    pace = Pace(1.0)
    pace.stop()
    with pytest.raises(StorageError, match="given up: the server ends"):
        SnapshotStore(tmp_path, pace).build(live[0])
    with pytest.raises(StorageError, match="the server ends"):
        digest_of(whole, pace)
    assert list(tmp_path.glob("snapshot-*")) == [whole]
