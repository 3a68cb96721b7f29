"""One server: the daemon's parts on virtual time, network and disk.

Core, node, API, proposals, reads, watches, the leader's duties, snapshots, upkeep, stores and state are shipped; this file is
what `server/daemon.py` is to them: it assembles one life and turns its loop. What comes in waits until the loop, which
has a latency of its own, takes it up. A crash takes everything in a life but the disk.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from coordd.errors import DamagedError, StorageError, invariant
from coordd.log_output import Log
from coordd.messages.client import ReadResult, ReplyBody, Request
from coordd.messages.codec import decode_peer, encode_peer, encode_request
from coordd.messages.command import Command
from coordd.messages.peer import Message, PeerMessage, SnapshotChunk, SnapshotCredit, StateDigest, StateWanted
from coordd.raft.core import Raft
from coordd.raft.events import Event, Founded, ReadRequested, SnapshotReceived, SnapshotSent
from coordd.raft.output import Output, Role
from coordd.raft.replica import Rng
from coordd.raft.settings import RaftSettings
from coordd.server.api import Api
from coordd.server.helper import Helper
from coordd.server.levels import Levels
from coordd.server.links import PeerLinks
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.operator import Operator
from coordd.server.proposals import Proposals
from coordd.server.reads import Reads
from coordd.server.settings import RaftSettings as LogSettings
from coordd.server.settings import ServerSettings, StorageSettings
from coordd.server.snapshots import Snapshots
from coordd.server.state_care import StateCare
from coordd.server.terms import LeaderDuties
from coordd.server.waiting import Waiter
from coordd.server.watches import Watches
from coordd.state.machine import Applied, Machine
from coordd.state.topics import Topic
from coordd.storage.log_store import LogStore
from coordd.storage.recovery import Recovered
from coordd.storage.writer import ChainFound, Completion, LogCompacted
from coordd.types import Configuration, Index, ServerId, Term, server_name
from tests.sim.chance import Chance
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.helper import VirtualHelper
from tests.sim.ledger import TermLog
from tests.sim.look import look
from tests.sim.machine import WatchedMachine
from tests.sim.surroundings import Surroundings
from tests.sim.violation import check
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
    by: str
    at: float


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
        around.oracle.committed()
        if output.leadership_changed and self.role is Role.LEADER:
            server.on_office(server)
        return output


class _Log:
    """What the care for the state says."""

    def __init__(self, server: "Server") -> None:
        self._server = server

    def info(self, event: str, detail: str = "") -> None:
        self._server._reported(event, detail)

    def error(self, event: str, **values: object) -> None:
        self._server._reported(event, str(values))


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
        self.clock = Clock(
            around.schedule,
            chance.uniform(10, 1000),
            chance.uniform(0.99, 1.01),
            1.7e9 + chance.uniform(-5, 5),
            chance.uniform(0.9, 1.1),
        )
        self.disk = Disk(around, name, chance.branch("disk"))
        self.id = ServerId("")
        self.up = False
        self.life = 0
        self.paused = False
        self.refused = False
        """Its process does not start: the log is damaged."""
        self.on_death: Callable[[Server], None] = lambda server: None
        """The process ended by itself, as its disk failed."""
        self.on_office: Callable[[Server], None] = lambda server: None
        """It has been elected."""
        self._state_synced: Index = 0
        """What the disk surely holds of the state."""
        self.node: Node
        self.writer: VirtualWriter
        self.helper: VirtualHelper
        self.snapshots: Snapshots

    # --- lives -------------------------------------------------------------------------------------------------------

    def format(self) -> ServerId:
        """Use the empty data folder for the first time."""
        store = self.disk.open()
        self.id = store.identity.server
        store.close()
        return self.id

    def start(self) -> None:
        invariant(not self.up, "a server is started twice")
        self.refused = False
        store: LogStore | None = None
        try:
            store = self.disk.open()
            self._start(store)
        except DamagedError as error:
            if not self.disk.condition.faulty:
                raise
            if store is not None:
                store.abandon()
                self.around.invariants.ended(self.id)
            self.refused = True
            self.around.counts["starts refused"] += 1
            self.around.say(self.name, "refused", str(error))

    def _start(self, store: LogStore) -> None:
        around = self.around
        self.id = store.identity.server
        recovered = self._recover(store)
        self._report(store, recovered)
        files, base = self.disk.files, recovered.base
        if self.disk.state_damage:
            around.counts["states damaged"] += 1
            files.set_aside(base.state_file)
        files.remove_all_but({base.state_file})
        machine = self._open_state(files.state_path(base), examined=True)
        around.invariants.restored(self.id, machine.applied)
        if machine.applied:
            around.invariants.resembles(self.id, machine.applied, machine.digest)
        self.life += 1
        self._assemble(store, machine)
        around.counts["starts"] += 1
        around.say(self.name, "start", recovered)
        try:
            self.node.start(self.id, store.identity.boot, recovered, self.now())
        except DamagedError:
            self._close()
            raise
        self.up, self.paused = True, False
        self._set_timer()

    def _recover(self, store: LogStore) -> Recovered:
        """What the storage remembers; a new server's state file gets its name first."""
        recovered = store.recover()
        if recovered.base.state_file:
            return recovered
        named = msgspec.structs.replace(recovered.base, state_file=self.disk.files.new_name(0))
        return msgspec.structs.replace(recovered, base=store.set_base(named))

    def _open_state(self, path: str, *, examined: bool = False) -> WatchedMachine:
        name = Path(path).name

        def synced(applied: Index) -> None:
            self.disk.state_synced(name)
            self._state_synced = applied

        return WatchedMachine.watched(path, self._applied, synced, self.disk.condition, examined=examined)

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
        self.writer = VirtualWriter(
            around,
            store,
            self.disk.condition,
            self._chance.branch(f"writer-{life}"),
            self.now,
            lambda done: self.act(life, self._completed, done),
        )
        self.helper = VirtualHelper(
            around,
            self.disk.condition,
            self._chance.branch(f"helper-{life}"),
            lambda: self.disk.state_synced(self.node.state_file),
            lambda done: self.act(life, done),
        )
        self.writer.space_changed()
        self.snapshots = self._make_snapshots()
        raft = _WatchedRaft(self._core_settings(), self._chance.branch(f"core-{life}"), self)
        self.node = Node(
            raft=raft,
            writer=self.writer,
            links=self,
            snapshots=self.snapshots,
            machine=machine,
            observed=Observed(),
            clock=self.now,
        )
        self.care = self._make_care()
        self._assemble_clients()

    def _core_settings(self) -> RaftSettings:
        """The same in each life; servers may differ, as while an operator changes them one by one."""
        tuning, chance = self.around.tuning, self._chance.branch("settings")
        floor = tuning.raft.election_timeout * chance.choice(tuning.floors)
        return msgspec.structs.replace(
            tuning.raft,
            election_timeout=floor,
            max_election_timeout=max(floor, tuning.raft.max_election_timeout),
            lease_duration=0.8 * floor,
            priority=chance.choice(tuning.priorities),
        )

    def _make_snapshots(self) -> Snapshots:
        tuning = self.around.tuning
        return Snapshots(
            me=self.id,
            store=self.disk.files,
            helper=cast(Helper, self.helper),
            links=cast(PeerLinks, self),
            submit=self.writer.submit,
            state_file=lambda: self.node.state_file,
            doubt=lambda: self.care.scrubbing.now(),
            chunk_bytes=tuning.chunk_bytes,
            credits=tuning.credits,
            receivers=tuning.receivers,
            report=self._reported,
            clock=self.now,
            open_state=self._open_state,
            idle_seconds=tuning.idle_seconds,
            keep_seconds=tuning.keep_seconds,
        )

    def _make_care(self) -> StateCare:
        tuning = self.around.tuning
        settings = ServerSettings(
            name=self.name,
            cluster_name="sim",
            data_dir=self.disk.folder,
            key_file=self.disk.folder,
            raft_address=f"{self.name}:1",
            client_address=f"{self.name}:2",
            raft=LogSettings(
                trailing_entries=tuning.trailing_entries, compact_after_entries=tuning.compact_after_entries
            ),
            storage=StorageSettings(
                state_checkpoint_ms=tuning.checkpoint_ms,
                state_checkpoint_entries=tuning.checkpoint_entries,
                scrub_interval_s=tuning.scrub_seconds,
                compare_every_entries=tuning.compare_entries,
            ),
        )
        return StateCare(
            me=self.id,
            node=self.node,
            helper=cast(Helper, self.helper),
            store=self.disk.files,
            settings=settings,
            snapshots_busy=lambda: self.snapshots.busy,
            send=self.send,
            observed=self.node.observed,
            log=cast(Log, _Log(self)),
            clock=self.now,
        )

    def _reported(self, event: str, text: str) -> None:
        self.around.counts[event] += 1
        self.around.say(self.name, event, text)

    def _assemble_clients(self) -> None:
        node = self.node
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
            wall=self.clock.wall,
        )
        node.on_reads = self._reads.told
        node.on_leadership = self._leadership_changed
        node.on_machine = self._machine_replaced

    def _report(self, store: LogStore, recovered: Recovered) -> None:
        """Tell the judge what the disk holds, from the files."""
        found = store.read(store.base.index + 1, ALL)
        assert found is not None
        log = TermLog(store.base.index, store.base.term, list(found[1].terms()) if found[1].entries else [])
        hard = store._hard_state
        faulty, boot = self.disk.condition.faulty, store.identity.boot
        if self.around.invariants.booted(self.id, boot, log, hard.term, hard.vote, recovered.promised, faulty):
            self.around.counts["logs shortened"] += 1

    def crash(self) -> str:
        fate = self.disk.cut(self.writer, self.helper, self.node.state_file)
        self._end()
        self.around.say(self.name, "crash", fate)
        return fate

    def stop(self) -> None:
        """A clean end: what was submitted is lost, as nobody heard of it."""
        self.writer.end()
        self.helper.end()
        failed = False
        try:
            with self.disk.condition.writing():
                self.writer.store.close()
                self.node.machine.checkpoint()
        except StorageError:
            failed = True
            if not self.disk.condition.faulty:
                raise
        self._end()
        if failed:
            self.disk.leave()
        self.disk.condition.writable = None
        self.around.say(self.name, "stop")

    def discard(self) -> None:
        """The run is over."""
        self.writer.end()
        self.helper.end()
        self.disk.cut(self.writer)
        self._close()

    def _end(self) -> None:
        self.up = self.paused = False
        self.life += 1
        self._close()
        self.around.invariants.ended(self.id)

    def _close(self) -> None:
        counts, observed = self.around.counts, self.node.observed
        counts["checkpoints"] += self.care.checkpoints
        counts["scrubs"] += observed.scrubs
        counts["digests compared"] += observed.digests_compared
        counts["digests differed"] += observed.digests_differed
        counts["states lost"] += observed.states_lost
        self.care.close()
        self.snapshots.close()
        self.node.machine.close()

    def wipe(self) -> ServerId:
        """A new disk: a new identity."""
        self.disk.wipe()
        self.refused = False
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
                try:
                    self._turn()
                except StorageError as error:
                    if not self.disk.condition.faulty:
                        raise
                    self._die(error)

    def _die(self, error: StorageError) -> None:
        self.around.counts["processes ended by their disk"] += 1
        self.around.say(self.name, "ends", str(error))
        self.crash()
        self.disk.condition.writable = None
        self.on_death(self)

    def set_full(self, full: bool) -> None:
        self.disk.condition.full = full
        if self.up:
            self.writer.space_changed()
            if isinstance(self.node.machine, WatchedMachine):
                self.node.machine.space_changed()

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
        if self.node.committed > self.node.machine.applied:
            self._apply(now)
        self._duties.turn(self._changes, now, self.clock.wall())
        if self._changes:
            self._watches.changed(sorted(self._changes))
            self._changes = set()
        self._reads.turn(now)
        self._pass_snapshots(now)
        self.care.turn(now)
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
        if schedule.now < self._apply_at:
            return
        batch = self.node.apply_some(self.care.entries_at_once(tuning.apply_entries), now)
        if batch is not None:
            self._changes |= self.node.machine.changes
            self.care.applied(batch, now)
            self._proposals.applied(batch)
        if self.node.behind:
            delay = self._chance.expovariate(1.0) * tuning.apply_latency
            self._apply_at = schedule.now + delay
            schedule.after(delay, self.act, self.life, _nothing)

    def _applied(self, first: Index, entries: Any, results: Sequence[Applied], digest: int) -> None:
        self.around.counts["applied"] += len(entries)
        self.around.invariants.applied(self.id, first, entries, digest)
        self.around.oracle.applied(first, entries, results)

    def _pass_snapshots(self, now: float) -> None:
        """As `PeerSide.pass_snapshots`."""
        self.snapshots.turn(now)
        for outcome in self.snapshots.take_outcomes():
            if isinstance(outcome, SnapshotReceived):
                self.node.snapshot_received(outcome, now)
                self.snapshots.discard_unwanted(self.node.taking_state)
            else:
                self.around.counts["snapshots sent" if isinstance(outcome, SnapshotSent) else "transfers given up"] += 1
                self.node.snapshot_sent(outcome, now)

    def _often(self, now: float) -> None:
        self._often_at = now + OFTEN
        self._duties.tick(now, self.clock.wall())
        self._propose(now)
        self._proposals.expire(now)
        self._reads.expire(now)
        self._watches.tick(now)
        configuration = self.node.configuration
        members = [m for m in configuration.members if m.id != self.id] if configuration else []
        connected = self.around.network.connected
        self.node.look_at_links(frozenset(m.id for m in members if connected(self.name, m.name)), now)
        self.node.refill.turn(now)
        self.care.tick(now)

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
        assert isinstance(message, Message | SnapshotChunk | SnapshotCredit | StateWanted | StateDigest)
        if message.receiver != self.id:
            return
        if isinstance(message, SnapshotChunk):
            self.snapshots.chunk(message)
        elif isinstance(message, SnapshotCredit):
            self.snapshots.credited(message, self.now())
        elif isinstance(message, StateDigest):
            self.care.heard(message, self.now())
            self.around.invariants.compared(message, self.node.configuration)
        elif isinstance(message, StateWanted):
            self.node.refill.wanted(message, self.now())
        else:
            self.node.receive(message, self.now())

    def _completed(self, completion: Completion) -> None:
        if isinstance(completion, LogCompacted) and completion.base.state_file == self.node.state_file:
            base, synced = completion.base.index, self._state_synced
            check(base <= synced, 9, "the log is cut beyond the state on the disk", base=base, synced=synced)
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
        machine, judge = self.node.machine, self.around.invariants
        if not self.node.has_state:
            judge.lost(self.id)
            return
        self.around.counts["states refilled"] += judge.ledger.records[self.id].stateless
        judge.restored(self.id, machine.applied)
        judge.resembles(self.id, machine.applied, machine.digest)

    # --- what goes out -----------------------------------------------------------------------------------------------

    def send(self, message: PeerMessage) -> bool:
        """The node's `Links`."""
        around = self.around
        assert isinstance(message, Message | SnapshotChunk | SnapshotCredit | StateWanted | StateDigest)
        around.say(self.name, "send", message)
        around.invariants.sending(self.id, message)
        travels: object = encode_peer("sim", message) if around.options.paranoid else message
        return around.network.send(self.name, server_name(message.receiver), travels)

    def answer(self, waiter: Waiter, body: ReplyBody) -> bool:
        """The API's `Answers`."""
        client = waiter.connection.decode()
        answered = Answered(waiter.request, body, self.name, self.around.schedule.now)
        floor = self._floors.pop((client, waiter.request), 0)
        if isinstance(body, ReadResult):
            self.around.invariants.read_answered(self.id, floor, self.node.machine.applied)
        return self.around.network.send(self.name, client, answered, once=True, surely=client.startswith("w"))

    # --- damage ------------------------------------------------------------------------------------------------------

    def spoil_digest(self) -> bool:
        """A bit of the state's digest turns round in memory. Its rows stay right, so clients may notice nothing."""
        if not self.up or not self.node.has_state:
            return False
        table = self._chance.choice(self.node.machine._rows.tables)
        table.digest ^= 1 << self._chance.randrange(128)
        self.around.invariants.doubted(self.id)
        return True

    def damage(self) -> str:
        """What is wrong with the state file in use; "" for nothing, or while there is no state."""
        if not self.up or not self.node.has_state:
            return ""
        return self.disk.damage(self.node.state_file)

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
