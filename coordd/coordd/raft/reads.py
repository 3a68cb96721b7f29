"""Linearizable reads without log entries (thesis 6.4): ReadIndex, batched, and the leader lease.

A read waits for three things: the leader has committed in its term (else it may not know what is committed), a heartbeat
round *begun after* the read was accepted is confirmed by a quorum, and the state has applied the index noted at acceptance.
The last is the driver's part. One round confirms every read accepted before it began, none accepted after (rules 54-57).
"""

from coordd.messages.peer import ReadIndexRequest, ReadIndexResponse
from coordd.raft.events import ReadRequested
from coordd.raft.output import ReadReady
from coordd.raft.quorum import agreed
from coordd.raft.replica import Leadership, PendingRead, Replica
from coordd.types import Index, ServerId

__all__ = [
    "committed",
    "expire_forwarded",
    "handle_request",
    "handle_response",
    "lease_valid",
    "request",
    "round_answered",
    "round_begun",
    "vouched",
    "wants_round",
]


def request(r: Replica, event: ReadRequested, now: float) -> None:
    """A read asked of this server: the leader takes it up, a follower asks its leader (rule 62)."""
    if r.leading is not None:
        _accept(r, r.leading, PendingRead(event.read, None))
    elif r.leader is not None and len(r.forwarded) < r.settings.max_reads:
        r.forwarded_number += 1
        r.forwarded[r.forwarded_number] = (event.read, now)
        r.send(ReadIndexRequest(r.term, r.me, r.leader, r.forwarded_number))
    else:
        r.out.reads_ready.append(ReadReady(event.read, None))


def handle_request(r: Replica, message: ReadIndexRequest) -> None:
    read = PendingRead(message.request, message.sender)
    if r.leading is None:
        _answer(r, read, None)
    else:
        _accept(r, r.leading, read)


def handle_response(r: Replica, message: ReadIndexResponse) -> None:
    found = r.forwarded.pop(message.request, None)
    if found is not None:
        r.out.reads_ready.append(ReadReady(found[0], message.index))


def expire_forwarded(r: Replica, now: float) -> None:
    """The question or the answer was lost: let the asker ask again."""
    for request_number, (read, since) in list(r.forwarded.items()):
        if now < since + r.election_timeout:
            break
        del r.forwarded[request_number]
        r.out.reads_ready.append(ReadReady(read, None))


def _accept(r: Replica, leading: Leadership, read: PendingRead) -> None:
    if len(leading.reads) >= r.settings.max_reads:
        _answer(r, read, None)
        return
    if r.log.commit >= leading.term_start:
        read.index = r.log.commit
    leading.reads.append(read)


def committed(r: Replica, leading: Leadership) -> None:
    """An entry of this term was committed: reads that came before the first such commit can now be given their index."""
    for read in reversed(leading.reads):
        if read.index:
            break
        read.index = r.log.commit


def wants_round(leading: Leadership) -> bool:
    """Reads wait, and no round is under way on whose answers they could not count anyhow."""
    return bool(leading.reads) and leading.reads[0].index > 0 and leading.reads[0].round == 0


def round_begun(r: Replica, leading: Leadership, now: float) -> None:
    """Every accepted read that has its index joins the round that has just been sent."""
    for read in reversed(leading.reads):
        if read.round:
            break
        if read.index:
            read.round = leading.round
    round_answered(r, leading, now)


def round_answered(r: Replica, leading: Leadership, now: float) -> None:
    """A quorum's answers to a round prove that nobody else led when it was sent: answer reads, extend the lease."""

    def answered(server: ServerId) -> int:
        if server == r.me:
            return leading.round
        progress = leading.peers.get(server)
        return progress.acked_round if progress else 0

    confirmed = agreed(r.halves, answered)
    if confirmed <= leading.confirmed_round:
        return
    leading.confirmed_round = confirmed
    sent = leading.round_sent[confirmed]
    leading.confirmed_at = sent
    r.timing.confirmed(now - sent, now)
    leading.round_sent = {number: at for number, at in leading.round_sent.items() if number > confirmed}
    if not leading.lease_forfeited:
        leading.lease_until = sent + r.settings.lease_duration * _promised_share(r, leading, confirmed)
    _release(r, leading)


def _promised_share(r: Replica, leading: Leadership, confirmed: int) -> float:
    """A lease is as long as the settings say, or in proportion shorter if one of those who answered promises less: servers may
    have different settings, while an operator changes them (rule 59)."""
    floor = r.settings.election_timeout
    promises = [p.promise for p in leading.peers.values() if p.acked_round >= confirmed]
    return min([floor, *promises]) / floor


def _release(r: Replica, leading: Leadership) -> None:
    done = 0
    for read in leading.reads:
        if not 0 < read.round <= leading.confirmed_round:
            break
        done += 1
        _answer(r, read, read.index)
    del leading.reads[:done]


def _answer(r: Replica, read: PendingRead, index: int | None) -> None:
    if read.asker is None:
        r.out.reads_ready.append(ReadReady(read.read, index))
    else:
        r.send(ReadIndexResponse(r.term, r.me, read.asker, read.read, index))


def lease_valid(r: Replica, now: float) -> bool:
    """Whether surely nobody else leads at this moment. To be asked again *after* a value was produced (rule 60).

    The value must come from a state that has applied the commit index of the moment at which the read came: a follower may
    have applied, and shown, what this server has only committed. Counted from the sending of a confirmed round, and never
    again in a term once TimeoutNow was sent (58, 59).
    """
    leading = r.leading
    return (
        leading is not None
        and r.log.commit >= leading.term_start
        and leading.transfer is None
        and not leading.lease_forfeited
        and now < leading.lease_until
    )


def vouched(r: Replica, now: float) -> tuple[Index, float]:
    """(commit index, a time): what was committed anywhere before that time is not above that index (rule 63). A leader
    knows by its lease or by the newest round that was confirmed, anybody else by what its leader told. (0, …): unknown."""
    leading = r.leading
    if leading is None or r.log.commit < leading.term_start:
        return r.freshness.commit, r.freshness.at
    if lease_valid(r, now):
        return r.log.commit, now
    return r.log.commit, leading.confirmed_at
