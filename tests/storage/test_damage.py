"""What the disk forgot or changed is noticed before anything relies on it, and refused files stay as they were."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from coordd.errors import DamagedError, StorageError
from coordd.storage.files import sync_path
from coordd.storage.high_water import HighWater, Mark, read_mark
from coordd.storage.log_store import LogStore
from coordd.storage.wal import WalHeader, read_wal
from coordd.types import Base, HardState, LogSlice, LogWrite, ServerId
from tests.storage.support import (
    CANDIDATE,
    NAME,
    append,
    contents,
    copy_of,
    entry,
    filled,
    fingerprint,
    scribble,
)

COUNT = 40
SIZE = 3000
"""Of an entry: about a page, so that damage anywhere in the files hits something."""


class CrashError(Exception):
    """The test's own: the machine stops here."""


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The folder of a server that was killed with 40 entries in its WAL."""
    store = filled(tmp_path / "data", COUNT, size=SIZE)
    copied = copy_of(tmp_path / "data")
    store.close()
    assert (copied / "raft.db-wal").stat().st_size > COUNT * SIZE
    return copied


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a server that was stopped cleanly with 40 entries."""
    filled(tmp_path / "stopped", COUNT, size=SIZE).close()
    return tmp_path / "stopped"


def refused(folder: Path, text: str) -> None:
    """Opening fails, says why in one sentence with the path, and changes nothing."""
    before = fingerprint(folder)
    with pytest.raises(DamagedError, match=text) as caught:
        LogStore.open(folder, NAME)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert fingerprint(folder) == before


def forgotten(folder: Path) -> tuple[int, LogStore]:
    """The log opens, shorter than it promised to be; what is left is a beginning of what was written."""
    store = LogStore.open(folder, NAME)
    recovered = store.recover()
    assert recovered.promised == COUNT
    assert recovered.tail.last < COUNT
    assert contents(store) == [entry(f"e{index}", SIZE) for index in range(1, recovered.tail.last + 1)]
    return recovered.tail.last, store


def test_a_kill_loses_nothing(crashed: Path) -> None:
    store = LogStore.open(crashed, NAME)
    recovered = store.recover()
    assert recovered.tail.last == recovered.promised == COUNT
    assert len(contents(store)) == COUNT


# --- The WAL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_wal_cut_short_is_amnesia_and_evidence_is_kept(crashed: Path, share: float) -> None:
    wal = crashed / "raft.db-wal"
    with wal.open("r+b") as file:
        file.truncate(int(wal.stat().st_size * share))
    damaged = wal.read_bytes()
    forgotten(crashed)
    assert (crashed / "raft.db-wal.damaged-1").read_bytes() == damaged


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_scribbled_wal_is_amnesia_and_evidence_is_kept(crashed: Path, share: float) -> None:
    wal = crashed / "raft.db-wal"
    scribble(wal, int(wal.stat().st_size * share))
    damaged = wal.read_bytes()
    forgotten(crashed)
    assert (crashed / "raft.db-wal.damaged-1").read_bytes() == damaged


def test_evidence_is_bounded(crashed: Path) -> None:
    wal = crashed / "raft.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size // 2)
    for number in range(6):
        again = crashed.with_name(f"again{number}")
        shutil.copytree(crashed, again)
        LogStore.open(again, NAME).close()
        for evidence in again.glob("*.damaged-*"):
            shutil.copy(evidence, crashed)
    assert len(list(crashed.glob("*.damaged-*"))) == 3


def test_scribbles_behind_the_promise_are_harmless(crashed: Path) -> None:
    wal = crashed / "raft.db-wal"
    end = read_wal(wal).end
    with wal.open("ab") as file:
        file.write(random.Random(1).randbytes(10_000))
    assert read_wal(wal).end == end
    store = LogStore.open(crashed, NAME)
    assert store.recover().promised == store.last == COUNT
    assert not list(crashed.glob("*.damaged-*"))


def test_a_wal_whose_header_is_wrong_is_refused(crashed: Path) -> None:
    scribble(crashed / "raft.db-wal", 0, 32)
    assert read_wal(crashed / "raft.db-wal").header is WalHeader.DAMAGED
    refused(crashed, "raft.db-wal is damaged")


def test_a_wal_of_zeros_is_refused(crashed: Path) -> None:
    wal = crashed / "raft.db-wal"
    wal.write_bytes(bytes(wal.stat().st_size))
    refused(crashed, "raft.db-wal is damaged")


def test_a_wrong_wal_header_without_loss_is_no_obstacle(stopped: Path) -> None:
    (stopped / "raft.db-wal").write_bytes(b"not a WAL" * 100)
    store = LogStore.open(stopped, NAME)
    assert store.recover().promised == store.last == COUNT


def test_a_deleted_wal_is_amnesia(crashed: Path) -> None:
    (crashed / "raft.db-wal").unlink()
    last, _ = forgotten(crashed)
    assert last == 0


def test_the_wal_reader_agrees_with_sqlite_at_every_cut(crashed: Path, tmp_path: Path) -> None:
    wal = (crashed / "raft.db-wal").read_bytes()
    rng = random.Random(7)
    for number in range(25):
        folder = tmp_path / f"cut{number}"
        folder.mkdir()
        shutil.copy(crashed / "raft.db", folder)
        (folder / "raft.db-wal").write_bytes(wal[: rng.randrange(len(wal))])
        ours = read_wal(folder / "raft.db-wal")
        with closing(sqlite3.connect(folder / "raft.db")) as connection:
            connection.execute("SELECT count(*) FROM entries")
            frames = connection.execute("PRAGMA wal_checkpoint").fetchone()[1]
        assert max(0, ours.end - 32) // (24 + 4096) == frames


# --- Refilling what was forgotten -------------------------------------------------------------------------------------


def test_the_promise_outlives_restarts_until_it_is_kept(crashed: Path) -> None:
    wal = crashed / "raft.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size // 2)
    last, store = forgotten(crashed)
    store.write([append(1, last - 1, ["new"], term=2)])  # a leader's other history, also below the end
    store.close()
    store = LogStore.open(crashed, NAME)
    assert (store.recover().promised, store.last) == (COUNT, last - 1)
    store.write([append(2, last, ["new"] * (COUNT - last), term=2)])
    store.close()
    store = LogStore.open(crashed, NAME)
    assert (store.recover().promised, store.last) == (COUNT, COUNT - 1)
    store.write([append(3, COUNT, ["new", "newer"], term=2)])
    store.close()
    store = LogStore.open(crashed, NAME)
    assert (store.recover().promised, store.last) == (COUNT + 1, COUNT + 1)


def test_a_kill_between_refilling_and_saying_so_is_no_new_amnesia(
    crashed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (crashed / "raft.db-wal").unlink()
    _, store = forgotten(crashed)

    def crash(_: LogStore) -> None:
        raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(LogStore, "_raise_mark", crash)
        with pytest.raises(CrashError):
            store.write([append(1, 1, ["other"] * (COUNT + 2), term=2)])
    store = LogStore.open(copy_of(crashed), NAME)
    assert (store.recover().promised, store.last) == (COUNT, COUNT + 2)


def test_an_installed_base_keeps_the_promise_only_if_it_reaches_it(crashed: Path) -> None:
    (crashed / "raft.db-wal").unlink()
    _, store = forgotten(crashed)
    store.install(Base(COUNT - 1, 3, 77))
    store.close()
    store = LogStore.open(crashed, NAME)
    assert store.recover().promised == COUNT
    store.install(Base(COUNT, 3, 78))
    store.close()
    store = LogStore.open(crashed, NAME)
    assert store.recover().promised == store.last == COUNT
    store.write([append(1, COUNT + 1, ["a"], term=3)])
    store.write([append(2, COUNT + 1, ["b"], term=4)])
    mark = read_mark(crashed / "high_water")
    assert mark is not None
    assert not mark.refilling


def test_a_log_of_an_older_time_is_amnesia_although_it_is_longer(tmp_path: Path) -> None:
    """A database put back from before a replacement: complete in itself, but not what was acknowledged last."""
    folder = tmp_path / "data"
    filled(folder, 10).close()
    old = (folder / "raft.db").read_bytes()
    store = LogStore.open(folder, NAME)
    store.write([append(1, 5, ["x", "y", "z"], term=2)])
    store.close()
    (folder / "raft.db").write_bytes(old)
    store = LogStore.open(folder, NAME)
    recovered = store.recover()
    assert (recovered.promised, recovered.tail.last) == (7, 6)
    assert contents(store) == [entry(f"e{index}") for index in range(1, 7)]
    store.close()
    store = LogStore.open(folder, NAME)
    assert (store.recover().promised, store.last) == (7, 6)


# --- Term and vote ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vote", [CANDIDATE, None])
def test_a_forgotten_term_and_vote_come_from_the_mark(stopped: Path, vote: ServerId | None) -> None:
    old = (stopped / "raft.db").read_bytes()
    store = LogStore.open(stopped, NAME)
    store.write([LogWrite(1, HardState(9, vote), None, must_sync=True)])
    store.close()
    (stopped / "raft.db").write_bytes(old)
    recovered = LogStore.open(stopped, NAME).recover()
    assert recovered.hard_state == HardState(9, vote)
    assert recovered.promised == recovered.tail.last


def test_a_forgotten_vote_of_the_same_term_comes_from_the_mark(stopped: Path) -> None:
    old = (stopped / "raft.db").read_bytes()
    store = LogStore.open(stopped, NAME)
    store.write([LogWrite(1, HardState(1, CANDIDATE), None, must_sync=True)])
    store.close()
    (stopped / "raft.db").write_bytes(old)
    store = LogStore.open(stopped, NAME)
    assert store.recover().hard_state == HardState(1, CANDIDATE)
    store.close()
    assert LogStore.open(stopped, NAME).recover().hard_state == HardState(1, CANDIDATE)


def test_two_different_votes_in_one_term_are_refused(stopped: Path) -> None:
    store = LogStore.open(stopped, NAME)
    store.write([LogWrite(1, HardState(2, CANDIDATE), None, must_sync=True)])
    store.close()
    mark = read_mark(stopped / "high_water")
    assert mark is not None
    high_water = HighWater(stopped / "high_water")
    high_water.write(msgspec.structs.replace(mark, vote=ServerId("s3#" + "1" * 32)))
    high_water.close()
    refused(stopped, "vote for s2")


# --- raft.db ----------------------------------------------------------------------------------------------------------


def test_flips_in_the_database_are_refused_or_change_nothing(stopped: Path, tmp_path: Path) -> None:
    """Single flipped bytes all over the file: either opening refuses, or what is read is what was written."""
    rng = random.Random(3)
    size = (stopped / "raft.db").stat().st_size
    outcomes = {"refused": 0, "forgotten": 0, "harmless": 0}
    for number in range(80):
        folder = tmp_path / f"flip{number}"
        shutil.copytree(stopped, folder)
        offset = rng.randrange(size)
        scribble(folder / "raft.db", offset)
        before = fingerprint(folder)
        try:
            store = LogStore.open(folder, NAME)
        except StorageError:
            assert fingerprint(folder) == before, offset
            outcomes["refused"] += 1
            continue
        recovered = store.recover()
        assert contents(store) == [entry(f"e{index}", SIZE) for index in range(1, store.last + 1)], offset
        assert recovered.hard_state == HardState(1), offset
        assert recovered.promised == COUNT, offset
        outcomes["forgotten" if store.last < COUNT else "harmless"] += 1
        store.close()
    assert outcomes["refused"] > 50, outcomes


def test_a_missing_entry_is_named(stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "raft.db")) as connection:
        connection.execute("DELETE FROM entries WHERE idx = 7")
        connection.commit()
    refused(stopped, "entry 7 is missing")


def test_a_list_of_free_pages_that_names_a_live_one_is_refused(stopped: Path) -> None:
    """Nothing reads wrong yet, but the next writes would go over live entries."""
    store = LogStore.open(stopped, NAME)
    store.recover()
    store.compact(Base(30))
    store.close()
    header = (stopped / "raft.db").read_bytes()[:100]
    assert int.from_bytes(header[36:40], "big") > 1, "there are free pages"
    with (stopped / "raft.db").open("r+b") as file:
        file.seek(32)
        file.write((2).to_bytes(4, "big"))
    refused(stopped, "raft.db is damaged")


@pytest.mark.parametrize("seed", range(12))
def test_damage_in_a_wal_that_is_already_checkpointed_mixes_nothing(tmp_path: Path, seed: int) -> None:
    """SQLite then replays an old beginning of the WAL over newer pages; what comes of it must not pass for a log."""
    rng = random.Random(seed)
    store = filled(tmp_path / "data", 30)
    for index in range(20, 31):
        store.write([append(index, index, ["x"] * (31 - index), term=index)])
    store.compact(Base(10))
    store.checkpoint()
    wanted = contents(store)
    folder = copy_of(tmp_path / "data")
    end = read_wal(folder / "raft.db-wal").end
    scribble(folder / "raft.db-wal", rng.randrange(32, end))
    before = fingerprint(folder)
    try:
        store = LogStore.open(folder, NAME)
    except DamagedError:
        assert fingerprint(folder) == before
        return
    recovered = store.recover()
    assert recovered.promised == 30
    if recovered.tail.last == 30:
        assert contents(store)[-len(wanted) :] == wanted


def test_what_was_read_is_synced_before_it_is_reported(crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves commits that no fsync has covered; the next start must not report them as durable."""
    synced: list[str] = []

    def note(path: Path) -> None:
        assert not synced or (crashed / "raft.db-wal").exists(), "SQLite has not opened it yet"
        synced.append(path.name)
        sync_path(path)

    monkeypatch.setattr("coordd.storage.opening.sync_path", note)
    LogStore.open(crashed, NAME)
    assert synced == ["raft.db-wal", "raft.db"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET data = x'01ff' WHERE idx = 7",
        "UPDATE entries SET chain = chain + 1 WHERE idx = 7",
        "UPDATE entries SET chain = chain + 1 WHERE idx = 40",
        "UPDATE entries SET term = 0 WHERE idx = 7",
        "UPDATE entries SET kind = 0 WHERE idx = 7",
        "DELETE FROM entries WHERE idx = 7",
        "DELETE FROM entries WHERE idx = 1",
        "UPDATE hard_state SET term = 5",
        "UPDATE hard_state SET vote = 'x'",
        "DELETE FROM hard_state",
        "UPDATE base SET idx = 3",
        "UPDATE base SET state_file = 'other.db'",
        "UPDATE base SET state_file = CAST(x'ff' AS TEXT)",
        "DELETE FROM base",
        "DROP TABLE entries",
    ],
)
def test_a_changed_row_is_refused(stopped: Path, change: str) -> None:
    with closing(sqlite3.connect(stopped / "raft.db")) as connection:
        connection.execute(change)
        connection.commit()
    refused(stopped, "raft.db is damaged")


def _delete(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _empty(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_delete("raft.db"), "raft.db is missing, but high_water promises 40 entries"),
        (_empty("raft.db"), "raft.db is empty, but high_water promises 40 entries"),
        (_delete("high_water"), "high_water is missing or damaged"),
        (_empty("high_water"), "high_water is missing or damaged"),
        (lambda folder: (folder / "high_water").write_bytes(b"\xff" * 4608), "high_water is missing or damaged"),
        (_delete("identity.json"), "identity.json is missing"),
        (_empty("identity.json"), "identity.json is damaged"),
        (lambda folder: scribble(folder / "raft.db", 0, 16), "raft.db is damaged"),
        (lambda folder: scribble(folder / "raft.db", 16, 2), "raft.db is damaged"),
        (lambda folder: (folder / "raft.db").write_bytes(b"x" * 20), "raft.db is damaged"),
        (lambda folder: (folder / "raft.db-journal").write_bytes(b"x"), "raft.db-journal should not exist"),
    ],
)
@pytest.mark.parametrize("state", ["crashed", "stopped"])
def test_missing_and_foreign_files_are_refused(
    request: pytest.FixtureRequest, state: str, change: Callable[[Path], object], text: str
) -> None:
    folder: Path = request.getfixturevalue(state)
    change(folder)
    refused(folder, text)


def test_both_databases_gone_is_refused_as_long_as_there_is_an_identity(stopped: Path) -> None:
    (stopped / "raft.db").unlink()
    (stopped / "high_water").unlink()
    refused(stopped, "raft.db is missing")


def test_a_refused_folder_keeps_no_lock_file_that_was_not_there(stopped: Path) -> None:
    (stopped / "lock").unlink()
    (stopped / "raft.db").write_bytes(b"")
    refused(stopped, "raft.db is empty")


def test_a_newer_format_is_refused(stopped: Path) -> None:
    with closing(sqlite3.connect(stopped / "raft.db")) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = fingerprint(stopped)
    with pytest.raises(StorageError, match="has format 2"):
        LogStore.open(stopped, NAME)
    assert fingerprint(stopped) == before


@pytest.mark.parametrize(
    "rot",
    [
        "UPDATE entries SET data = x'0178' WHERE idx = 3",
        "UPDATE entries SET term = 2 WHERE idx = 3",
        "UPDATE entries SET chain = chain + 1 WHERE idx = 3",
        "UPDATE entries SET chain = chain + 1 WHERE idx = 5",
        "DELETE FROM entries WHERE idx = 3",
        "DELETE FROM entries WHERE idx = 4",
        "DELETE FROM entries WHERE idx = 5",
        "DELETE FROM entries WHERE idx > 3",
        "UPDATE entries SET idx = 9 WHERE idx = 5",
        "UPDATE entries SET term = -1 WHERE idx = 5",
    ],
)
def test_an_entry_that_rots_while_running_is_not_sent(tmp_path: Path, rot: str) -> None:
    """Nor is the term of the entry before, which goes with what is sent."""
    store = filled(tmp_path / "data", 5, per_write=5)
    store._connection.execute(rot)
    with pytest.raises(DamagedError, match=r"entry . (does not match its checksum|is missing)"):
        store.read(4, 1 << 20)
    store.abandon()


@pytest.mark.parametrize("index", [2, 3])
def test_a_chain_that_rots_while_running_vouches_for_no_snapshot(tmp_path: Path, index: int) -> None:
    store = filled(tmp_path / "data", 5, per_write=5)
    store._connection.execute("UPDATE entries SET chain = chain + 1 WHERE idx = ?", (index,))
    with pytest.raises(DamagedError, match="entry 3"):
        store.chain_at(3)
    store.abandon()


def test_the_mark_is_lowered_before_entries_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaced and killed before the mark rises again: the shorter log is what was promised, not amnesia."""
    store = filled(tmp_path / "data", 10)

    def crash(_: LogStore) -> None:
        raise CrashError

    monkeypatch.setattr(LogStore, "_raise_mark", crash)
    with pytest.raises(CrashError):
        store.write([append(11, 4, ["x"], term=2)])
    monkeypatch.undo()
    killed = copy_of(tmp_path / "data")
    store = LogStore.open(killed, NAME)
    recovered = store.recover()
    assert (recovered.tail.last, recovered.promised) == (4, 3)
    store.close()


def test_a_kill_after_lowering_the_mark_keeps_the_old_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "data", 10)

    def crash(*_: object) -> None:
        raise CrashError

    monkeypatch.setattr(LogStore, "_store", crash)
    with pytest.raises(CrashError):
        store.write([append(11, 4, ["x"], term=2)])
    monkeypatch.undo()
    mark = read_mark(tmp_path / "data" / "high_water")
    assert mark is not None
    assert mark.last == 3
    recovered = LogStore.open(copy_of(tmp_path / "data"), NAME).recover()
    assert (recovered.tail.last, recovered.promised) == (10, 3)


def test_nothing_is_acknowledged_before_the_mark_has_it(tmp_path: Path) -> None:
    """After each write has returned, a copy of the database alone from before it is noticed."""
    store = filled(tmp_path / "data", 3)
    before = copy_of(tmp_path / "data")
    store.write([append(4, 4, ["acknowledged"])])
    shutil.copy(tmp_path / "data" / "high_water", before)
    recovered = LogStore.open(before, NAME).recover()
    assert (recovered.promised, recovered.tail.last) == (4, 3)


def test_an_install_killed_before_the_mark_rises_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "data", 10)

    def crash(_: LogStore) -> None:
        raise CrashError

    for base in (Base(10, 5, 99), Base(7, 5, 98), Base(7, 5, 97), Base(30, 6, 96)):
        with monkeypatch.context() as patched:
            patched.setattr(LogStore, "_raise_mark", crash)
            with pytest.raises(CrashError):
                store.install(base)
        again = LogStore.open(copy_of(tmp_path / "data"), NAME)
        recovered = again.recover()
        assert (recovered.base, recovered.tail) == (base, LogSlice(base.index + 1, [], ()))
        assert recovered.promised <= base.index
        again.close()
        store._raise_mark()


# --- high_water -------------------------------------------------------------------------------------------------------


def test_a_torn_slot_leaves_the_other_one(tmp_path: Path) -> None:
    path = tmp_path / "high_water"
    HighWater.create(path, Mark(last=1))
    for last in range(2, 6):
        high_water = HighWater(path)
        high_water.write(Mark(last=last, vote=CANDIDATE))
        high_water.close()
        assert read_mark(path) == Mark(last=last, vote=CANDIDATE)
        torn = tmp_path / "torn"
        shutil.copy(path, torn)
        scribble(torn, (last - 1) % 2 * 4096 + 20)
        assert read_mark(torn) == (Mark(last=1) if last == 2 else Mark(last=last - 1, vote=CANDIDATE))


@pytest.mark.parametrize("offset", [0, 10, 30, 50, 200, 511])
def test_every_byte_of_a_slot_counts(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "high_water"
    HighWater.create(path, Mark(last=1))
    scribble(path, offset)
    assert read_mark(path) is None
