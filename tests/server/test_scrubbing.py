"""The state's file is read again now and then; what is found there takes the state out of use, and nothing else does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from coordd.errors import DamagedError, StorageError
from coordd.log_output import open_log
from coordd.messages.peer import AppendEntries, StateDigest
from coordd.server import scrubbing as module
from coordd.server.scrubbing import Scrubbing
from coordd.server.settings import ServerSettings, StorageSettings
from coordd.server.state_care import StateCare
from coordd.types import ServerId
from tests.server.conftest import MakeWorld
from tests.server.support import World
from tests.server.test_node import append
from tests.server.test_refill import following
from tests.server.test_snapshots import Bench
from tests.server.words import put

INTERVAL = 60.0


class Room:
    """A node, and a helper thread that works when told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bench = Bench()
        self.reports: list[str] = []
        self.ticks = 0.0
        self.scrubbing = Scrubbing(
            node=world.node,
            helper=cast(Any, self.bench),
            path=world.files.path,
            interval=INTERVAL,
            report=lambda event, text: self.reports.append(f"{event}: {text}"),
            clock=self.clock,
        )

    def clock(self) -> float:
        """Each look at it takes a little, so that slices end."""
        self.ticks += 0.0001
        return self.world.now + self.ticks

    def turn(self, seconds: float = 0.02) -> None:
        self.world.now += seconds
        self.scrubbing.turn(self.clock())
        self.bench.turn()

    def through(self) -> int:
        """One whole look at the file, in so many turns."""
        self.scrubbing.now()
        self.turn()
        for turns in range(1, 10_000):
            if not self.scrubbing._state_file:
                return turns
            self.turn()
        raise AssertionError("it never ends")


@pytest.fixture
def room(make_world: MakeWorld) -> Iterator[Room]:
    world = following(make_world(3), 100)
    log = world.node.raft.replica.log
    world.node.receive(_append(world, log.last, log.last_term, [put("one", b"a value")]), world.now)
    world.settle()
    world.node.machine.checkpoint()
    room = Room(world)
    yield room
    room.scrubbing.close()


def flip(world: World, text: bytes = b"a value") -> None:
    path = world.files.path(world.node.state_file)
    content = bytearray(path.read_bytes())
    content[content.rindex(text)] ^= 1
    with path.open("r+b") as file:
        file.write(content)


def test_a_whole_file_is_looked_at_in_slices_and_again_after_a_while(room: Room) -> None:
    room.turn()
    assert not room.bench.jobs
    assert room.through() > 3
    assert (room.scrubbing.done, room.reports, room.world.node.has_state) == (1, [], True)
    assert room.scrubbing.next_at == pytest.approx(room.clock() + INTERVAL, abs=1.0)


def test_a_byte_that_turned_over_takes_the_state_out_of_use(room: Room) -> None:
    flip(room.world)
    room.through()
    assert (room.scrubbing.done, room.world.node.has_state, room.world.observed.states_lost) == (0, False, 1)
    room.through()  # there is nothing to look at


def test_so_does_an_index(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_fault", lambda path: "row 3 missing from index")
    room.through()
    assert not room.world.node.has_state


def test_a_server_without_others_ends(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    for n in range(20):
        world.node.propose([put(f"k{n}")], world.now)
    world.settle()
    world.node.machine.checkpoint()
    flip(world, b"k17")
    with pytest.raises(DamagedError, match="damaged"):
        Room(world).through()


def test_a_state_that_was_replaced_is_not_judged_by_the_old_file(room: Room) -> None:
    flip(room.world)
    room.scrubbing.now()
    room.turn()
    room.scrubbing.now()  # it is looking already
    room.world.node.state_file = "state-1-00000000000000000000000000000000.db"
    for _ in range(3):
        room.turn()
    assert not room.scrubbing._state_file
    assert room.world.node.has_state


def test_a_state_that_is_replaced_in_the_middle_ends_it(room: Room) -> None:
    room.scrubbing.now()
    room.turn()
    room.turn()
    assert room.scrubbing._scrub is not None
    room.world.node.refill.lost = True
    room.turn()
    assert (room.scrubbing._state_file, room.scrubbing.done) == ("", 0)


def test_a_file_that_can_not_be_looked_at_is_tried_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path) -> str:
        raise StorageError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(module, "find_fault", failing)
        room.through()
    assert room.reports == ["scrub failed: too many open files"]
    assert room.world.node.has_state

    class Failing:
        def __init__(self, path: Path, digests: Callable[[], object]) -> None: ...

        def step(self, enough: Callable[[], bool]) -> str:
            raise StorageError("no memory")

        def close(self) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(module, "Scrub", Failing)
        room.through()
    assert room.reports[1:] == ["scrub failed: no memory"]
    room.through()
    assert room.scrubbing.done == 1


def test_a_bug_is_not_hidden(room: Room) -> None:
    with pytest.raises(ZeroDivisionError):
        room.scrubbing._failed(ZeroDivisionError())


def test_a_scrub_that_takes_too_long_is_given_up(room: Room) -> None:
    room.scrubbing.now()
    room.turn()
    room.turn()
    room.turn(1000.0)
    assert room.reports[0].startswith("scrub given up")
    assert room.world.node.machine.checkpoint()


# --- the comparison with others ---------------------------------------------------------------------------------------


class Care:
    """`StateCare` of a node, and what it told the others."""

    def __init__(self, world: World, every: int = 16) -> None:
        self.world = world
        self.sent: list[StateDigest] = []
        settings = ServerSettings(
            name="s1",
            cluster_name="test",
            data_dir=world.folder,
            key_file=world.folder / "key",
            raft_address="10.0.0.1:8310",
            client_address="10.0.0.1:8311",
            storage=StorageSettings(compare_every_entries=every),
        )
        self.care = StateCare(
            me=world.me,
            node=world.node,
            helper=cast(Any, Bench()),
            store=world.files,
            settings=settings,
            snapshots_busy=lambda: False,
            send=self._send,
            observed=world.observed,
            log=open_log("text", "error", name="s1"),
            clock=lambda: world.now,
        )

    def _send(self, message: StateDigest) -> bool:
        self.sent.append(message)
        return True

    def write(self, count: int) -> None:
        """Entries of the leader, applied as the daemon does it."""
        world = self.world
        log = world.node.raft.replica.log
        world.node.receive(
            _append(world, log.last, log.last_term, [put(f"w{log.last + n}") for n in range(count)]), world.now
        )
        world.persist()
        while (batch := world.apply(self.care.entries_at_once(512))) is not None:
            self.care.applied(batch, world.now)


def _append(world: World, last: int, term: int, entries: list[bytes]) -> AppendEntries:
    return append(world, 5, (last, term), entries, last + len(entries))


def test_digests_are_told_at_agreed_indexes_however_much_is_applied_at_once(make_world: MakeWorld) -> None:
    care = Care(make_world(3))
    care.write(100)
    told = [(message.receiver, message.index) for message in care.sent]
    assert told == [(peer, index) for index in range(16, 100, 16) for peer in care.world.peers]
    assert care.world.observed.digests_compared == 6
    care.care.tick(care.world.now)
    care.care.turn(care.world.now)
    assert care.care.next_at > care.world.now
    assert care.care.checkpoints == 0
    care.care.close()


def test_a_majority_against_it_takes_the_state_out_of_use(make_world: MakeWorld) -> None:
    care = Care(make_world(3))
    care.write(40)
    mine = care.sent[-1]
    other = StateDigest(care.world.peers[0], care.world.me, mine.index, mine.kind, b"another")
    care.care.heard(other, care.world.now)
    care.care.heard(other, care.world.now)
    assert care.world.observed.states_lost == 0
    second = StateDigest(care.world.peers[1], care.world.me, mine.index, mine.kind, b"another")
    care.care.heard(second, care.world.now)
    assert not care.world.node.has_state
    assert care.world.observed.digests_differed == 1


def test_it_knows_its_own_digests_though_it_is_made_before_the_core_knows_its_name(make_world: MakeWorld) -> None:
    """As in the daemon, where nobody was ever found to be wrong."""
    world = make_world(3)
    replica = world.node.raft.replica
    known, replica.me = replica.me, ServerId("")
    care = Care(world)
    replica.me = known
    care.write(40)
    mine = care.sent[-1]
    for peer in world.peers:
        care.care.heard(StateDigest(peer, world.me, mine.index, mine.kind, b"another"), world.now)
    assert not world.node.has_state


def test_what_others_say_of_another_kind_or_without_a_say_counts_for_nothing(make_world: MakeWorld) -> None:
    care = Care(make_world(3))
    care.write(40)
    mine = care.sent[-1]
    stranger = care.world.me.replace("s1", "s9")
    for sender in care.world.peers:
        care.care.heard(StateDigest(sender, care.world.me, mine.index, "rows-0", b"another"), care.world.now)
    care.care.heard(StateDigest(cast(Any, stranger), care.world.me, mine.index, mine.kind, b"x"), care.world.now)
    assert care.world.observed.digests_differed == 0
    for sender in care.world.peers:
        care.care.heard(StateDigest(sender, care.world.me, mine.index, mine.kind, mine.digest), care.world.now)
    assert care.world.node.has_state


def test_of_a_state_that_was_replaced_nothing_older_is_held_against_it(make_world: MakeWorld) -> None:
    care = Care(make_world(3))
    care.write(40)
    mine = care.sent[-1]
    care.world.node.state_file = "another"
    care.write(16)
    for sender in care.world.peers:
        care.care.heard(StateDigest(sender, care.world.me, mine.index, mine.kind, b"another"), care.world.now)
    assert care.world.node.has_state
