"""Leader election (thesis 3.4) with pre-vote (9.6), check-quorum stickiness (4.2.3) and campaigns by order (3.10).

A follower that misses its leader first asks whether it would be elected, without changing any term. Whoever still hears a
leader is deaf to such questions, so that neither a returning nor a removed server can depose a leader that works.
"""

from coordd.messages.peer import RequestVote, TimeoutNow, VoteResponse
from coordd.raft import leadership
from coordd.raft.output import Role
from coordd.raft.quorum import VoteResult, count_votes
from coordd.raft.replica import Replica
from coordd.types import Term

__all__ = ["handle_request", "handle_response", "handle_timeout_now", "is_deaf", "own_vote_durable", "reject", "tick"]


def tick(r: Replica, now: float) -> None:
    """No leader for too long: campaign, if this server may."""
    if now < r.election_due:
        return
    r.reset_election(now)
    if r.role is Role.CANDIDATE and r.persisted < r.sequence:
        return  # nobody was asked yet: the disk has not taken the vote, and a newer term would only wait behind it
    if _promotable(r):
        _ask_ahead(r, now)


def _promotable(r: Replica) -> bool:
    """Learners don't campaign (rule 26), nor who is being refilled or has no state to answer from (rules 28, 111)."""
    return r.is_voter and not r.installing and not r.refilling and not r.stateless


def _ask_ahead(r: Replica, now: float) -> None:
    """Pre-vote: the term to come is named, the own one stays (rule 18)."""
    r.transfer_campaign = False  # an order to campaign is good for one try
    r.change_role(Role.PRE_CANDIDATE, None)
    r.votes[r.me] = True
    _ask_all(r, r.term + 1, pre=True)
    _decide(r, now)


def _campaign(r: Replica, now: float) -> None:
    r.term += 1
    r.vote = r.me
    r.change_role(Role.CANDIDATE, None)
    r.reset_election(now)
    r.asked_at = now
    _ask_all(r, r.term, pre=False)


def _ask_all(r: Replica, term: Term, *, pre: bool) -> None:
    """A real request leaves once own term, vote and the log it boasts of are durable (rule 109)."""
    send = r.send if pre else r.send_after_persist
    for server in sorted({server for half in r.halves for server in half if server != r.me}):
        send(RequestVote(term, r.me, server, r.log.last, r.log.last_term, pre, r.transfer_campaign))


def own_vote_durable(r: Replica, now: float) -> None:
    """The vote for ourselves counts like any other: only when it can't be forgotten (rule 2). A candidate writes nothing
    after it."""
    if r.role is Role.CANDIDATE and r.persisted >= r.sequence and r.me not in r.votes:
        r.votes[r.me] = True
        _decide(r, now)


def handle_timeout_now(r: Replica, message: TimeoutNow, now: float) -> None:
    """The leader chose this server: campaign at once, without asking ahead (rule 88)."""
    if r.role is Role.FOLLOWER and r.leader == message.sender and _promotable(r):
        r.transfer_campaign = True
        _campaign(r, now)


def is_deaf(r: Replica, message: RequestVote, now: float) -> bool:
    """Whoever heard a leader less than its election timeout ago gives no vote (rule 25), unless the leader itself asks or
    ordered it (24, 88). It is a promise in time, on which the leader's lease rests: it holds whatever was learned since of
    terms and leaders, and for one election timeout after a restart, which may have forgotten it (61)."""
    if message.transfer:
        return False
    if now < r.deaf_until or r.role is Role.LEADER:
        return True
    return r.last_leader != message.sender and now < r.leader_contact + r.timing.deaf_for


def handle_request(r: Replica, message: RequestVote, now: float) -> None:
    """Judge a candidate. For a real vote the core has adopted its term before."""
    repeated = not message.pre and r.vote == message.sender  # promises nothing new
    able = not r.refilling and (repeated or not is_deaf(r, message, now))
    granted = able and _may_vote(r, message) and _up_to_date(r, message)
    if not granted:
        reject(r, message)
        return
    if not message.pre:
        r.vote = message.sender
        r.reset_election(now)
    r.send_after_persist(VoteResponse(message.term, r.me, message.sender, True, message.pre))


def _may_vote(r: Replica, message: RequestVote) -> bool:
    """One vote a term; the same candidate gets it again, since the answer may have been lost (rule 15)."""
    if message.pre and message.term > r.term:
        return True
    return r.vote == message.sender or (r.vote is None and r.leader is None)


def _up_to_date(r: Replica, message: RequestVote) -> bool:
    """Dictionary order of (last term, last index) (rule 14)."""
    return (message.last_term, message.last_index) >= (r.log.last_term, r.log.last)


def reject(r: Replica, message: RequestVote) -> None:
    """Never silently: the own term frees a candidate that is stuck behind (rule 22)."""
    r.send_after_persist(VoteResponse(r.term, r.me, message.sender, False, message.pre))


def handle_response(r: Replica, message: VoteResponse, now: float) -> None:
    """Count a vote, if it answers this very campaign: pre-votes and votes are never mixed (rule 19)."""
    if r.role is Role.PRE_CANDIDATE and message.granted and not message.pre and r.vote == r.me:
        r.timing.late_vote(now - r.asked_at)
    asked = {Role.PRE_CANDIDATE: True, Role.CANDIDATE: False}.get(r.role)
    expected_term = r.term + 1 if message.pre and message.granted else r.term
    if asked is None or message.pre is not asked or message.term != expected_term:
        return
    r.votes[message.sender] = message.granted
    _decide(r, now)


def _decide(r: Replica, now: float) -> None:
    result = count_votes(r.halves, r.votes)
    if result is VoteResult.LOST or (result is VoteResult.WON and (r.installing or r.stateless)):
        r.follow(
            r.term, None, now
        )  # a leader's log is not replaced under its feet, and it needs a state to answer from
    elif result is VoteResult.WON and r.role is Role.PRE_CANDIDATE:
        _campaign(r, now)
    elif result is VoteResult.WON:
        leadership.lead(r, now)
