"""The writer's thread: order, group commit, full disks and failures."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordd.errors import DamagedError, InvariantError, StorageError
from coordd.storage.latency import Latency
from coordd.storage.log_store import LogStore
from coordd.storage.writer import (
    BaseInstalled,
    CompactLog,
    Completion,
    DiskFull,
    InstallBase,
    LogCompacted,
    LogRead,
    LogWriter,
    ReadLog,
    WriterFailed,
    WritesDone,
)
from coordd.types import Base, HardState, LogSlice, LogWrite, ServerId
from tests.storage.support import NAME, append, contents, entry, filled

PEER = ServerId("s2#" + "2" * 32)
PATIENCE = 30.0


class Driver:
    """A writer and the thread that waits for it; `hold` keeps the writer at its next write."""

    def __init__(self, store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.seen: list[Completion] = []
        self.entered = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._woken = threading.Event()
        self.wakes = 0
        self.attempts = 0
        self.checkpoints = 0
        real = store.write

        def write(writes: list[LogWrite]) -> None:
            self.entered.set()
            self._go.wait(PATIENCE)
            self.attempts += 1
            real(writes)

        real_checkpoint = store.checkpoint

        def checkpoint(mode: str = "RESTART") -> None:
            self.checkpoints += 1
            real_checkpoint(mode)

        monkeypatch.setattr(store, "write", write)
        monkeypatch.setattr(store, "checkpoint", checkpoint)
        self.writer = LogWriter(store, self._wake, retry_seconds=0.01)

    def _wake(self) -> None:
        self.wakes += 1
        self._woken.set()

    def hold(self, write: LogWrite) -> None:
        self._go.clear()
        self.entered.clear()
        self.writer.submit(write)
        assert self.entered.wait(PATIENCE)

    def release(self) -> None:
        self._go.set()

    def until(self, done: Callable[[list[Completion]], bool]) -> list[Completion]:
        """Everything finished so far, once the condition holds of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._woken.clear()
            self.seen += self.writer.completions()
            if done(self.seen):
                return self.seen
            assert time.monotonic() < deadline, self.seen
            self._woken.wait(1)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    made = Driver(filled(tmp_path / "data", 3), monkeypatch)
    yield made
    made.release()
    made.writer.close()


def last_sequence(seen: list[Completion]) -> int:
    return max((done.sequence for done in seen if isinstance(done, WritesDone)), default=0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waiting(driver: Driver) -> bool:
    return driver.writer.pending_since is not None


def test_writes_that_wait_together_are_one_group(driver: Driver) -> None:
    driver.hold(append(4, 4, ["first"]))
    for index in range(5, 105):
        driver.writer.submit(append(index, index, [f"e{index}"]))
    assert waiting(driver)
    before = driver.writer.fdatasyncs
    driver.release()
    seen = driver.until(lambda seen: last_sequence(seen) == 104)
    assert [done.sequence for done in seen if isinstance(done, WritesDone)] == [4, 104]
    assert driver.writer.batches == 2
    assert driver.writer.fdatasyncs == before + 4
    assert not waiting(driver)
    assert driver.wakes == 2


def test_jobs_run_in_order(driver: Driver) -> None:
    driver.hold(append(4, 4, ["e4"]))
    driver.writer.submit(ReadLog(PEER, 7, 4, 1000))
    driver.writer.submit(append(5, 5, ["e5"]))
    driver.writer.submit(CompactLog(Base(2)))
    driver.writer.submit(ReadLog(PEER, 8, 2, 1000))
    driver.writer.submit(InstallBase(Base(9, 3, 77)))
    driver.writer.submit(append(6, 10, ["e10"], term=3))
    driver.release()
    seen = driver.until(lambda seen: last_sequence(seen) == 6)
    assert [type(done) for done in seen] == [
        WritesDone,
        LogRead,
        WritesDone,
        LogCompacted,
        LogRead,
        BaseInstalled,
        WritesDone,
    ]
    assert seen[1] == LogRead(PEER, 7, 1, LogSlice(4, [entry("e4")], ((4, 1),)))
    assert isinstance(seen[3], LogCompacted)
    assert (seen[3].base.index, seen[3].base.term) == (2, 1)
    assert seen[4] == LogRead(PEER, 8, 0, None)
    assert seen[5] == BaseInstalled(Base(9, 3, 77))


def test_pending_since_is_the_oldest_write(driver: Driver) -> None:
    assert not waiting(driver)
    before = time.monotonic()
    driver.hold(append(4, 4, ["e4"]))
    between = time.monotonic()
    driver.writer.submit(append(5, 5, ["e5"]))
    pending = driver.writer.pending_since
    assert pending is not None
    assert before <= pending <= between


def test_a_commit_index_is_no_batch(driver: Driver) -> None:
    driver.writer.submit(LogWrite(4, HardState(1, None, 3), None, must_sync=False))
    driver.until(lambda seen: last_sequence(seen) == 4)
    assert driver.writer.batches == 0


def test_the_prefix_is_deleted_in_the_background(driver: Driver) -> None:
    driver.writer.submit(append(4, 4, ["x"] * 2000))
    driver.writer.submit(CompactLog(Base(1900)))
    driver.until(lambda seen: any(isinstance(done, LogCompacted) for done in seen))
    wait_for(lambda: not driver.store.upkeep_due)
    assert driver.writer.close()
    again = LogStore.open(driver.store._folder, NAME)
    assert again.recover().tail.first == 1901
    assert not again.upkeep_due
    again.close()


def test_a_full_disk_holds_writes_up_and_nothing_else(driver: Driver) -> None:
    limit = driver.store._connection
    pages = limit.execute("PRAGMA page_count").fetchone()[0]
    limit.execute(f"PRAGMA max_page_count = {pages + 2}")
    driver.writer.submit(append(4, 4, ["big"] * 50, size=4000))
    driver.writer.submit(append(5, 54, ["small"]))
    seen = driver.until(lambda seen: any(isinstance(done, DiskFull) for done in seen))
    assert "no space left" in str(seen[0].error if isinstance(seen[0], DiskFull) else "")
    driver.writer.submit(ReadLog(PEER, 1, 2, 10))
    seen = driver.until(lambda seen: any(isinstance(done, LogRead) for done in seen))
    assert seen[-1] == LogRead(PEER, 1, 1, LogSlice(2, [entry("e2"), entry("e3")], ((2, 1),)))
    assert last_sequence(seen) == 0
    assert waiting(driver)
    wait_for(lambda: driver.attempts > 3)
    assert driver.checkpoints > 1, "space within the WAL is tried"
    limit.execute("PRAGMA max_page_count = 1000000")
    seen = driver.until(lambda seen: last_sequence(seen) == 5)
    assert sum(isinstance(done, DiskFull) for done in seen) == 1
    assert driver.writer.close()
    assert len(contents(reopened(driver))) == 54


def reopened(driver: Driver) -> LogStore:
    store = LogStore.open(driver.store._folder, NAME)
    store.recover()
    return store


def test_closing_gives_up_what_does_not_fit(driver: Driver) -> None:
    limit = driver.store._connection
    pages = limit.execute("PRAGMA page_count").fetchone()[0]
    limit.execute(f"PRAGMA max_page_count = {pages}")
    driver.writer.submit(append(4, 2, ["big"] * 50, term=2, size=4000))
    driver.writer.submit(append(5, 52, ["never"], term=2))
    driver.until(lambda seen: any(isinstance(done, DiskFull) for done in seen))
    assert driver.writer.close()
    store = reopened(driver)
    assert contents(store) == [entry("e1"), entry("e2"), entry("e3")]


def test_closing_finishes_what_was_submitted(driver: Driver) -> None:
    for index in range(4, 204):
        driver.writer.submit(append(index, index, ["x"]))
    assert driver.writer.close()
    assert reopened(driver).last == 203


@pytest.mark.parametrize("error", [StorageError("I/O"), DamagedError("rot")])
def test_any_other_error_ends_the_thread(driver: Driver, monkeypatch: pytest.MonkeyPatch, error: StorageError) -> None:
    calls = []

    def fail(_: object) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(driver.store, "write", fail)
    driver.writer.submit(append(4, 4, ["e4"]))
    driver.writer.submit(ReadLog(PEER, 1, 1, 1))
    seen = driver.until(lambda seen: bool(seen))
    assert seen == [WriterFailed(error)]
    assert driver.writer.close()
    assert driver.writer.completions() == []
    assert calls == [1], "a failed sync must not be tried again"


def test_a_bug_ends_the_thread_loudly(driver: Driver) -> None:
    driver.writer.submit(append(9, 99, ["gap"]))
    seen = driver.until(lambda seen: bool(seen))
    assert isinstance(seen[0], WriterFailed)
    assert isinstance(seen[0].error, InvariantError)


def test_the_latency_quantile() -> None:
    latency = Latency()
    assert latency.p99 == 0.0
    for number in range(1, 1001):
        latency.add(number / 1000)
    assert latency.p99 == pytest.approx(0.995, abs=0.0011)
    assert latency.quantile(0.5) == pytest.approx(0.744, abs=0.0011)
