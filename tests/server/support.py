"""One server without sockets and threads: real core, log store and state; time, disk and peers move when a test says so.

`World` is the node; `Desk` adds the side that faces clients, so that requests go in as frames and replies are collected.
The other servers are a script: they grant every vote and acknowledge everything, while `answering` is true.
"""

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from coordd.messages.client import PROTOCOL_VERSION, Body, Error, ReplyBody, Request
from coordd.messages.codec import encode_request
from coordd.messages.command import Command
from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Beats,
    Heartbeat,
    HeartbeatResponse,
    RaftMessage,
    RequestVote,
    StateWanted,
    VoteResponse,
)
from coordd.raft.core import Raft
from coordd.raft.events import Founded
from coordd.raft.output import SendSnapshot
from coordd.raft.settings import RaftSettings
from coordd.server.beats import BeatRelay
from coordd.server.client_side import ClientSide
from coordd.server.founding import Founding
from coordd.server.levels import Levels
from coordd.server.log_reader import LogReader
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.operator import Operator
from coordd.server.ports import AppliedBatch
from coordd.server.roster import Contact, Roster
from coordd.server.settings import LimitSettings, ServerSettings
from coordd.server.terms import LeaderDuties
from coordd.server.waiting import Waiter
from coordd.state.machine import Machine
from coordd.storage.log_store import LogStore
from coordd.storage.snapshot_store import SnapshotStore
from coordd.storage.writer import (
    BaseInstalled,
    ChainFound,
    CompactLog,
    Completion,
    FindChain,
    InstallBase,
    Job,
    LogCompacted,
    LogRead,
    ReadLog,
    WritesDone,
)
from coordd.types import Configuration, Index, LogWrite, Member, ServerId, SnapshotMeta, Term, make_server_id
from tests.server import words

KEY = words.key


class Told:
    """`server.waiting.Answers`: what was answered, in order. Connections in `deaf` take nothing."""

    def __init__(self) -> None:
        self.bodies: list[tuple[Waiter, ReplyBody]] = []
        self.deaf: set[bytes] = set()

    def answer(self, waiter: Waiter, body: ReplyBody) -> bool:
        if waiter.connection in self.deaf:
            return False
        self.bodies.append((waiter, body))
        return True

    def to(self, request: int) -> list[ReplyBody]:
        """All that was answered to this request."""
        return [body for waiter, body in self.bodies if waiter.request == request]

    def codes(self) -> list[tuple[int, str]]:
        """(request, code or name of the body) of everything, in order."""
        return [(w.request, b.code if isinstance(b, Error) else type(b).__name__) for w, b in self.bodies]


class SlowDisk:
    """`server.node.Writer` on a real store: a job is done when the test performs it."""

    def __init__(self, store: LogStore) -> None:
        self.store = store
        self.jobs: deque[Job] = deque()
        self.seen: list[Job] = []
        self.pending_since: float | None = None

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.seen.append(job)

    def perform(self, count: int = 1000) -> list[Completion]:
        done: list[Completion] = []
        while self.jobs and len(done) < count:
            done.append(self._do(self.jobs.popleft()))
        return done

    def _do(self, job: Job) -> Completion:
        match job:
            case LogWrite(sequence=sequence):
                self.store.write([job])
                return WritesDone(sequence, 0.001)
            case ReadLog(peer, session, first, max_bytes):
                previous_term, entries = self.store.read(first, max_bytes) or (0, None)
                return LogRead(peer, session, previous_term, entries)
            case FindChain(index):
                return ChainFound(index, self.store.chain_at(index))
            case CompactLog(base):
                return LogCompacted(self.store.set_base(base))
            case InstallBase(base):
                self.store.install(base)
                return BaseInstalled(base)


class Wire:
    """`server.node.Links`: what was sent. Nothing reaches those in `cut`."""

    def __init__(self) -> None:
        self.sent: list[RaftMessage] = []
        self.wanted: list[StateWanted] = []
        self.cut: set[ServerId] = set()

    def send(self, message: RaftMessage | StateWanted) -> bool:
        if message.receiver in self.cut:
            return False
        if isinstance(message, StateWanted):
            self.wanted.append(message)
        else:
            self.sent.append(message)
        return True


class Shelf:
    """`server.node.SnapshotPort`: what was ordered; the file that was "received" is put there by the test."""

    def __init__(self, files: SnapshotStore) -> None:
        self.files = files
        self.orders: list[object] = []
        self.arrived = ""
        self.slow = False
        """A state takes its time to be opened: until the test calls what is in `opening`."""
        self.opening: list[Callable[[], None]] = []

    def send(self, order: SendSnapshot, now: float) -> None:
        self.orders.append(order)

    def stop(self, peer: ServerId) -> None:
        self.orders.append(("stop", peer))

    def expect(self, leader: ServerId, session: int, term: Term, snapshot: SnapshotMeta, now: float) -> None:
        self.orders.append(("expect", leader, session, term, snapshot))

    def adopt(self, snapshot: SnapshotMeta) -> str:
        return self.arrived

    def set_aside(self, state_file: str) -> None:
        self.files.set_aside(state_file)

    def open(self, state_file: str, then: Callable[[Machine], None]) -> None:
        self.opening.append(lambda: then(Machine.open(str(self.files.path(state_file)))))
        if not self.slow:
            self.opening.pop()()


def member(server: ServerId, voter: bool = True) -> Member:
    name, number = server.partition("#")[0], int(server.partition("#")[0][1:])
    return Member(server, f"10.0.0.{number}:8310", f"10.0.0.{number}:8311", KEY(name), voter)


class World:
    """The node of server s1. It leads after `lead`; `settle` does what disk and peers have to do until nothing is left."""

    def __init__(self, folder: Path, servers: int = 1, *, founded: bool = True, seed: int = 1) -> None:
        self.now = 1000.0
        self.folder = folder
        self.files = SnapshotStore(folder)
        self.answering = True
        self.round = 0
        """Of the heartbeats that were heard."""
        self.peers = [make_server_id(f"s{n}", f"{n:032x}") for n in range(2, servers + 1)]
        self.batches: list[AppliedBatch] = []
        self.seed = seed
        self.open()
        if founded:
            members = (member(self.me), *map(member, self.peers))
            self.configuration = Configuration("c1", "test", tuple(sorted(members, key=lambda m: m.id)))
            self.node.found(Founded(self.configuration), self.now)
            self.settle()

    def open(self) -> None:
        """Start on what the folder holds."""
        self.store = LogStore.open(self.folder, "s1")
        self.me = self.store.identity.server
        recovered = self.store.recover()
        if not recovered.base.state_file:
            named = msgspec.structs.replace(recovered.base, state_file=self.files.new_name(0))
            recovered = msgspec.structs.replace(recovered, base=self.store.set_base(named))
        self.disk = SlowDisk(self.store)
        self.wire = Wire()
        self.shelf = Shelf(self.files)
        self.observed = Observed()
        self.node = Node(
            raft=Raft(RaftSettings(), random.Random(self.seed)),
            writer=self.disk,
            links=self.wire,
            snapshots=self.shelf,
            machine=Machine.open(str(self.files.path(recovered.base.state_file))),
            observed=self.observed,
            clock=lambda: self.now,
        )
        self.node.start(self.me, self.store.identity.boot, recovered, self.now)

    def close(self) -> None:
        self.node.machine.close()
        self.store.close()

    def restart(self) -> None:
        """Lose what is in memory, keep what is on disk."""
        self.close()
        self.now += 10.0
        self.open()

    # --- what moves ---------------------------------------------------------------------------------------------------

    def persist(self, count: int = 1000) -> None:
        for completion in self.disk.perform(count):
            self.node.completed(completion, self.now)

    def apply(self, most: int = 512) -> AppliedBatch | None:
        batch = self.node.apply_some(most, self.now)
        if batch is not None:
            self.batches.append(batch)
        return batch

    def settle(self) -> None:
        for _ in range(1000):
            moved = bool(self.disk.jobs)
            self.persist()
            moved |= self.let_peers_answer()
            while self.apply() is not None:
                moved = True
            if not (moved or self.disk.jobs):
                return
        raise AssertionError("it never settles")

    def let_peers_answer(self) -> bool:
        """Each other server does what a healthy one would do with what it was sent."""
        if not self.answering:
            return False
        sent, self.wire.sent = self.wire.sent, []
        answers = [answer for message in sent if (answer := healthy(message)) is not None]
        for answer in answers:
            self.node.receive(answer, self.now)
        return bool(answers)

    def pass_time(self, seconds: float) -> None:
        """Tick whenever it is due, and settle."""
        end = self.now + seconds
        while self.node.next_deadline <= end:
            self.now = max(self.now, self.node.next_deadline)
            self.node.tick(self.now)
            self.settle()
        self.now = end

    def lead(self) -> None:
        for _ in range(100):
            if self.node.ready and self.node.raft.lease_valid(self.now):
                return
            self.pass_time(0.1)
        raise AssertionError("it does not come to lead")

    def hear(self, leader_commit: Index, commit: Index = 0, *, session: int = 1) -> None:
        """Two heartbeats of a leader of term 5: the second proves by what it has heard that it is not old."""
        for number in (1, 2):
            self.round += 1
            beat = Heartbeat(
                5,
                self.peers[0],
                self.me,
                session,
                commit,
                self.round,
                leader_commit,
                0.0,
                self.round - 1 if number == 2 else 0,
                heard_in=self.node.raft.replica.boot,
            )
            self.node.receive(beat, self.now)

    def depose(self, term: Term | None = None) -> None:
        """Another server leads now, in a later term."""
        leader = self.peers[0]
        self.node.receive(Heartbeat(term or self.node.raft.replica.term + 1, leader, self.me, 1, 0, 1), self.now)


def healthy(message: RaftMessage) -> RaftMessage | None:
    """The answer of a server that agrees with everything."""
    term, me, sender = message.term, message.receiver, message.sender
    match message:
        case RequestVote(pre=pre):
            return VoteResponse(term, me, sender, True, pre)
        case Heartbeat(session=session, round=round_number):
            return HeartbeatResponse(term, me, sender, session, 1, round_number, 0.3)
        case AppendEntries(session=session, previous_index=previous, slice=piece):
            return AppendResponse(term, me, sender, session, 1, piece.last if piece.entries else previous)
    return None


class _Mailbox:
    """Stands for the client socket: frames that were put in."""

    def __init__(self) -> None:
        self.frames: list[tuple[bytes, bytes]] = []

    def receive(self, max_messages: int, max_bytes: int) -> list[tuple[bytes, bytes]]:
        frames, self.frames = self.frames[:max_messages], self.frames[max_messages:]
        return frames


class Desk:
    """A world with the side that faces clients, put together as the daemon does it."""

    def __init__(
        self, folder: Path, servers: int = 1, *, founded: bool = True, limits: LimitSettings | None = None
    ) -> None:
        self.world = world = World(folder, servers, founded=founded)
        self.told = Told()
        self.mailbox = _Mailbox()
        self.beats: list[Beats] = []
        self.changed_roster = 0
        settings = ServerSettings(
            name="s1",
            cluster_name="test",
            data_dir=folder,
            key_file=folder / "key",
            raft_address="10.0.0.1:8310",
            client_address="10.0.0.1:8311",
            limits=limits or LimitSettings(),
        )
        listed = [Contact(f"s{n}", f"10.0.0.{n}:8310", f"10.0.0.{n}:8311", KEY(f"s{n}")) for n in (1, 2, 3)]
        self.roster = Roster(KEY("s1"), listed)
        self.founding = Founding(words.hello(world.me))
        self.levels = Levels(world.node)
        self.duties = LeaderDuties(
            node=world.node,
            levels=self.levels,
            propose=lambda command, now: self.side.api.propose(command, now),
            client_expiry=60.0,
            beat_interval=1.0,
            beat_timeout=5.0,
            reap_after=100.0,
        )
        self.relay = BeatRelay(world.node, self.duties, self._beaten, lambda: world.now)
        self.wall = 2e9
        self.log_reader = LogReader(
            node=world.node, answers=self.told, submit=world.disk.submit, wall=lambda: self.wall
        )
        self.operator = Operator(
            node=world.node,
            answers=self.told,
            roster=self.roster,
            founding=self.founding,
            levels=self.levels,
            observed=world.observed,
            log=self.log_reader,
            roster_changed=self._roster_changed,
            cluster=lambda: ("c1", "test"),
            figures=lambda: {"extra": 1},
        )
        self.side = ClientSide(
            socket=cast(Any, self.mailbox),
            answers=self.told,
            node=world.node,
            operator=self.operator,
            beats=self.relay,
            duties=self.duties,
            levels=self.levels,
            settings=settings,
        )
        world.node.on_reads = self.side.reads.told
        world.node.on_leadership = self.side.leadership_changed
        world.node.on_machine = self.side.machine_replaced
        self._number = 0

    def _beaten(self, beats: Beats) -> bool:
        self.beats.append(beats)
        return True

    def _roster_changed(self) -> None:
        self.changed_roster += 1

    @property
    def now(self) -> float:
        return self.world.now

    def clock(self) -> float:
        return self.world.now

    # --- asking -------------------------------------------------------------------------------------------------------

    def put_in(self, body: Body, *, token: str = "", budget_ms: int = 10_000, connection: bytes = b"c") -> int:
        """A request waits at the socket."""
        self._number += 1
        frame = encode_request(Request(PROTOCOL_VERSION, self._number, token, budget_ms, body))
        self.mailbox.frames.append((connection, frame))
        return self._number

    def ask(self, body: Body, *, token: str = "", budget_ms: int = 10_000, connection: bytes = b"c") -> int:
        """Put a request in and let everything run."""
        number = self.put_in(body, token=token, budget_ms=budget_ms, connection=connection)
        self.run()
        return number

    def answer(self, body: Body, *, token: str = "", budget_ms: int = 10_000, connection: bytes = b"c") -> ReplyBody:
        """The one answer to this request."""
        number = self.ask(body, token=token, budget_ms=budget_ms, connection=connection)
        bodies = self.told.to(number)
        assert len(bodies) == 1, bodies
        return bodies[0]

    def write(self, command: Command, **numbers: Any) -> int:
        return self.ask(words.write(command, **numbers))

    # --- the daemon's turn ----------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """One turn of the loop, without the disk and the peers."""
        side, world = self.side, self.world
        side.take_in(self.clock)
        if world.node.next_deadline <= world.now:
            world.node.tick(world.now)
        batch = world.apply()
        if batch is not None:
            side.applied(batch)
        side.publish(world.now)

    def run(self) -> None:
        """Turns, with disk and peers in between, until nothing moves."""
        for _ in range(1000):
            self.turn()
            jobs = bool(self.world.disk.jobs)
            for completion in self.world.disk.perform():
                if not (isinstance(completion, LogRead) and self.log_reader.taken(completion)):
                    self.world.node.completed(completion, self.world.now)
            answered = self.world.let_peers_answer()
            if not (jobs or answered or self.world.node.behind or self.side.watches.due or self.mailbox.frames):
                self.side.publish(self.world.now)
                return
        raise AssertionError("it never settles")

    def pass_time(self, seconds: float) -> None:
        """In steps of the daemon's `often`."""
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.now = min(end, self.world.now + 0.05)
            self.run()
            self.side.tick(self.world.now)
            self.run()

    def lead(self) -> None:
        for _ in range(100):
            if self.world.node.ready and self.world.node.raft.lease_valid(self.world.now):
                return
            self.pass_time(0.1)
        raise AssertionError("it does not come to lead")

    def close(self) -> None:
        self.world.close()


def until(desk: Desk, condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Let time pass until it is so."""
    for _ in range(int(seconds * 10)):
        if condition():
            return
        desk.pass_time(0.1)
    raise AssertionError("it does not happen")
