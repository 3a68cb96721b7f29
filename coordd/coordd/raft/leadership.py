"""Being the leader: taking office, the heartbeat tick, deciding what is committed, handing over.

Everything a leader has lives in `Replica.leading` and ends with it.
"""

from coordd.messages.entry import NOOP_ENTRY
from coordd.messages.peer import TimeoutNow
from coordd.raft import membership, priority, reads, replication
from coordd.raft.events import Proposed, TransferRequested
from coordd.raft.output import Accepted, ProposalAnswer, Refusal, Role
from coordd.raft.quorum import agreed, has_quorum
from coordd.raft.replica import Leadership, Replica, Transfer
from coordd.types import Index, ServerId

_APPEND_DEADLINE = 10
"""Election timeouts."""

__all__ = ["advance_commit", "lead", "propose", "settle", "tick", "transfer"]


def lead(r: Replica, now: float) -> None:
    """Won the election: append a no-op at once, since earlier terms' entries commit only below an own one (rule 49)."""
    r.change_role(Role.LEADER, r.me)
    leading = Leadership(term_start=r.log.last + 1, housekeeping_due=now + r.settings.heartbeat_interval)
    leading.uncommitted_bytes = r.log.size_between(r.log.commit + 1, r.log.last)
    r.leading = leading
    r.timing.took_office()
    replication.track_members(r, leading, now)
    replication.track_departed(r, leading, now)
    replication.append(r, leading, [NOOP_ENTRY])
    replication.heartbeat(r, leading, now)


def propose(r: Replica, event: Proposed) -> ProposalAnswer:
    """Append clients' commands, all or none."""
    leading = r.leading
    if leading is None:
        return Refusal.NOT_LEADER
    if leading.transfer is not None:
        return Refusal.TRANSFERRING
    size = sum(map(len, event.entries))
    # An oversized proposal is let in when nothing else waits, or it never would be (rule 45).
    if leading.uncommitted_bytes and leading.uncommitted_bytes + size > r.settings.max_uncommitted_bytes:
        return Refusal.BUSY
    first = replication.append(r, leading, event.entries)
    return Accepted(first, len(event.entries), r.term)


def tick(r: Replica, leading: Leadership, now: float) -> None:
    """Heartbeats, and once an interval everything else that needs a clock."""
    if now >= leading.housekeeping_due:
        leading.housekeeping_due = now + r.settings.heartbeat_interval
        _keep_house(r, leading, now)
    if r.leading is leading and now >= leading.heartbeat_due:
        if r.stalled:
            leading.heartbeat_due = now + r.settings.heartbeat_interval
        else:
            replication.heartbeat(r, leading, now)


def _keep_house(r: Replica, leading: Leadership, now: float) -> None:
    if not has_quorum(r.halves, lambda server: server == r.me or _active(r, leading, server, now)):
        r.fact("lost contact with the quorum")
        r.follow(r.term, None, now)
        return
    if leading.transfer is not None and now >= leading.transfer.deadline:
        r.fact("transfer failed", target=leading.transfer.target)
        leading.transfer = None
    if r.stateless and leading.transfer is None:  # nobody could take over
        r.fact("resigned", successor=None)
        r.follow(r.term, None, now)
        return
    _forget_departed(r, leading, now)
    _give_up_overdue(r, leading, now)
    membership.consider_promotions(r, leading, now)
    successor = priority.preferred(r, leading, now)
    if successor is not None:
        transfer(r, TransferRequested(successor), now)


def _active(r: Replica, leading: Leadership, server: ServerId, now: float) -> bool:
    progress = leading.peers.get(server)
    return progress is not None and now - progress.contact < r.election_timeout


def _forget_departed(r: Replica, leading: Leadership, now: float) -> None:
    for peer, progress in list(leading.peers.items()):
        since = progress.departing_since
        if since is not None and now - since >= r.settings.departing_timeout:
            del leading.peers[peer]
            r.out.stop_snapshot.append(peer)
            r.out.configuration_changed = True


def _give_up_overdue(r: Replica, leading: Leadership, now: float) -> None:
    """A follower that answers heartbeats and not what was sent to it is asked where it stands, not streamed to (rule 47)."""
    for progress in leading.peers.values():
        if progress.window.overdue(now, _APPEND_DEADLINE * r.election_timeout):
            r.fact("append overdue", peer=progress.peer, match=progress.match)
            progress.probe()
            progress.probe_sent = True


# --- commitment -------------------------------------------------------------------------------------------------------


def settle(r: Replica, now: float) -> None:
    """The end of every step of a leader: decide what is committed, then send what the followers may have."""
    leading = r.leading
    if leading is None:
        return
    advance_commit(r, leading, now)
    if r.leading is not leading:
        return
    _continue_transfer(r, leading)
    if reads.wants_round(leading) and not r.stalled:
        replication.heartbeat(r, leading, now)
    replication.flush(r, leading, now)


def advance_commit(r: Replica, leading: Leadership, now: float) -> None:
    """Commit what a quorum holds durably, counting only entries of the own term (thesis 3.6.2, rule 48).

    The leader counts its own disk like anybody's, and not at all when it is no voter (rules 50, 53).
    """
    while r.recount and r.leading is leading:
        r.recount = False
        index = agreed(r.halves, lambda server: _held_by(r, leading, server))
        if index <= r.log.commit or r.log.term(index) != r.term:
            continue
        leading.uncommitted_bytes -= r.log.size_between(r.log.commit + 1, index)
        r.log.commit = index
        reads.committed(r, leading)
        membership.finish_joint(r, leading, now)
        _resign_if_removed(r, leading, now)


def _held_by(r: Replica, leading: Leadership, server: ServerId) -> Index:
    if server == r.me:
        return r.log.durable
    progress = leading.peers.get(server)
    return progress.match if progress is not None and not progress.refilling else 0


def _resign_if_removed(r: Replica, leading: Leadership, now: float) -> None:
    """The configuration without this leader is committed: step down only now, and name a successor (rule 70)."""
    if r.is_voter or r.configuration_index > r.log.commit:
        return
    replication.flush(r, leading, now)  # the followers hear of the commit before they are left alone
    successor = _best_successor(r, leading, now)
    if successor is not None:
        r.send(TimeoutNow(r.term, r.me, successor))
    r.fact("resigned", successor=successor)
    r.follow(r.term, None, now)


# --- handing over -----------------------------------------------------------------------------------------------------


def transfer(r: Replica, event: TransferRequested, now: float) -> ServerId | Refusal:
    """Stop taking proposals, bring the target up to date, tell it to campaign; give up after an election timeout."""
    leading = r.leading
    if leading is None:
        return Refusal.NOT_LEADER
    if leading.transfer is not None:
        return leading.transfer.target if event.target in (None, leading.transfer.target) else Refusal.TRANSFERRING
    target = event.target or _best_successor(r, leading, now)
    if target is None or target == r.me or target not in leading.peers or not all(target in h for h in r.halves):
        return Refusal.NO_TARGET
    leading.transfer = Transfer(target, now + r.election_timeout)
    r.fact("transfer", target=target)
    return target


def _best_successor(r: Replica, leading: Leadership, now: float) -> ServerId | None:
    """Of those that hold what is committed the one of highest priority, else the one that holds most (rule 90)."""
    able = [(p.match >= r.log.commit, p.priority, p.match, p.peer) for p in r.healthy_voters(leading, now)]
    return max(able)[-1] if able else None


def _continue_transfer(r: Replica, leading: Leadership) -> None:
    """The target campaigns only when its log is complete, durably (rule 87). From then on no lease is safe (rule 58)."""
    going = leading.transfer
    if going is None or going.told or r.configuration_index > r.log.commit:
        return  # the end of a membership change may still have to be appended
    progress = leading.peers.get(going.target)
    if progress is None or progress.departing_since is not None:
        leading.transfer = None
    elif progress.match == r.log.last and not progress.refilling and not progress.stateless:
        going.told = True
        leading.lease_forfeited = True
        leading.lease_until = 0.0
        r.send(TimeoutNow(r.term, r.me, going.target))
