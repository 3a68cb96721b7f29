"""The log keeps what was written: across reopening, replacement, compaction and installation."""

import errno
import os
from pathlib import Path

import pytest

from coordd.errors import DiskFullError, InvariantError, StorageError
from coordd.messages.entry import encode_configuration
from coordd.storage import log_store
from coordd.storage.chain import chain_of
from coordd.storage.high_water import read_mark
from coordd.storage.log_store import LogStore
from coordd.types import Base, Configuration, HardState, LogSlice, LogWrite
from tests.storage.support import CANDIDATE, NAME, append, contents, entry, filled, rows

CONFIGURATION = Configuration("c1", "test", ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_what_was_written_is_there_after_reopening(folder: Path) -> None:
    store = filled(folder, 3)
    store.write([append(4, 4, ["a", "b"], term=2, vote=CANDIDATE)])
    store.close()
    recovered = LogStore.open(folder, NAME).recover()
    assert recovered.tail == LogSlice(1, [*map(entry, ["e1", "e2", "e3", "a", "b"])], ((1, 1), (4, 2)))
    assert recovered.hard_state == HardState(2, CANDIDATE, 0)
    assert recovered.tail_previous_term == 0
    assert recovered.promised == 5


def test_entries_at_and_behind_the_first_are_replaced(folder: Path) -> None:
    store = filled(folder, 5)
    store.write([append(6, 3, ["x"], term=2)])
    assert contents(store) == [*map(entry, ["e1", "e2", "x"])]
    store.close()
    again = LogStore.open(folder, NAME)
    assert again.recover().tail == LogSlice(1, [*map(entry, ["e1", "e2", "x"])], ((1, 1), (3, 2)))


def test_within_a_group_the_last_write_wins(folder: Path) -> None:
    store = filled(folder, 4)
    group = [
        append(5, 5, ["a", "b", "c"]),
        append(6, 6, ["x"], term=2),
        append(7, 4, ["y", "z"], term=3, vote=CANDIDATE),
        append(8, 6, ["end"], term=3, vote=CANDIDATE),
    ]
    store.write(group)
    assert contents(store) == [*map(entry, ["e1", "e2", "e3", "y", "z", "end"])]
    store.close()
    assert LogStore.open(folder, NAME).recover().hard_state == HardState(3, CANDIDATE, 0)


def test_a_gap_is_refused(folder: Path) -> None:
    store = filled(folder, 2)
    with pytest.raises(InvariantError):
        store.write([append(3, 4, ["far"])])
    assert contents(store) == [entry("e1"), entry("e2")]


def test_a_commit_index_alone_costs_no_sync_and_is_kept_by_a_clean_stop(folder: Path) -> None:
    store = filled(folder, 3)
    before = store.fdatasyncs
    store.write([LogWrite(4, HardState(1, None, 3), None, must_sync=False)])
    assert store.fdatasyncs == before
    store.close()
    assert LogStore.open(folder, NAME).recover().hard_state == HardState(1, None, 3)


def test_a_vote_without_entries_is_durable(folder: Path) -> None:
    store = filled(folder, 1)
    store.write([LogWrite(2, HardState(7, CANDIDATE), None, must_sync=True)])
    mark = read_mark(folder / "high_water")
    assert mark is not None
    assert (mark.term, mark.vote, mark.last) == (7, CANDIDATE, 1)
    store.close()
    assert LogStore.open(folder, NAME).recover().hard_state == HardState(7, CANDIDATE)


def test_a_group_costs_two_syncs_however_large(folder: Path) -> None:
    store = filled(folder, 0)
    before = store.fdatasyncs
    store.write([append(index, index, [f"e{index}"]) for index in range(1, 101)])
    assert store.fdatasyncs == before + 2


def test_read_gives_at_least_one_entry_and_the_term_before(folder: Path) -> None:
    store = filled(folder, 3)
    store.write([append(4, 4, ["a", "b"], term=2)])
    assert store.read(4, 1) == (1, LogSlice(4, [entry("a")], ((4, 2),)))
    assert store.read(3, 1000) == (1, LogSlice(3, [*map(entry, ["e3", "a", "b"])], ((3, 1), (4, 2))))
    assert store.read(6, 1000) == (2, LogSlice(6, [], ()))


def test_compaction_drops_the_beginning_and_keeps_its_end_known(folder: Path) -> None:
    store = filled(folder, 2000, per_write=500)
    base = store.compact(Base(1500, configuration=CONFIGURATION, configuration_index=1, state_file="state-x.db"))
    assert base.term == 1
    assert base.chain != 0
    assert store.read(1500, 100) is None
    answer = store.read(1501, 1)
    assert answer is not None
    assert answer[0] == 1
    store.write([append(2001, 2001, ["on"])])
    store.close()
    assert rows(folder / "raft.db", "SELECT min(idx), max(idx) FROM entries") == [(1501, 2001)]
    recovered = LogStore.open(folder, NAME).recover()
    assert recovered.base == base
    assert recovered.tail.first == 1501


def test_a_compaction_cut_short_is_finished_later(folder: Path) -> None:
    store = filled(folder, 2000, per_write=500)
    store.set_base(Base(1900))
    store.close()
    again = LogStore.open(folder, NAME)
    assert again.recover().tail.first == 1901
    while again.upkeep_due:
        again.upkeep()
    again.close()
    assert rows(folder / "raft.db", "SELECT min(idx) FROM entries") == [(1901,)]


def test_a_base_of_another_history_is_refused(folder: Path) -> None:
    store = filled(folder, 5)
    with pytest.raises(InvariantError):
        store.compact(Base(3, term=9))
    with pytest.raises(InvariantError):
        store.compact(Base(6))


def test_compacting_again_and_again_reuses_the_space(folder: Path) -> None:
    store = filled(folder, 0, wal_limit=1 << 20)
    sizes = []
    for turn in range(20):
        first = turn * 1000 + 1
        store.write([append(turn, first, [str(index) for index in range(1000)], size=1000)])
        store.compact(Base(first + 899))
        while store.upkeep_due:
            store.upkeep()
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert max(sizes[10:]) <= max(sizes[:5]) * 1.2, sizes


def test_an_installed_base_empties_the_log(folder: Path) -> None:
    store = filled(folder, 5)
    base = Base(100, 4, 12345, CONFIGURATION, 90, "state-100.db")
    store.install(base)
    assert store.read(100, 1) is None
    store.write([append(6, 101, ["after"], term=4)])
    store.close()
    recovered = LogStore.open(folder, NAME).recover()
    assert recovered.base == base
    assert recovered.tail == LogSlice(101, [entry("after")], ((101, 4),))
    assert recovered.tail_previous_term == 4
    assert recovered.hard_state.commit == 100


@pytest.mark.parametrize("index", [3, 5])
def test_a_base_within_the_old_log_can_be_installed(folder: Path, index: int) -> None:
    store = filled(folder, 5)
    store.install(Base(index, 4, 12345, CONFIGURATION, 1, "state-x.db"))
    store.close()
    recovered = LogStore.open(folder, NAME).recover()
    assert recovered.tail.last == recovered.promised == index


def test_configurations_and_a_bounded_tail_are_recovered(folder: Path) -> None:
    store = filled(folder, 3)
    write = LogSlice(4, [encode_configuration(CONFIGURATION)], ((4, 2),))
    store.write([LogWrite(4, HardState(2), write, must_sync=True)])
    store.write([append(5, 5, ["a", "b"], term=3, size=100)])
    store.close()
    store = LogStore.open(folder, NAME, tail_bytes=150)
    assert store.recover().tail.first == 1, "what is not known to be committed stays in the tail, however long it is"
    store.write([LogWrite(6, HardState(3, None, commit=6), None, must_sync=False)])
    store.write([LogWrite(7, HardState(4, None, commit=6), None, must_sync=True)])
    store.close()
    recovered = LogStore.open(folder, NAME, tail_bytes=150).recover()
    assert recovered.configurations == ((4, CONFIGURATION),)
    assert recovered.tail == LogSlice(6, [entry("b", 100)], ((6, 3),))
    assert recovered.tail_previous_term == 3
    assert recovered.earlier_runs == ((1, 1), (4, 2), (5, 3))


def test_the_chain_depends_on_every_part_of_every_entry(folder: Path) -> None:
    one = chain_of(0, 1, 1, b"x")
    others = [chain_of(5, 1, 1, b"x"), chain_of(0, 2, 1, b"x"), chain_of(0, 1, 2, b"x"), chain_of(0, 1, 1, b"y")]
    assert len({one, *others}) == 5
    store = filled(folder, 2)
    store.close()
    first = chain_of(0, 1, 1, entry("e1"))
    expected = [(first,), (chain_of(first, 2, 1, entry("e2")),)]
    assert rows(folder / "raft.db", "SELECT chain FROM entries ORDER BY idx") == expected


def settings_of(store: LogStore) -> list[object]:
    names = ("synchronous", "journal_mode", "locking_mode", "wal_autocheckpoint")
    return [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


def test_every_commit_is_synced_and_checkpoints_are_our_own(folder: Path) -> None:
    store = filled(folder, 1000, per_write=100)
    assert settings_of(store) == [2, "wal", "exclusive", 0]
    store.compact(Base(900))
    assert settings_of(store) == [2, "wal", "exclusive", 0]


def test_a_database_that_refuses_the_wal_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordd.storage.opening._WANTED_MODE", "MEMORY")
    with pytest.raises(StorageError, match="can't be used in WAL mode"):
        LogStore.open(folder, NAME)


def test_the_wal_stays_near_its_limit(folder: Path) -> None:
    store = filled(folder, 0, wal_limit=400_000)
    for index in range(1, 1500):
        store.write([append(index, index, ["x"], size=100 if index % 2 else 5000)])
        if store.upkeep_due:
            store.upkeep()
    assert (folder / "raft.db-wal").stat().st_size < 600_000


@pytest.mark.parametrize("failing", ["fdatasync", "pwrite"])
def test_a_disk_error_at_the_mark_is_fatal_and_nothing_is_promised(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store = filled(folder, 3)
    mark = read_mark(folder / "high_water")

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fail)
        with pytest.raises(StorageError, match="high_water") as caught:
            store.write([append(4, 4, ["x"])])
    assert not isinstance(caught.value, DiskFullError)
    assert failing == "fdatasync" or read_mark(folder / "high_water") == mark
    store.abandon()


def test_no_space_at_the_mark_can_be_waited_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that need a new block to overwrite an old one."""
    store = filled(folder, 3)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    write = append(4, 4, ["x"], vote=CANDIDATE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        for _ in range(2):
            with pytest.raises(DiskFullError):
                store.write([write])
    store.write([write])
    store.close()
    recovered = LogStore.open(folder, NAME).recover()
    assert (recovered.promised, recovered.tail.last, recovered.hard_state.vote) == (4, 4, CANDIDATE)


def test_a_log_that_fails_while_it_is_closed_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing its connection would make SQLite move the WAL once more, on a disk that has just failed."""
    store = filled(folder, 3)

    def fail(_: str) -> bool:
        raise StorageError("raft.db: the disk fails")

    with monkeypatch.context() as patched:
        patched.setattr(store, "checkpoint", fail)
        with pytest.raises(StorageError, match="the disk fails"):
            store.close()
    assert store._connection in log_store._abandoned
    store._connection.execute("SELECT 1")  # not closed
