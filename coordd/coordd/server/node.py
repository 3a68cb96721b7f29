"""The driver of the consensus core: does what an `Output` asks, in the order that `raft/output.py` prescribes.

No sockets, threads or clock of its own: it is given a writer, links to the other servers and the state, so that the
daemon and the simulator run the same code. One thread calls it. Every method takes `now` (monotonic seconds) and leaves
nothing undone but what waits for a completion.

Errors: InvariantError, StorageError from any method mean that the process must end.
"""

from collections import deque
from collections.abc import Callable
from functools import partial

from coordd.errors import DamagedError, DiskFullError, invariant
from coordd.messages.peer import InstallSnapshot, RaftMessage
from coordd.raft import events
from coordd.raft.core import Raft
from coordd.raft.output import Fact, Output, ProposalAnswer, ReadReady, Refusal
from coordd.server.currency import Currency
from coordd.server.observed import Observed
from coordd.server.ports import AppliedBatch, Links, SnapshotPort, Writer
from coordd.server.refill import Refill, others_of
from coordd.state.machine import Machine
from coordd.storage.recovery import Recovered
from coordd.storage.writer import (
    BaseInstalled,
    CompactLog,
    Completion,
    DiskFull,
    InstallBase,
    LogCompacted,
    LogRead,
    ReadLog,
    WriterFailed,
    WritesDone,
)
from coordd.types import Base, Configuration, Index, LogSlice, ServerId, SnapshotMeta

__all__ = ["Node"]

_REPLAY_BYTES = 4 * 1024 * 1024
_FULL_PAUSE_SECONDS = 0.2
"""Between two attempts to apply on a full disk."""


class Node:
    """One server's consensus and state, without its clients."""

    def __init__(
        self,
        *,
        raft: Raft,
        writer: Writer,
        links: Links,
        snapshots: SnapshotPort,
        machine: Machine,
        observed: Observed,
        clock: Callable[[], float],
    ) -> None:
        """`clock`: monotonic seconds, asked only where the time that work took matters."""
        self.raft = raft
        self.machine = machine
        self.observed = observed
        self._clock = clock
        self._currency = Currency()
        self._writer = writer
        self._links = links
        self._snapshots = snapshots
        self._submitted = 0
        """Sequence of the newest write handed over."""
        self._persisted = 0
        self._after_persist: deque[tuple[int, list[RaftMessage]]] = deque()
        """(sequence to wait for, messages); sequences never fall."""
        self._installing: SnapshotMeta | None = None
        self.refill = Refill(raft.replica, links, snapshots, writer)
        self._compacting = False
        self._replaying = False
        """Entries that the state lacks are being read from disk."""
        self._replayed: LogSlice | None = None
        self._lost: set[ServerId] = set()
        """Peers to whom a message was dropped since the last look at the links."""
        self._unreachable: frozenset[ServerId] = frozenset()
        self._log_full = False
        self._state_full = False
        """There was no space for a batch; it is tried again at `_apply_at`."""
        self._apply_at = 0.0
        self.committed: Index = 0
        """Entries up to here may be applied."""
        self.next_deadline = 0.0
        self.state_file = ""
        self.on_reads: Callable[[list[ReadReady]], None] = lambda ready: None
        self.on_configuration: Callable[[], None] = lambda: None
        self.on_leadership: Callable[[], None] = lambda: None
        self.on_fact: Callable[[Fact], None] = lambda fact: None
        self.on_machine: Callable[[], None] = lambda: None
        """The state was replaced by a snapshot."""

    # --- starting -----------------------------------------------------------------------------------------------------

    def start(self, me: ServerId, boot: int, recovered: Recovered, now: float) -> None:
        """Give the core what the storage remembers. Raises: DamagedError if log and state contradict each other and no
        other server can help."""
        machine, base = self.machine, recovered.base
        self.state_file = base.state_file
        self.refill.lost = machine.applied < base.index
        if self.refill.lost and not others_of(recovered.newest_configuration, me):
            raise DamagedError(
                f"the state file {base.state_file} holds entries up to {machine.applied}, but the log begins behind"
                f" {base.index}: restore it, or let this server join anew with an empty folder"
            )
        if machine.applied > max(recovered.tail.last, recovered.promised):
            raise DamagedError(
                f"the state file {base.state_file} holds entries up to {machine.applied}, but the log ends at"
                f" {recovered.tail.last}: restore the log, or let this server join anew with an empty folder"
            )
        self.committed = max(machine.applied, base.index)
        self._do(
            self.raft.step(
                events.Restarted(
                    me=me,
                    boot=boot,
                    hard_state=recovered.hard_state,
                    base=base,
                    tail=recovered.tail,
                    tail_previous_term=recovered.tail_previous_term,
                    earlier_runs=recovered.earlier_runs,
                    configurations=recovered.configurations,
                    applied=self.committed,
                    promised=recovered.promised,
                ),
                now,
            ),
            now,
        )
        if self.refill.lost:
            self._tell_lost("it lies below the beginning of the log", now)

    # --- what happens ---------------------------------------------------------------------------------------------------

    def receive(self, message: RaftMessage, now: float) -> None:
        """A message of a proved sender."""
        self._step(events.Received(message), now)
        if isinstance(message, InstallSnapshot) and self.refill.helps(message.snapshot):
            self._snapshots.expect(message.sender, message.session, message.term, message.snapshot, now)

    def tick(self, now: float) -> None:
        """Due at `next_deadline`."""
        since = self._writer.pending_since
        limit = self.raft.replica.election_timeout / 2
        stalled = since is not None and now - since > limit and not self._log_full
        self._step(events.Ticked(disk_stalled=stalled), now)
        self._hand_over_if_full(now)

    def _hand_over_if_full(self, now: float) -> None:
        """A full disk is no hanging one: its leader goes on answering reads, but lets others take writes if they can."""
        replica = self.raft.replica
        log, leading = replica.log, replica.leading
        others_can_store = log.commit == log.last and (log.durable < log.last or bool(self._apply_at))
        if self.disk_full and others_can_store and leading is not None and leading.transfer is None:
            self.transfer(None, now)

    def completed(self, completion: Completion, now: float) -> None:
        """The writer has finished something."""
        match completion:
            case WritesDone(sequence=sequence, seconds=seconds):
                self._log_full = False
                self.observed.fsync_seconds = seconds
                self._persisted = sequence
                self._step(events.Persisted(sequence), now)
                self._release()
            case LogRead(peer=peer) if peer == self.raft.replica.me:
                self._replaying, self._replayed = False, completion.slice
            case LogRead(peer=peer, session=session, previous_term=previous_term, slice=piece):
                self._step(events.EntriesRead(peer, session, previous_term, piece), now)
            case LogCompacted(base=base) if self.refill.adopting is not None:
                self._snapshots.open(base.state_file, partial(self._change_over, base.state_file))
            case LogCompacted(base=base):
                self._compacting = False
                self.observed.compactions += 1
                self._step(events.Compacted(base), now)
            case BaseInstalled(base=base):
                self._snapshots.open(base.state_file, partial(self._change_over, base.state_file))
            case DiskFull(error=error):
                self._log_full = True
                self.on_fact(Fact("disk full", {"error": str(error)}))
            case WriterFailed(error=error):
                raise error

    def propose(self, entries: list[bytes], now: float) -> ProposalAnswer:
        """Clients' commands; see `Output.proposal`."""
        if self.disk_full:
            return Refusal.NO_SPACE
        answer = self._step(events.Proposed(entries), now).proposal
        invariant(answer is not None, "the core did not answer a proposal")
        return answer or Refusal.NOT_LEADER

    def read(self, read: int, now: float) -> None:
        """Ask for a read index; `on_reads` tells it, perhaps at once."""
        self._step(events.ReadRequested(read), now)

    def found(self, event: events.Founded, now: float) -> ProposalAnswer:
        """Write entry 1 of a new cluster."""
        return self._step(event, now).change or Refusal.HAS_LOG

    def change(self, event: events.ChangeRequested, now: float) -> ProposalAnswer:
        return self._step(event, now).change or Refusal.NOT_LEADER

    def transfer(self, target: ServerId | None, now: float) -> ServerId | Refusal:
        return self._step(events.TransferRequested(target), now).transfer or Refusal.NOT_LEADER

    def snapshot_sent(self, event: events.SnapshotSent | events.SnapshotFailed, now: float) -> None:
        self.observed.snapshots_sent += isinstance(event, events.SnapshotSent)
        self._step(event, now)

    def snapshot_received(self, event: events.SnapshotReceived, now: float) -> None:
        if self.refill.helps(event.snapshot) and not self._compacting:
            self.refill.adopt(event.snapshot)
        elif self.refill.adopting is None:
            self._step(event, now)

    def look_at_links(self, connected: frozenset[ServerId], now: float) -> None:
        """Tell the core of dropped messages and of peers that can be written to again. To be called now and then."""
        lost, self._lost = self._lost, set()
        for peer in sorted(self._unreachable & connected):
            self._step(events.PeerConnected(peer), now)
        for peer in sorted(lost - connected):
            self._step(events.PeerUnreachable(peer), now)
        self._unreachable = (self._unreachable | lost) - connected

    # --- applying -----------------------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """There is something to apply now."""
        return (
            self.machine.applied < self.committed
            and not self._state_full
            and self.has_state
            and not (self._replaying and self._replayed is None)
        )

    def apply_some(self, max_entries: int, now: float) -> AppliedBatch | None:
        """Apply a slice of what is committed. None: nothing could be applied now."""
        if self._state_full and now >= self._apply_at:
            self._state_full = False
        if not self.behind:
            return None
        first = self.machine.applied + 1
        piece = self._slice_at(first, min(self.committed, first + max_entries - 1))
        if piece is None:
            return None
        terms = list(piece.terms())
        try:
            applied = self.machine.apply(first, list(zip(terms, piece.entries, strict=True)))
        except DiskFullError as error:
            if not self._apply_at:
                self.on_fact(Fact("disk full", {"error": str(error)}))
            self._state_full, self._apply_at = True, now + _FULL_PAUSE_SECONDS
            return None
        self._apply_at = 0.0
        self._step(events.Applied(piece.last), now)
        self._currency.note(self.machine.applied, *self.raft.vouched(now))
        return AppliedBatch(applied, terms, sum(map(len, piece.entries)))

    def _slice_at(self, first: Index, last: Index) -> LogSlice | None:
        """Entries to apply, from memory or, after a restart, from disk."""
        log = self.raft.replica.log
        if first >= log.first:
            self._replayed = None
            return log.slice(first, last - first + 1, _REPLAY_BYTES, last)
        piece, self._replayed = self._replayed, None
        if piece is None or piece.first != first:
            self._replaying = True
            self._writer.submit(ReadLog(self.raft.replica.me, 0, first, _REPLAY_BYTES))
            return None
        if piece.last <= last:
            return piece
        return LogSlice(first, piece.entries[: last - first + 1], tuple(run for run in piece.runs if run[0] <= last))

    # --- compaction ---------------------------------------------------------------------------------------------------

    def compact(self, up_to: Index, now: float) -> None:
        """Drop the log up to this index, which the state holds durably. The core may decide on less."""
        index = self._step(events.CompactionAsked(up_to), now).compact
        if index:
            at, configuration = self.raft.replica.configuration_at(index)
            term = self.raft.replica.log.term(index)
            if configuration is not None and term is not None:
                base = Base(index, term, 0, configuration, at, self.state_file)
                self._compacting = True
                self._writer.submit(CompactLog(base))

    def _change_over(self, state_file: str, machine: Machine) -> None:
        """The snapshot's file is the state, durably named so by a log that it has replaced, or that has stayed."""
        now = self._clock()
        snapshot = self._installing or self.refill.adopting
        invariant(snapshot is not None, "a snapshot was installed that nobody asked for", state_file=state_file)
        if snapshot is None:
            return
        self.machine.close()
        self.machine = machine
        invariant(self.machine.applied == snapshot.index, "snapshot and state differ", applied=self.machine.applied)
        self.state_file = state_file
        self._replayed, self._replaying = None, False
        self._state_full, self._apply_at = False, 0.0
        self.committed = max(self.committed, snapshot.index)
        self.observed.snapshots_installed += 1
        replaced, self._installing = self._installing is not None, None
        self.refill.done()
        self._step(events.SnapshotInstalled(snapshot) if replaced else events.StateRestored(snapshot.index), now)
        self.on_machine()

    # --- a state that is lost -----------------------------------------------------------------------------------------

    def lose_state(self, reason: str, now: float) -> None:
        """The state is damaged: nothing is answered from it any more, its file is kept aside, and another one asked for.

        Raises: DamagedError if there is no other server to get it from.
        """
        if not self.has_state:
            return
        if not others_of(self.configuration, self.raft.replica.me):
            raise DamagedError(f"the state file {self.state_file} is damaged ({reason}): restore a backup of it")
        self.machine.close()
        self._snapshots.set_aside(self.state_file)
        self.machine = Machine.open(":memory:")  # an empty one, from which nothing is answered
        self.refill.lost = True
        self._currency = Currency()
        self._tell_lost(reason, now)
        self.on_machine()

    def _tell_lost(self, reason: str, now: float) -> None:
        self.observed.states_lost += 1
        self.on_fact(Fact("state lost", {"reason": reason, "base": self.raft.replica.log.base_index}))
        self._step(events.StateLost(), now)

    # --- what must be done --------------------------------------------------------------------------------------------

    def _step(self, event: events.Event, now: float) -> Output:
        out = self.raft.step(event, now)
        self._do(out, now)
        return out

    def _do(self, out: Output, now: float) -> None:
        """The duties, in their order."""
        if out.write is not None:
            self._submitted = out.write.sequence
            self._writer.submit(out.write)
        if out.install_snapshot is not None:
            self._install(out.install_snapshot)
        for message in out.messages_now:
            self._send(message)
        if out.messages_after_persist:
            self._after_persist.append((self._submitted, out.messages_after_persist))
            self._release()
        if out.committed:
            self.committed = max(self.committed, out.committed)
        self.next_deadline = out.next_deadline
        self._do_rarely(out, now)

    def _do_rarely(self, out: Output, now: float) -> None:
        for request in out.read_entries:
            self._writer.submit(ReadLog(request.peer, request.session, request.first, request.max_bytes))
        for peer in out.stop_snapshot:
            self._snapshots.stop(peer)
        for order in out.send_snapshot:
            self._snapshots.send(order, now)
        if out.expect_snapshot is not None:
            self._snapshots.expect(*out.expect_snapshot, now)
        if out.reads_ready:
            self.on_reads(out.reads_ready)
        for fact in out.facts:
            self.observed.count(fact)
            self.on_fact(fact)
        if out.configuration_changed:
            self.on_configuration()
        if out.leadership_changed:
            self.on_leadership()

    def _install(self, snapshot: SnapshotMeta) -> None:
        """From here to `_installed` the state stands still."""
        self._installing = snapshot
        state_file = self._snapshots.adopt(snapshot)
        self._writer.submit(
            InstallBase(
                Base(
                    snapshot.index,
                    snapshot.term,
                    snapshot.chain,
                    snapshot.configuration,
                    snapshot.configuration_index,
                    state_file,
                )
            )
        )

    def _release(self) -> None:
        """Messages whose writes are durable leave; those of an older term have lost their meaning (rule 97)."""
        term = self.raft.replica.term
        while self._after_persist and self._after_persist[0][0] <= self._persisted:
            for message in self._after_persist.popleft()[1]:
                if message.term >= term:
                    self._send(message)

    def _send(self, message: RaftMessage) -> None:
        if not self._links.send(message):
            self.observed.dropped += 1
            self._lost.add(message.receiver)

    # --- what others read off -----------------------------------------------------------------------------------------

    @property
    def leading(self) -> bool:
        return self.raft.replica.leading is not None

    @property
    def ready(self) -> bool:
        """Leads, and has applied the entry with which it took office: its state knows all that was ever acknowledged."""
        leading = self.raft.replica.leading
        return leading is not None and self.machine.applied >= leading.term_start

    @property
    def disk_full(self) -> bool:
        """Writes are refused until there is space again."""
        return self._log_full or bool(self._apply_at)

    @property
    def configuration(self) -> Configuration | None:
        return self.raft.replica.configuration

    @property
    def has_state(self) -> bool:
        """False while the state is being replaced, or damaged."""
        return self._installing is None and not self.refill.lost

    @property
    def taking_state(self) -> bool:
        """A received snapshot is about to become the state."""
        return self._installing is not None or self.refill.adopting is not None

    def lease_still_valid(self) -> bool:
        """To be asked after a value was produced: producing it took time (rule 60)."""
        return self.raft.lease_valid(self._clock())

    def age(self, now: float) -> float | None:
        """Seconds since the state certainly held all that was committed (rule 63); None: it never did."""
        if self.refill.lost:
            return None
        self._currency.note(self.machine.applied, *self.raft.vouched(now))
        return self._currency.age(now)
