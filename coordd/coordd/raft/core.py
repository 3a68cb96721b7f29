"""The consensus core: `step(event, now) -> Output`. Pure: no clock, no disk, no network, no chance but the given `Rng`.

This module only routes: each event to the part of the algorithm it concerns, each message through the table of terms
(docs/rules.md, "Messages by term") first. What the driver owes the core is told in `output.py`.
"""

from collections.abc import Callable
from typing import Any

from coordd.errors import invariant
from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    RaftMessage,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from coordd.raft import election, events, leadership, membership, reads, replication, snapshots
from coordd.raft.log import RaftLog
from coordd.raft.output import Output, Role
from coordd.raft.progress import ProgressState
from coordd.raft.quorum import halves_of
from coordd.raft.replica import Replica, Rng
from coordd.raft.settings import RaftSettings
from coordd.types import HardState, Index

__all__ = ["Raft"]


class Raft:
    """One server's consensus core. The first event must be `Restarted`. `replica` may be read by the driver, not written."""

    def __init__(self, settings: RaftSettings, rng: Rng) -> None:
        self.replica = Replica(settings, rng)
        self._events: dict[type, Callable[[Any, float], None]] = {
            events.Received: self._received,
            events.Proposed: self._proposed,
            events.Persisted: self._persisted,
            events.Applied: self._applied,
            events.Ticked: self._ticked,
            events.ReadRequested: lambda event, now: reads.request(self.replica, event, now),
            events.EntriesRead: lambda event, now: replication.entries_read(self.replica, event, now),
            events.CompactionAsked: lambda event, now: snapshots.asked(self.replica, event),
            events.Compacted: lambda event, now: snapshots.compacted(self.replica, event),
            events.SnapshotSent: lambda event, now: snapshots.sent(self.replica, event),
            events.SnapshotFailed: lambda event, now: snapshots.failed(self.replica, event),
            events.SnapshotReceived: lambda event, now: snapshots.received(self.replica, event),
            events.SnapshotInstalled: lambda event, now: snapshots.installed(self.replica, event),
            events.StateLost: self._state_lost,
            events.StateRestored: self._state_restored,
            events.PeerConnected: self._peer_connected,
            events.PeerUnreachable: self._peer_unreachable,
            events.ChangeRequested: self._change_requested,
            events.TransferRequested: self._transfer_requested,
            events.Founded: self._founded,
            events.Restarted: self._restarted,
        }
        self._messages: dict[type, Callable[[Any, float], None]] = {
            AppendEntries: lambda m, now: replication.handle_append(self.replica, m, now),
            AppendResponse: lambda m, now: replication.handle_append_response(self.replica, m, now),
            Heartbeat: lambda m, now: replication.handle_heartbeat(self.replica, m, now),
            HeartbeatResponse: lambda m, now: replication.handle_heartbeat_response(self.replica, m, now),
            RequestVote: lambda m, now: election.handle_request(self.replica, m, now),
            VoteResponse: lambda m, now: election.handle_response(self.replica, m, now),
            InstallSnapshot: lambda m, now: snapshots.handle_install(self.replica, m, now),
            TimeoutNow: lambda m, now: election.handle_timeout_now(self.replica, m, now),
            ReadIndexRequest: lambda m, now: reads.handle_request(self.replica, m),
            ReadIndexResponse: lambda m, now: reads.handle_response(self.replica, m),
        }

    def step(self, event: events.Event, now: float) -> Output:
        """Take one event at monotonic time `now` (seconds, never falling) and say what must be done.

        Raises: InvariantError if the server's own data contradict each other; the process must then end.
        """
        r = self.replica
        r.out = out = Output()
        self._events[type(event)](event, now)
        leadership.settle(r, now)
        r.write_out(now)
        r.report_committed()
        out.next_deadline = self._next_deadline()
        return out

    def lease_valid(self, now: float) -> bool:
        """See `reads.lease_valid`."""
        return reads.lease_valid(self.replica, now)

    def vouched(self, now: float) -> tuple[Index, float]:
        """See `reads.vouched`."""
        return reads.vouched(self.replica, now)

    def _next_deadline(self) -> float:
        r = self.replica
        if r.leading is not None:
            return min(r.leading.heartbeat_due, r.leading.housekeeping_due)
        if r.forwarded:
            _, oldest = next(iter(r.forwarded.values()))
            return min(r.election_due, oldest + r.election_timeout)
        return r.election_due

    # --- events -------------------------------------------------------------------------------------------------------

    def _restarted(self, event: events.Restarted, now: float) -> None:
        r = self.replica
        r.me, r.boot = event.me, event.boot
        r.forwarded_number = event.boot << 32
        r.term, r.vote = event.hard_state.term, event.hard_state.vote
        r.saved = HardState(r.term, r.vote, event.hard_state.commit)
        r.log = RaftLog(event.tail, event.tail_previous_term, event.base.index, event.base.term, event.earlier_runs)
        # The state may be ahead of a log that forgot its end; nothing behind the log's end is called committed.
        r.log.commit = min(max(event.base.index, event.applied, event.hard_state.commit), r.log.last)
        r.log.applied = r.reported = event.applied
        # Forgotten is only what the log lacks now: a later leader may rightly shorten a log that was whole at the start.
        promised = max(event.promised, event.applied)
        r.promised = promised if promised > r.log.last else 0
        invariant(event.tail.first <= r.log.commit + 1, "the tail does not reach back to the commit index")
        if event.base.configuration is not None:
            r.configurations = [(event.base.configuration_index, event.base.configuration)]
        r.configurations += event.configurations
        r.configurations_moved()
        r.reset_election(now)
        if event.boot > 1 or r.term > 0:  # an earlier life may have answered a heartbeat before its term was durable
            r.deaf_until = now + r.settings.election_timeout
        if r.configurations and all(halves_of(known) == ((r.me,),) for _, known in r.configurations):
            r.election_due = now  # a cluster that was never of more than one has nobody to wait for
        r.fact("restarted", last=r.log.last, applied=event.applied, promised=event.promised)

    def _ticked(self, event: events.Ticked, now: float) -> None:
        r = self.replica
        r.stalled = event.disk_stalled
        if r.leading is not None:
            leadership.tick(r, r.leading, now)
        else:
            reads.expire_forwarded(r, now)
            election.tick(r, now)

    def _proposed(self, event: events.Proposed, now: float) -> None:
        self.replica.out.proposal = leadership.propose(self.replica, event)

    def _persisted(self, event: events.Persisted, now: float) -> None:
        r = self.replica
        r.persisted = event.sequence
        r.timing.durable(event.sequence, now)
        r.log.persisted(event.sequence)
        r.refilled()
        r.recount = True
        election.own_vote_durable(r, now)

    def _applied(self, event: events.Applied, now: float) -> None:
        log = self.replica.log
        log.applied = max(log.applied, event.index)
        log.evict(self.replica.settings.memory_tail_bytes)

    def _state_lost(self, event: events.StateLost, now: float) -> None:
        """A leader hands over; if nobody can take over it steps down when it next keeps house."""
        self.replica.stateless = True
        leadership.transfer(self.replica, events.TransferRequested(), now)

    def _state_restored(self, event: events.StateRestored, now: float) -> None:
        """What a leader has applied is committed."""
        r = self.replica
        invariant(event.index <= r.log.durable, "a state beyond the own log", index=event.index)
        r.stateless = False
        r.log.commit = max(r.log.commit, event.index)
        r.log.applied = max(r.log.applied, event.index)

    def _change_requested(self, event: events.ChangeRequested, now: float) -> None:
        self.replica.out.change = membership.request(self.replica, event, now)

    def _founded(self, event: events.Founded, now: float) -> None:
        self.replica.out.change = membership.found(self.replica, event, now)

    def _transfer_requested(self, event: events.TransferRequested, now: float) -> None:
        self.replica.out.transfer = leadership.transfer(self.replica, event, now)

    def _peer_unreachable(self, event: events.PeerUnreachable, now: float) -> None:
        """What was streamed to it is probably lost: ask where it stands instead of streaming on."""
        leading = self.replica.leading
        progress = leading.peers.get(event.peer) if leading else None
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.probe()
            progress.probe_sent = True

    def _peer_connected(self, event: events.PeerConnected, now: float) -> None:
        leading = self.replica.leading
        progress = leading.peers.get(event.peer) if leading else None
        if progress is not None and progress.state is ProgressState.PROBE:
            progress.probe_sent = False

    # --- messages -----------------------------------------------------------------------------------------------------

    def _received(self, event: events.Received, now: float) -> None:
        """The table of terms (docs/rules.md, "Messages by term"), then the message's own handler."""
        r = self.replica
        message = event.message
        if message.receiver != r.me:
            return
        if message.term > r.term and not self._meet_newer_term(message, now):
            return
        if message.term < r.term:
            self._answer_older_term(message)
            return
        self._messages[type(message)](message, now)

    def _meet_newer_term(self, message: RaftMessage, now: float) -> bool:
        """Adopt the term where the sender proves or claims it rightly. False: the message is to be ignored."""
        r = self.replica
        match message:
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                r.follow(message.term, message.sender, now)
            case RequestVote():
                if election.is_deaf(r, message, now):
                    return False
                if not message.pre:
                    r.follow(message.term, None, now)
            case VoteResponse(pre=True, granted=True):
                pass  # it names the term asked about, which nobody has yet
            case TimeoutNow():
                return False
            case _:
                r.follow(message.term, None, now)
        return True

    def _answer_older_term(self, message: RaftMessage) -> None:
        """Never silent to a leader or candidate that is behind: it would be stuck for good (rule 22)."""
        r = self.replica
        match message:
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                r.send_after_persist(HeartbeatResponse(r.term, r.me, message.sender, message.session, r.boot, 0))
            case RequestVote():
                election.reject(r, message)
            case _:
                pass

    @property
    def role(self) -> Role:
        return self.replica.role
