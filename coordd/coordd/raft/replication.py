"""Log replication (thesis 3.5, 3.6): what a leader sends and what it makes of the answers; what a follower takes.

Handlers on the leader's side only change state; `flush`, at the end of each step, sends what the followers' progress
then allows. So a batch of proposals leaves in one append for each follower, whatever else the step did.
"""

from coordd.errors import invariant
from coordd.messages.entry import CONFIGURATION, decode_configuration
from coordd.messages.peer import AppendEntries, AppendResponse, Heartbeat, HeartbeatResponse
from coordd.raft import priority, reads, snapshots
from coordd.raft.events import EntriesRead
from coordd.raft.output import ReadEntries
from coordd.raft.progress import Progress, ProgressState
from coordd.raft.replica import Leadership, Replica
from coordd.raft.window import Window
from coordd.types import Index, LogSlice, ServerId, Term

__all__ = [
    "append",
    "entries_read",
    "flush",
    "handle_append",
    "handle_append_response",
    "handle_heartbeat",
    "handle_heartbeat_response",
    "heartbeat",
    "track_departed",
    "track_members",
]


# --- leader -----------------------------------------------------------------------------------------------------------


def append(r: Replica, leading: Leadership, entries: list[bytes]) -> Index:
    """Append the leader's own entries. Configurations among them take effect at once."""
    first = r.log.append(r.term, entries)
    for offset, entry in enumerate(entries):
        if entry[0] == CONFIGURATION:
            r.push_configuration(first + offset, decode_configuration(entry))
    leading.uncommitted_bytes += sum(map(len, entries))
    r.recount = True
    return first


def track_members(r: Replica, leading: Leadership, now: float) -> None:
    """Follow the configuration: begin to replicate to new members, let those who left depart (rules 43, 68)."""
    configuration = r.configuration
    invariant(configuration is not None, "a leader without a configuration")
    members = {m.id for m in configuration.members if m.id != r.me} if configuration else set()
    for peer in sorted(members - leading.peers.keys()):
        _track(r, leading, peer, now)
    for peer, progress in leading.peers.items():
        if peer in members:
            progress.departing_since = None
        elif progress.departing_since is None:
            progress.departing_since = now


def track_departed(r: Replica, leading: Leadership, now: float) -> None:
    """A new leader does not know whether servers that earlier configurations of its log had, and the latest has not, were told
    that they are out: it tells them again (rule 68)."""
    known = {member.id for _, configuration in r.configurations for member in configuration.members}
    for peer in sorted(known - leading.peers.keys() - {r.me}):
        _track(r, leading, peer, now).departing_since = now
        r.out.configuration_changed = True


def _track(r: Replica, leading: Leadership, peer: ServerId, now: float) -> Progress:
    r.sessions += 1
    settings = r.settings
    window = Window(
        settings.min_inflight_messages,
        settings.max_inflight_messages,
        settings.max_inflight_bytes,
        settings.max_append_bytes,
    )
    last = r.log.last
    leading.peers[peer] = progress = Progress(
        peer,
        r.sessions,
        next=last + 1,
        contact=now,
        window=window,
        priority=settings.priority,
        catch_up_target=last,
        catch_up_since=now,
    )
    return progress


def flush(r: Replica, leading: Leadership, now: float) -> None:
    """Send every follower what it may have now. A leader whose disk hangs says nothing (rule 99)."""
    if r.stalled:
        return
    last, commit = r.log.last, r.log.commit
    for progress in leading.peers.values():
        if progress.state is ProgressState.REPLICATE:
            if progress.next <= last:
                _stream(r, progress, now)
            if progress.next > last and progress.commit_sent < min(progress.match, commit):
                _send_append(r, progress, now)
        elif progress.state is ProgressState.PROBE and not progress.probe_sent:
            _send_append(r, progress, now)


def _stream(r: Replica, progress: Progress, now: float) -> None:
    """Send what is new, ahead of acknowledgements, as far as the window goes."""
    while progress.next <= r.log.last:
        if progress.window.full:
            progress.window.hold()
            break
        if not _send_append(r, progress, now):
            break


def _send_append(r: Replica, progress: Progress, now: float) -> bool:
    """One append from `progress.next` on, empty if there is nothing new. False: its entries must be fetched first."""
    log = r.log
    if progress.next < log.first or log.term(progress.next - 1) is None:
        _fetch(r, progress)
        return False
    piece = log.slice(progress.next, r.settings.max_append_entries, r.settings.max_append_bytes)
    _send_slice(r, progress, log.term(progress.next - 1) or 0, piece, now)
    return True


def _send_slice(r: Replica, progress: Progress, previous_term: Term, piece: LogSlice, now: float) -> None:
    commit = r.log.commit
    message = AppendEntries(
        r.term, r.me, progress.peer, progress.session, piece.first - 1, previous_term, commit, piece
    )
    r.send(message)
    progress.commit_sent = min(commit, piece.last)
    if piece.entries or progress.state is ProgressState.PROBE:
        progress.sent(piece.last, sum(map(len, piece.entries)), now)


def _fetch(r: Replica, progress: Progress) -> None:
    """The follower needs entries that are only on disk, or no longer there at all."""
    if progress.next <= r.log.base_index:
        snapshots.send(r, progress)
    elif not progress.reading:
        progress.reading = True
        r.out.read_entries.append(
            ReadEntries(progress.peer, progress.session, progress.next, r.settings.max_append_bytes)
        )


def entries_read(r: Replica, event: EntriesRead, now: float) -> None:
    """Entries came from disk. What was asked for may have become stale meanwhile; then the next flush asks anew."""
    progress = r.leading.peers.get(event.peer) if r.leading else None
    if progress is None or progress.session != event.session:
        return
    progress.reading = False
    piece = event.slice
    if piece is None or progress.state is ProgressState.SNAPSHOT:
        return
    probing = progress.state is ProgressState.PROBE and progress.probe_sent
    stale = probing or piece.first != progress.next
    if not stale and piece.last <= r.log.last:
        _send_slice(r, progress, event.previous_term, piece, now)


def handle_append_response(r: Replica, message: AppendResponse, now: float) -> None:
    progress = _progress_of(r, message.sender, message.session, message.boot, now)
    if progress is None:
        return
    if progress.refilling != message.refilling:
        progress.refilling = message.refilling
        r.recount = True
    if message.rejected is not None:
        _handle_rejection(r, progress, message)
        return
    invariant(message.index <= r.log.last, "follower ahead of its leader", peer=message.sender, index=message.index)
    if progress.acknowledged(message.index, now):
        r.recount = True
    progress.count_round(r.log.last, now, r.election_timeout)
    if progress.state is ProgressState.PROBE or _snapshot_overtaken(r, progress):
        progress.replicate()


def _snapshot_overtaken(r: Replica, progress: Progress) -> bool:
    """It holds enough for the log to go on from there, by whatever snapshot or append it got so far (rule 81)."""
    if progress.state is not ProgressState.SNAPSHOT or progress.match < r.log.base_index:
        return False
    r.out.stop_snapshot.append(progress.peer)
    return True


def _handle_rejection(r: Replica, progress: Progress, message: AppendResponse) -> None:
    """Skip back to the last entry that can agree: our last one with a term not above the hint's (rule 38)."""
    rejected = message.rejected or 0
    stale = (
        progress.state is ProgressState.SNAPSHOT
        or rejected <= progress.match
        or (progress.state is ProgressState.PROBE and rejected != progress.next - 1)
    )
    if stale:
        return
    back_to, _ = r.log.last_at_or_below(min(message.index, progress.next - 1), message.hint_term)
    if progress.state is ProgressState.REPLICATE:
        progress.probe()
    # Never the same place twice: where our own terms are no longer known, the search above may end where it began.
    progress.next = max(progress.match, min(back_to, rejected - 1)) + 1
    progress.probe_sent = False
    r.fact("rejected", peer=progress.peer, at=rejected, next=progress.next)


def heartbeat(r: Replica, leading: Leadership, now: float) -> None:
    """Begin a round: it tells followers of the leader, and its answers confirm reads and the lease (thesis 6.4)."""
    leading.round += 1
    leading.round_sent[leading.round] = now
    leading.heartbeat_due = now + r.settings.heartbeat_interval
    leader_commit, vouched_at = reads.vouched(r, now)
    election_timeout = r.timing.announce(now)
    ranks = priority.ranks(r, leading, now)
    for progress in leading.peers.values():
        commit = min(progress.match, r.log.commit)
        progress.commit_sent = max(progress.commit_sent, commit)
        r.send(
            Heartbeat(
                r.term,
                r.me,
                progress.peer,
                progress.session,
                commit,
                leading.round,
                leader_commit,
                now - vouched_at if leader_commit else 0.0,
                progress.acked_round,
                election_timeout,
                ranks[progress.peer],
                progress.boot,
            )
        )
    reads.round_begun(r, leading, now)


def handle_heartbeat_response(r: Replica, message: HeartbeatResponse, now: float) -> None:
    progress = _progress_of(r, message.sender, message.session, message.boot, now)
    leading = r.leading
    if progress is None or leading is None:
        return
    if message.round > progress.acked_round:
        progress.acked_round, progress.promise = message.round, message.promise
        progress.priority, progress.stateless = message.priority, message.stateless
        reads.round_answered(r, leading, now)
    if r.stalled or progress.state is ProgressState.SNAPSHOT:
        return
    progress.count_round(r.log.last, now, r.election_timeout)
    waiting = progress.probe_sent if progress.state is ProgressState.PROBE else progress.match < r.log.last
    if waiting:
        _nudge(r, progress, now)


def _nudge(r: Replica, progress: Progress, now: float) -> None:
    """All that is in flight may be lost, and then nothing else would tell: an empty append asks (rules 40, 41, 47).

    Empty, since a follower whose disk is slow would otherwise be sent the same entries with every heartbeat.
    """
    previous_term = r.log.term(progress.next - 1)
    if previous_term is None:
        progress.probe()  # compacted meanwhile: begin again where it stands
    else:
        _send_slice(r, progress, previous_term, LogSlice(progress.next, [], ()), now)


def _progress_of(r: Replica, peer: ServerId, session: int, boot: int, now: float) -> Progress | None:
    """The sender's progress, if the answer belongs to this session. An answer is contact; a new boot means a restart."""
    progress = r.leading.peers.get(peer) if r.leading else None
    if progress is None or progress.session != session:
        return None
    progress.contact = now
    if progress.boot not in (0, boot):
        r.fact("peer restarted", peer=peer, match=progress.match)
        at = progress.match
        progress.match = progress.acked_round = 0
        progress.caught_up = False
        progress.probe()
        progress.next = min(at, r.log.last) + 1
        r.out.stop_snapshot.append(peer)
    progress.boot = boot
    return progress


# --- follower ---------------------------------------------------------------------------------------------------------


def handle_append(r: Replica, message: AppendEntries, now: float) -> None:
    r.hear_leader(message.sender, now)
    if r.installing:
        return
    log = r.log
    if message.previous_index < log.commit:
        _acknowledge(r, message, log.commit)  # everything committed is equal everywhere
        return
    if log.term(message.previous_index) != message.previous_term:
        _reject(r, message)
        return
    last_new = message.previous_index + len(message.slice.entries)
    conflict = log.first_conflict(message.slice)
    if conflict is not None:
        _take(r, conflict, message.slice)
    log.commit = max(log.commit, min(message.commit, last_new))
    _acknowledge(r, message, last_new)


def _take(r: Replica, conflict: Index, piece: LogSlice) -> None:
    """Replace from the first conflict on, never from prev + 1: a delayed append must not cut what came later (rule 34)."""
    r.drop_configurations_from(conflict)
    r.log.replace_from(conflict, piece)
    for index in range(conflict, piece.last + 1):
        entry = r.log.entry(index)
        if entry[0] == CONFIGURATION:
            r.push_configuration(index, decode_configuration(entry))


def _acknowledge(r: Replica, message: AppendEntries, index: Index) -> None:
    r.send_after_persist(
        AppendResponse(r.term, r.me, message.sender, message.session, r.boot, index, refilling=r.log.last < r.promised)
    )


def _reject(r: Replica, message: AppendEntries) -> None:
    index, term = r.log.last_at_or_below(message.previous_index, message.previous_term)
    if index < r.log.commit:
        index, term = r.log.commit, message.previous_term
    r.send_after_persist(
        AppendResponse(
            r.term,
            r.me,
            message.sender,
            message.session,
            r.boot,
            index,
            rejected=message.previous_index,
            hint_term=term,
            refilling=r.refilling,
        )
    )


def handle_heartbeat(r: Replica, message: Heartbeat, now: float) -> None:
    r.timing.heard_leader(message.election_timeout)
    r.hear_leader(message.sender, now, message.rank)
    r.freshness.heard(message, r.boot, now)
    # min with last: what this leader saw acknowledged may be gone if the disk lied, and must not become an assertion.
    if not r.installing:
        r.log.commit = max(r.log.commit, min(message.commit, r.log.last))
    r.send(
        HeartbeatResponse(
            r.term,
            r.me,
            message.sender,
            message.session,
            r.boot,
            message.round,
            r.settings.election_timeout,
            r.settings.priority,
            r.stateless,
        )
    )
