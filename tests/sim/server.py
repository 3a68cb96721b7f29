"""One server: the daemon's parts on virtual time, network and disk.

Core, node, API, proposals, reads, watches, the leader's duties, log store and state are the shipped ones; this file is
what `server/daemon.py` is to them: it assembles one life and turns its loop. What comes in waits until the loop, which
has a latency of its own, takes it up. A crash takes everything in a life but the disk and the state's last image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from coordd.errors import invariant
from coordd.messages.client import ReadResult, ReplyBody, Request
from coordd.messages.codec import decode_peer, encode_peer, encode_request
from coordd.messages.command import Command
from coordd.messages.peer import Message, PeerMessage, SnapshotChunk, SnapshotCredit
from coordd.raft.core import Raft
from coordd.raft.events import Event, Founded, ReadRequested
from coordd.raft.output import Output
from coordd.raft.replica import Rng
from coordd.raft.settings import RaftSettings
from coordd.server.api import Api
from coordd.server.levels import Levels
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.operator import Operator
from coordd.server.proposals import Proposals
from coordd.server.reads import Reads
from coordd.server.terms import LeaderDuties
from coordd.server.waiting import Waiter
from coordd.server.watches import Watches
from coordd.state.machine import Machine
from coordd.state.topics import Topic
from coordd.storage.log_store import LogStore
from coordd.storage.writer import ChainFound, Completion
from coordd.types import Configuration, Index, ServerId, Term, server_name
from tests.sim.chance import Chance
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.ledger import TermLog
from tests.sim.look import look
from tests.sim.machine import EMPTY, Image, WatchedMachine
from tests.sim.snapshots import Snapshots
from tests.sim.surroundings import Surroundings
from tests.sim.writer import VirtualWriter

__all__ = ["Answered", "Asked", "Server"]

ALL = 1 << 40
"""More bytes than any log here has."""
ROUNDING = 1e-7
"""Seconds added to a deadline, so that the server's own clock, whose rate is not 1, has certainly passed it."""
OFTEN = 0.1


class Asked(NamedTuple):
    """A client's request on its way."""

    client: str
    request: Request
    committed: Index = 0
    """A linearizable read must see at least this: all that was committed when it was asked."""


class Answered(NamedTuple):
    """And its answer."""

    request: int
    body: ReplyBody


class _WatchedRaft(Raft):
    """The shipped core; the judge sees every output before it is acted on."""

    def __init__(self, settings: RaftSettings, rng: Rng, server: "Server") -> None:
        super().__init__(settings, rng)
        self._server = server

    def step(self, event: Event, now: float) -> Output:
        server, around = self._server, self._server.around
        if isinstance(event, ReadRequested):
            around.invariants.read_asked(server.id, event.read)
        around.say(server.name, "step", event)
        output = super().step(event, now)
        around.counts["steps"] += 1
        for fact in output.facts:
            around.say(server.name, "fact", fact)
            around.counts[f"fact {fact.name}"] += 1
        around.invariants.stepped(server.id, output, look(self))
        return output


class _Operator:
    """What the API needs of the operator's part; membership goes to the node directly."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def leader_address(self) -> str:
        leader, configuration = self._node.raft.replica.leader, self._node.configuration
        found = configuration.member(leader) if leader and configuration else None
        return found.client_address if found else ""


class Server:
    """One host by name. `up` while a process lives on it; each life is one `start` to one `crash` or `stop`."""

    def __init__(self, around: Surroundings, name: str, chance: Chance) -> None:
        self.around = around
        self.name = name
        self._chance = chance
        self.clock = Clock(around.schedule, chance.uniform(10, 1000), chance.uniform(0.99, 1.01))
        self.wall_offset = 1.7e9 + chance.uniform(-5, 5)
        self.disk = Disk(around, name, chance.branch("disk"))
        self.images: dict[str, Image] = {}
        """State files on the disk, by name: what the last checkpoint left of each."""
        self.id = ServerId("")
        self.up = False
        self.life = 0
        self.paused = False
        self.node: Node
        self.writer: VirtualWriter

    # --- lives -------------------------------------------------------------------------------------------------------

    def format(self) -> ServerId:
        """Use the empty data folder for the first time."""
        store = self.disk.open()
        self.id = store.identity.server
        store.close()
        return self.id

    def start(self) -> None:
        invariant(not self.up, "a server is started twice")
        around, store = self.around, self.disk.open()
        self.id = store.identity.server
        self.life += 1
        self.up, self.paused = True, False
        recovered = store.recover()
        self._report(store)
        machine = self.machine_from(self.images.get(recovered.base.state_file, EMPTY))
        around.invariants.restored(self.id, machine.applied)
        self._assemble(store, machine)
        around.counts["starts"] += 1
        around.say(self.name, "start", recovered)
        self.node.start(self.id, store.identity.boot, recovered, self.now())
        self._set_timer()

    def _assemble(self, store: LogStore, machine: Machine) -> None:
        around, life = self.around, self.life
        self._inbox: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._awake = False
        self._timer = self._due = float("inf")
        self._changes: set[Topic] = set()
        self._was_leading = False
        self._floors: dict[tuple[str, int], Index] = {}
        """Requests that wait for an answer."""
        self._often_at = self.now()
        self._apply_at = 0.0
        self._checkpointed = machine.applied
        self.writer = VirtualWriter(
            around,
            store,
            self._chance.branch(f"writer-{life}"),
            self.now,
            lambda done: self.act(life, self._completed, done),
        )
        self.snapshots = Snapshots(self)
        raft = _WatchedRaft(around.tuning.raft, self._chance.branch(f"core-{life}"), self)
        self.node = node = Node(
            raft=raft,
            writer=self.writer,
            links=self,
            snapshots=self.snapshots,
            machine=machine,
            observed=Observed(),
            clock=self.now,
        )
        self._proposals = Proposals(self, 1000)
        self._watches = Watches(1000, 5.0, lambda query: node.machine.topics(query))
        self._reads = Reads(node=node, answers=self, watches=self._watches, limit=1000, longest_wait=10.0)
        levels = Levels(node)
        self._duties = LeaderDuties(
            node=node,
            levels=levels,
            propose=self._propose_own,
            client_expiry=600.0,
            beat_interval=1.0,
            beat_timeout=5.0,
            reap_after=600.0,
        )
        self._api = Api(
            node=node,
            answers=self,
            proposals=self._proposals,
            reads=self._reads,
            watches=self._watches,
            duties=self._duties,
            levels=levels,
            operator=cast(Operator, _Operator(node)),
            beats=lambda _: None,
            wall=self.wall,
        )
        node.on_reads = self._reads.told
        node.on_leadership = self._leadership_changed
        node.on_machine = self._machine_replaced

    def _report(self, store: LogStore) -> None:
        """Tell the judge what the disk holds, from the files."""
        found = store.read(store.base.index + 1, ALL)
        assert found is not None
        log = TermLog(store.base.index, store.base.term, list(found[1].terms()) if found[1].entries else [])
        hard = store._hard_state
        self.around.invariants.booted(self.id, store.identity.boot, log, hard.term, hard.vote)

    def machine_from(self, image: Image) -> WatchedMachine:
        return WatchedMachine.from_image(image, self._applied)

    def crash(self) -> str:
        fate = self.disk.cut(self.writer)
        self._end()
        self.around.say(self.name, "crash", fate)
        return fate

    def stop(self) -> None:
        """A clean end: what was submitted is lost, as nobody heard of it."""
        self.writer.end()
        self.writer.store.close()
        self._end()
        self.around.say(self.name, "stop")

    def _end(self) -> None:
        self.up = self.paused = False
        self.life += 1
        self.node.machine.close()
        self.around.invariants.ended(self.id)

    def wipe(self) -> ServerId:
        """A new disk: a new identity."""
        self.disk.wipe()
        self.images.clear()
        return self.format()

    def pause(self) -> None:
        """The process stands still, the machine around it does not."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._wake()

    # --- time --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.clock.now()

    def wall(self) -> float:
        return self.wall_offset + self.around.schedule.now

    def act(self, life: int, action: Callable[..., object], *arguments: Any) -> None:
        """In the next turn of this life's loop."""
        if life == self.life:
            self._inbox.append((action, arguments))
            self._wake()

    def later(self, delay: float, action: Callable[..., object], *arguments: Any) -> None:
        self.around.schedule.after(delay, self.act, self.life, action, *arguments)

    def _wake(self) -> None:
        if not self._awake and not self.paused:
            self._awake = True
            latency = self.around.tuning.loop_latency
            delay = self._chance.expovariate(1.0) * latency if latency else 0.0
            self.around.schedule.after(delay, self._turn_if, self.life)

    def _set_timer(self) -> None:
        reading = min(self.node.next_deadline, self._often_at)
        self._due = self.clock.virtual(reading) + ROUNDING
        if self._due < self._timer:
            self._timer = self._due
            self.around.schedule.at(self._due, self._ring, self.life, self._due)

    def _ring(self, life: int, at: float) -> None:
        if life != self.life or at != self._timer:
            return
        self._timer = float("inf")
        if self._due > self.around.schedule.now:
            self._set_timer()
        else:
            self._wake()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _turn_if(self, life: int) -> None:
        if life == self.life:
            self._awake = False
            if not self.paused:
                self._turn()

    def _turn(self) -> None:
        """As the daemon's: what came in, one proposal, the tick, a slice of applying, answers."""
        now = self.now()
        inbox, self._inbox = self._inbox, []
        for action, arguments in inbox:
            action(*arguments)
        self._propose(now)
        self._reads.turn(now)
        if now >= self.node.next_deadline:
            self.node.tick(now)
        self._apply(now)
        self._duties.turn(self._changes, now, self.wall())
        self._watches.changed(sorted(self._changes))
        self._changes = set()
        self._reads.turn(now)
        if now >= self._often_at:
            self._often(now)
        self._set_timer()

    def _propose(self, now: float) -> None:
        entries = self._proposals.take_batch(now)
        if entries:
            answer = self.node.propose(entries, now)
            self._proposals.proposed(answer, _Operator(self.node).leader_address())

    def _propose_own(self, command: Command, now: float) -> None:
        self._api.propose(command, now)

    def _apply(self, now: float) -> None:
        schedule, tuning = self.around.schedule, self.around.tuning
        if schedule.now < self._apply_at or not self.node.behind:
            return
        batch = self.node.apply_some(tuning.apply_entries, now)
        if batch is not None:
            self._changes |= self.node.machine.changes
            self._proposals.applied(batch)
            if self.node.machine.applied - self._checkpointed >= tuning.checkpoint_entries and not self.snapshots.busy:
                self._checkpoint(now)
        if self.node.behind:
            delay = self._chance.expovariate(1.0) * tuning.apply_latency
            self._apply_at = schedule.now + delay
            schedule.after(delay, self.act, self.life, _nothing)

    def _applied(self, first: Index, entries: Any, digest: int) -> None:
        self.around.counts["applied"] += len(entries)
        self.around.invariants.applied(self.id, first, entries, digest)

    def _checkpoint(self, now: float) -> None:
        """The state's image becomes durable; then the log below it may go, but for a reserve."""
        machine = self.node.machine
        assert isinstance(machine, WatchedMachine)
        self._checkpointed = machine.applied
        self.images[self.node.state_file] = machine.image()
        self.around.counts["checkpoints"] += 1
        wanted = machine.applied - self.around.tuning.trailing_entries
        if wanted > 0:
            self.node.compact(wanted, now)

    def _often(self, now: float) -> None:
        self._often_at = now + OFTEN
        self._duties.tick(now, self.wall())
        self._propose(now)
        self._proposals.expire(now)
        self._reads.expire(now)
        self._watches.tick(now)
        configuration = self.node.configuration
        members = [m for m in configuration.members if m.id != self.id] if configuration else []
        connected = self.around.network.connected
        self.node.look_at_links(frozenset(m.id for m in members if connected(self.name, m.name)), now)

    # --- what comes in -----------------------------------------------------------------------------------------------

    def deliver(self, travelled: object) -> None:
        """Something arrives at this host; it may be meant for a server that is no more."""
        if not self.up:
            return
        if isinstance(travelled, Asked):
            self.act(self.life, self._ask, travelled)
        else:
            message = decode_peer(travelled).message if isinstance(travelled, bytes) else travelled
            self.act(self.life, self._receive, message)

    def _ask(self, asked: Asked) -> None:
        self._floors[asked.client, asked.request.id] = asked.committed
        self._api.handle(asked.client.encode(), encode_request(asked.request), self.now())

    def _receive(self, message: PeerMessage) -> None:
        if isinstance(message, SnapshotChunk):
            self.snapshots.chunk(message)
        elif isinstance(message, SnapshotCredit):
            self.snapshots.credited(message)
        elif isinstance(message, Message) and message.receiver == self.id:
            self.node.receive(message, self.now())

    def _completed(self, completion: Completion) -> None:
        if isinstance(completion, ChainFound):
            self.snapshots.chain_found(completion)
        else:
            self.node.completed(completion, self.now())

    def _leadership_changed(self) -> None:
        if self._was_leading and not self.node.leading:
            self._proposals.leadership_lost()
        self._was_leading = self.node.leading

    def _machine_replaced(self) -> None:
        self._watches.wake_all()
        self._changes.clear()
        machine = self.node.machine
        self._checkpointed = machine.applied
        self.around.invariants.restored(self.id, machine.applied)
        self.around.invariants.resembles(self.id, machine.applied, machine.digest)

    # --- what goes out -----------------------------------------------------------------------------------------------

    def send(self, message: PeerMessage) -> bool:
        """The node's `Links`."""
        around = self.around
        assert isinstance(message, Message | SnapshotChunk | SnapshotCredit)
        around.say(self.name, "send", message)
        around.invariants.sending(self.id, message)
        travels: object = encode_peer("sim", message) if around.options.paranoid else message
        return around.network.send(self.name, server_name(message.receiver), travels)

    def answer(self, waiter: Waiter, body: ReplyBody) -> bool:
        """The API's `Answers`."""
        client, answered = waiter.connection.decode(), Answered(waiter.request, body)
        floor = self._floors.pop((client, waiter.request), 0)
        if isinstance(body, ReadResult):
            self.around.invariants.read_answered(self.id, floor, self.node.machine.applied)
        return self.around.network.send(self.name, client, answered, once=True, surely=client.startswith("w"))

    # --- for the operator --------------------------------------------------------------------------------------------

    def found(self, configuration: Configuration) -> None:
        self.act(self.life, lambda: self.node.found(Founded(configuration), self.now()))

    @property
    def leads(self) -> bool:
        return self.up and self.node.leading

    @property
    def term(self) -> Term:
        return self.node.raft.replica.term


def _nothing() -> None:
    """Only wakes the loop."""
