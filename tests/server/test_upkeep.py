"""When the state is made durable and the log is cut: never before the file holds everything, never below a snapshot."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from coordd.errors import DamagedError, DiskFullError, StorageError
from coordd.server.helper import Helper
from coordd.server.settings import RaftSettings, StorageSettings
from coordd.server.upkeep import Upkeep
from coordd.storage.writer import CompactLog
from tests.server.conftest import MakeWorld
from tests.server.support import World
from tests.server.test_snapshots import Bench
from tests.server.words import put


class Room:
    def __init__(self, world: World, **raft: int) -> None:
        self.world = world
        self.bench = Bench()
        self.reports: list[str] = []
        self.busy = False
        settings = {"compact_after_entries": 20, "trailing_entries": 5, **raft}
        self.upkeep = Upkeep(
            node=world.node,
            helper=cast(Any, self.bench),
            store=world.files,
            raft=RaftSettings(**settings),
            storage=StorageSettings(state_checkpoint_ms=10_000, state_checkpoint_entries=50),
            snapshots_busy=lambda: self.busy,
            report=lambda event, text: self.reports.append(f"{event}: {text}"),
            clock=lambda: world.now,
        )

    def write(self, count: int) -> None:
        self.world.node.propose([put(f"k{n}", bytes(100)) for n in range(count)], self.world.now)
        before = len(self.world.batches)
        self.world.settle()
        for batch in self.world.batches[before:]:
            self.upkeep.applied(batch.size)

    def turn(self) -> None:
        self.upkeep.turn(self.world.now)

    def round(self) -> None:
        """A whole checkpoint, if one is due."""
        self.turn()
        self.bench.turn()

    @property
    def cuts(self) -> list[int]:
        return [job.base.index for job in self.world.disk.seen if isinstance(job, CompactLog)]

    def wal(self) -> int:
        path = self.world.files.path(self.world.node.state_file + "-wal")
        return path.stat().st_size if path.exists() else 0


@pytest.fixture
def room(make_world: MakeWorld) -> Room:
    world = make_world()
    world.lead()
    return Room(world)


def test_nothing_new_is_nothing_to_do(room: Room) -> None:
    room.world.now += 1000.0
    room.turn()
    assert room.bench.jobs == []


def test_it_is_made_durable_after_its_time_or_its_entries(room: Room) -> None:
    room.write(1)
    room.world.now += 9.9
    room.round()
    assert room.upkeep.checkpoints == 0
    room.world.now += 0.2
    room.round()
    assert room.upkeep.checkpoints == 1
    room.round()
    assert room.upkeep.checkpoints == 1
    room.write(15)
    room.round()
    assert room.upkeep.checkpoints == 1


def test_one_checkpoint_at_a_time(room: Room) -> None:
    room.write(60)
    for _ in range(3):
        room.turn()
    assert len(room.bench.jobs) == 1


def test_the_log_is_cut_when_it_is_long_and_keeps_a_reserve(room: Room) -> None:
    room.write(20)
    room.round()
    assert room.cuts == []
    room.write(10)
    room.round()
    assert room.cuts == [room.world.node.machine.applied - 5]
    room.world.settle()
    assert room.world.node.raft.replica.log.base_index == room.cuts[0]
    room.round()
    assert len(room.cuts) == 1


def test_the_log_is_cut_by_its_bytes_too(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    room = Room(world, compact_after_entries=10_000, compact_after_bytes=64 * 1024)
    room.write(400)
    room.round()
    assert room.cuts == []
    room.write(400)
    room.round()
    assert len(room.cuts) == 1


def test_not_while_a_snapshot_is_built_or_sent(room: Room) -> None:
    room.busy = True
    room.write(60)
    room.round()
    assert room.upkeep.checkpoints == 1
    assert room.cuts == []
    room.busy = False
    room.write(1)
    room.round()
    assert len(room.cuts) == 1


def test_not_while_somebody_still_reads_from_the_write_ahead_log(room: Room) -> None:
    import sqlite3

    room.write(10)
    reader = sqlite3.connect(room.world.files.path(room.world.node.state_file))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM kv").fetchone()
    room.write(60)
    room.round()
    assert (room.upkeep.checkpoints, room.cuts) == (0, [])
    reader.rollback()
    reader.close()
    room.round()
    assert room.upkeep.checkpoints == 1
    assert len(room.cuts) == 1


def test_what_was_cut_is_in_the_file_without_its_write_ahead_log(room: Room) -> None:
    """The file alone must hold what the log no longer does."""
    room.write(60)
    room.round()
    world = room.world
    applied = world.node.machine.applied
    world.settle()
    (cut,) = room.cuts
    copy = world.files.path(world.node.state_file).read_bytes()
    world.close()
    world.files.remove(world.node.state_file)
    world.files.path(world.node.state_file).write_bytes(copy)
    world.open()
    assert world.node.machine.applied == applied >= cut == world.node.raft.replica.log.base_index


def test_nothing_is_cut_while_the_state_is_being_replaced(room: Room) -> None:
    room.write(60)
    room.turn()
    room.world.node._installing = cast(Any, "a snapshot")
    room.bench.turn()
    assert (room.upkeep.checkpoints, room.cuts) == (0, [])
    room.round()
    assert room.bench.jobs == []


def test_a_full_disk_is_told_and_tried_again_after_a_pause(room: Room) -> None:
    room.write(60)

    def fail(times: int) -> None:
        for _ in range(times):
            room.turn()
            jobs, room.bench.jobs = room.bench.jobs, []
            for _, _, failed in jobs:
                failed(DiskFullError("no space"))

    fail(10)
    assert room.reports == ["checkpoint failed: no space"]
    room.world.now += 5.1
    room.round()
    assert room.upkeep.checkpoints == 1


@pytest.mark.parametrize("error", [StorageError("fsync failed"), ZeroDivisionError()])
def test_after_any_other_failure_nothing_is_tried_again(room: Room, error: Exception) -> None:
    """The kernel may have dropped what it could not write, and a second fsync would report success."""
    with pytest.raises(type(error)):
        room.upkeep._failed(room.world.node.state_file, error)


def test_a_state_that_makes_no_sense_is_given_up(make_world: MakeWorld) -> None:
    world = make_world(3)
    room = Room(world)
    room.upkeep._failed(world.node.state_file, DamagedError("malformed"))
    assert not world.node.has_state
    room.upkeep._failed(world.node.state_file, StorageError("no such file"))  # of a checkpoint that was under way
    assert room.reports == []


def test_a_file_that_was_replaced_meanwhile_matters_no_more(room: Room) -> None:
    room.upkeep._failed("state-of-before.db", StorageError("no such file"))
    assert room.reports == []


def test_a_disk_that_fills_up_behind_the_checkpoint_is_waited_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came meanwhile is moved on the loop, and there may be no space for that alone."""

    def full() -> bool:
        raise DiskFullError("no space")

    room.write(60)
    monkeypatch.setattr(room.world.node.machine, "checkpoint", full)
    room.round()
    assert room.reports == ["checkpoint failed: no space"]
    monkeypatch.undo()
    room.world.now += 5.1
    room.round()
    assert room.upkeep.checkpoints == 1


# --- the helper thread ------------------------------------------------------------------------------------------------


def test_the_helper_gives_results_and_errors_back_on_the_loop() -> None:
    import threading

    woken = threading.Event()
    helper = Helper("test", woken.set)
    told: list[object] = []

    def wait() -> None:
        assert woken.wait(30.0)
        woken.clear()

    def broken() -> None:
        raise StorageError("no")

    def work() -> str:
        return threading.current_thread().name

    jobs: list[Callable[[], object]] = [work, broken]
    for job in jobs:
        helper.run(job, told.append, told.append)
        wait()
        assert len(told) == jobs.index(job)  # nothing is called outside `turn`
        helper.turn()
    assert str(told[0]).startswith("test")
    assert isinstance(told[1], StorageError)
    helper.close()
