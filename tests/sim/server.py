"""One server: the shipped core, log store and state, driven by the duties that `raft/output.py` lists.

A thin stand-in for the server's own driver: no sockets, no threads; disk, network and clock are virtual. What a crash
takes is everything in this object but the disk and the last image of the state.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from coordd.errors import invariant
from coordd.messages.client import Reply, Request
from coordd.messages.codec import decode_peer, encode_peer
from coordd.messages.entry import encode_configuration
from coordd.messages.peer import Message, PeerMessage, SnapshotChunk, SnapshotCredit
from coordd.raft.core import Raft
from coordd.raft.events import (
    Applied,
    Compacted,
    CompactionAsked,
    EntriesRead,
    Event,
    Persisted,
    Received,
    Restarted,
    SnapshotInstalled,
    Ticked,
)
from coordd.raft.output import Output, ReadEntries, Role
from coordd.state.machine import Machine
from coordd.storage.log_store import LogStore
from coordd.types import (
    Base,
    Configuration,
    HardState,
    Index,
    LogSlice,
    LogWrite,
    ServerId,
    SnapshotMeta,
    Term,
    server_name,
)
from tests.sim.chance import Chance
from tests.sim.clock import Clock
from tests.sim.disk import Disk
from tests.sim.ledger import TermLog
from tests.sim.look import insides, look
from tests.sim.requests import Requests
from tests.sim.snapshots import Snapshots
from tests.sim.state import EMPTY, Image, image_of, machine_from
from tests.sim.surroundings import Surroundings

__all__ = ["Asked", "Server"]

ALL = 1 << 40
"""More bytes than any log here has."""
ROUNDING = 1e-7
"""Seconds added to a deadline, so that the server's own clock, whose rate is not 1, has certainly passed it."""


class Asked(NamedTuple):
    """A client's request on its way."""

    client: str
    request: Request


class Server:
    """One host by name. `up` while a process lives on it; each life is one `start` to one `crash` or `stop`."""

    def __init__(self, around: Surroundings, name: str, chance: Chance) -> None:
        self.around = around
        self.name = name
        self._chance = chance
        self.clock = Clock(around.schedule, chance.uniform(10, 1000), chance.uniform(0.98, 1.02))
        self.disk = Disk(around, name, chance.branch("disk"))
        self.image: Image = EMPTY
        """What the last checkpoint of the state left on the disk."""
        self.id = ServerId("")
        self.up = False
        self.life = 0
        self.paused = False
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.machine: Machine
        self.raft: Raft

    # --- lives -------------------------------------------------------------------------------------------------------

    def format(self) -> ServerId:
        """Use the empty data folder for the first time."""
        self.disk.open()
        self.id = self.disk.server
        self.disk.stop()
        return self.id

    def found(self, configuration: Configuration) -> None:
        """Be the one server that founds the cluster: write entry 1."""
        entry = encode_configuration(configuration)
        piece = LogSlice(1, [entry], ((1, 1),))
        self.around.invariants.ledger.note(1, 1, 0, entry)
        self.around.invariants.founded(self.id, piece)
        self.disk.open().write([LogWrite(1, HardState(1, None, 0), piece, True)])
        self.disk.stop()

    def start(self) -> None:
        invariant(not self.up, "a server is started twice")
        around = self.around
        store = self.disk.open()
        self.id = self.disk.server
        self.life += 1
        self.up, self.paused = True, False
        recovered = store.recover()
        self._report(store)
        self.machine = machine_from(self.image)
        around.invariants.restored(self.id, self.machine.applied)
        self.requests = Requests(self)
        self.snapshots = Snapshots(self)
        self._events: deque[Event] = deque()
        self._stepping = False
        self._waiting: deque[tuple[int, Term, PeerMessage]] = deque()
        """Messages that follow a write: (number of the last write before them, the core's term then, message)."""
        self._submitted = self._durable = 0
        self._installing = 0
        self._tick_at = self._due = float("inf")
        self._apply_to: Index = 0
        self._applying = False
        self._checkpointed = self.machine.applied
        self._compacting = False
        self.raft = Raft(around.tuning.raft, self._chance.branch(f"core-{self.life}"))
        around.say(self.name, "start", recovered)
        around.counts["starts"] += 1
        self.step(
            Restarted(
                self.id,
                store.identity.boot,
                recovered.hard_state,
                recovered.base,
                recovered.tail,
                recovered.tail_previous_term,
                recovered.configurations,
                self.machine.applied,
                recovered.promised,
            )
        )

    def _report(self, store: LogStore) -> None:
        """Tell the judge what the disk holds, from the files."""
        found = store.read(store.base.index + 1, ALL)
        assert found is not None
        log = TermLog(store.base.index, store.base.term, list(found[1].terms()) if found[1].entries else [])
        hard = store._hard_state
        self.around.invariants.booted(self.id, store.identity.boot, log, hard.term, hard.vote)

    def crash(self) -> str:
        fate = self.disk.crash()
        self._end()
        self.around.say(self.name, "crash", fate)
        return fate

    def stop(self) -> None:
        """A clean end."""
        self.disk.stop()
        self._end()
        self.around.say(self.name, "stop")

    def _end(self) -> None:
        self.up = self.paused = False
        self.life += 1
        self._inbox.clear()
        self.machine.close()
        self.around.invariants.ended(self.id)

    def wipe(self) -> ServerId:
        """A new disk: a new identity."""
        self.disk.wipe()
        self.image = EMPTY
        return self.format()

    def pause(self) -> None:
        """The process stands still, the machine around it does not."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        inbox, self._inbox = self._inbox, []
        for action, arguments in inbox:
            if self.up:
                action(*arguments)

    # --- time --------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.clock.now()

    def later(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        """Within this life, and not while paused."""
        self.around.schedule.after(delay, self.act, self.life, action, *arguments)

    def act(self, life: int, action: Callable[..., None], *arguments: Any) -> None:
        if life != self.life:
            return
        if self.paused:
            self._inbox.append((action, arguments))
        else:
            action(*arguments)

    def _set_timer(self, deadline: float) -> None:
        if deadline == float("inf"):
            return
        at = self.clock.virtual(deadline) + ROUNDING
        self._due = at
        if at < self._tick_at:
            self._tick_at = at
            self.around.schedule.at(at, self.act, self.life, self._tick, at)

    def _tick(self, at: float) -> None:
        if at != self._tick_at:
            return
        self._tick_at = float("inf")
        now = self.around.schedule.now
        if self._due > now:
            self._tick_at = self._due
            self.around.schedule.at(self._due, self.act, self.life, self._tick, self._due)
            return
        stalled = self.disk.stalled_for() > self.around.tuning.raft.election_timeout / 2
        self.step(Ticked(stalled))

    # --- the core's duties -------------------------------------------------------------------------------------------

    def receive(self, message: PeerMessage) -> None:
        if isinstance(message, SnapshotChunk):
            self.snapshots.chunk(message)
        elif isinstance(message, SnapshotCredit):
            self.snapshots.credited(message)
        elif isinstance(message, Message):
            self.step(Received(message))

    def step(self, event: Event) -> Output | None:
        """One event after the other: what an output causes at once waits until the output is dealt with.

        Returns the output of this very event, unless it had to wait.
        """
        self._events.append(event)
        if self._stepping:
            return None
        self._stepping = True
        first: Output | None = None
        try:
            life = self.life
            while self._events and life == self.life:
                output = self._step(self._events.popleft())
                first = first or output
        finally:
            self._stepping = False
        return first

    def _step(self, event: Event) -> Output:
        around = self.around
        around.counts["steps"] += 1
        output = self.raft.step(event, self.clock.now())
        seen = look(self.raft)
        around.say(self.name, "step", event)
        if output.facts:
            around.say(self.name, "fact", output.facts)
            for fact in output.facts:
                around.counts[f"fact {fact.name}"] += 1
        around.invariants.stepped(self.id, output, seen)
        self._perform(output, seen.term)
        return output

    def _perform(self, output: Output, term: Term) -> None:
        if output.install_snapshot is not None:
            self._install(output.install_snapshot)
        if output.write is not None:
            self._submitted = output.write.sequence
            self.disk.submit(output.write, self._written)
        for message in output.messages_now:
            self.send(message)
        for message in output.messages_after_persist:
            self._waiting.append((self._submitted, term, message))
        if output.messages_after_persist:
            self._release()
        for wanted in output.read_entries:
            self._read(wanted)
        for peer in output.stop_snapshot:
            self.snapshots.stop(peer)
        for sending in output.send_snapshot:
            self.snapshots.send(sending)
        if output.expect_snapshot is not None:
            self.snapshots.expect(*output.expect_snapshot)
        if output.compact:
            self._compact(output.compact)
        if output.reads_ready:
            self.requests.ready(output.reads_ready)
        if output.committed:
            self._apply_to = output.committed
            self._apply_soon()
        self._set_timer(output.next_deadline)

    def send(self, message: PeerMessage) -> None:
        around = self.around
        around.say(self.name, "send", message)
        around.invariants.sending(self.id, message)
        assert isinstance(message, Message | SnapshotChunk | SnapshotCredit)
        receiver = server_name(message.receiver)
        travels: object = encode_peer("sim", message) if around.options.paranoid else message
        around.network.send(self.name, receiver, travels)

    def deliver(self, travelled: object) -> None:
        """A message arrives at this host; it may be meant for a server that is no more."""
        if self.up:
            if isinstance(travelled, Asked):
                self.act(self.life, self._ask, travelled)
            else:
                message = decode_peer(travelled).message if isinstance(travelled, bytes) else travelled
                self.act(self.life, self.receive, message)

    def _written(self, write: LogWrite) -> None:
        self.act(self.life, self._persisted, write.sequence)

    def _persisted(self, sequence: int) -> None:
        self._durable = sequence
        self.step(Persisted(sequence))
        self._release()

    def _release(self) -> None:
        """Send what waited for the disk; what was said in another term is no longer true (rule 97)."""
        replica = insides(self.raft)
        while self._waiting and self._waiting[0][0] <= self._durable and not self._installing:
            _, term, message = self._waiting.popleft()
            if term == replica.term:
                self.send(message)

    def _read(self, wanted: ReadEntries) -> None:
        def answer(found: tuple[Term, LogSlice] | None) -> None:
            previous_term, piece = found if found is not None else (0, None)
            self.step(EntriesRead(wanted.peer, wanted.session, previous_term, piece))

        self.disk.submit(
            lambda store: store.read(wanted.first, wanted.max_bytes),
            lambda found: self.act(self.life, answer, found),
        )

    # --- applying ----------------------------------------------------------------------------------------------------

    def _apply_soon(self) -> None:
        if not self._applying and self.machine.applied < self._apply_to:
            self._applying = True
            self.later(self._chance.expovariate(1.0) * self.around.tuning.apply_latency, self._apply)

    def _apply(self) -> None:
        self._applying = False
        if self._installing:
            return
        machine = self.machine
        first = machine.applied + 1
        count = min(self._apply_to - machine.applied, self.around.tuning.apply_entries)
        if count <= 0:
            return
        entries = self.entries(first, count)
        results = machine.apply(first, entries)
        self.around.counts["applied"] += len(entries)
        self.around.invariants.applied(self.id, first, entries, machine.digest)
        self.requests.applied(entries, results)
        if machine.applied - self._checkpointed >= self.around.tuning.checkpoint_entries:
            self._checkpoint()
        self.step(Applied(machine.applied))
        self._apply_soon()

    def entries(self, first: Index, count: int) -> list[tuple[Term, bytes]]:
        """From the core's memory, or from the disk."""
        log = insides(self.raft).log
        piece: LogSlice
        if first >= log.first:
            piece = log.slice(first, count, ALL)
        else:
            assert self.disk.store is not None
            found = self.disk.store.read(first, ALL)
            assert found is not None, "an entry to apply is compacted"
            piece = found[1]
        return list(zip(piece.terms(), piece.entries, strict=True))[:count]

    def _checkpoint(self) -> None:
        """The state's image becomes durable; then the log below it may go, but for a reserve."""
        self._checkpointed = self.machine.applied
        self.image = image_of(self.machine)
        self.around.counts["checkpoints"] += 1
        wanted = self.machine.applied - self.around.tuning.trailing_entries
        if wanted > 0 and not self._compacting:
            self._events.append(CompactionAsked(wanted))

    def _compact(self, index: Index) -> None:
        replica = insides(self.raft)
        at, configuration = replica.configuration_at(index)
        base = Base(index, 0, 0, configuration, at, "state")
        self._compacting = True

        def compact(store: LogStore) -> Base | None:
            if not store.base.index <= base.index <= store.last:
                return None
            done = store.compact(base)
            self.around.invariants.compacted(self.id, done)
            self.around.counts["compactions"] += 1
            return done

        def compacted(done: Base | None) -> None:
            self._compacting = False
            if done is not None:
                self.step(Compacted(done))

        self.disk.submit(compact, lambda done: self.act(self.life, compacted, done))

    def _install(self, snapshot: SnapshotMeta) -> None:
        content = self.snapshots.content(snapshot)
        base = Base(
            snapshot.index,
            snapshot.term,
            snapshot.chain,
            snapshot.configuration,
            snapshot.configuration_index,
            "state",
        )
        self._installing += 1

        def install(store: LogStore) -> None:
            store.install(base)
            self.image = Image(snapshot.index, snapshot.term, content)
            self.around.invariants.installed(self.id, snapshot)
            self.around.counts["snapshots installed"] += 1

        def installed(_: None) -> None:
            self._installing -= 1
            self.machine.close()
            self.machine = machine_from(self.image)
            self._checkpointed = self.machine.applied
            self._apply_to = self.machine.applied
            self.around.invariants.resembles(self.id, self.machine.applied, self.machine.digest)
            self.requests.reset()
            self.step(SnapshotInstalled(snapshot))
            self._release()

        self.disk.submit(install, lambda nothing: self.act(self.life, installed, nothing))

    # --- clients -----------------------------------------------------------------------------------------------------

    def _ask(self, asked: Asked) -> None:
        def answer(reply: Reply) -> None:
            self.around.network.send(self.name, asked.client, reply)

        self.requests.take(asked.request, answer)

    @property
    def leads(self) -> bool:
        return self.up and insides(self.raft).role is Role.LEADER
