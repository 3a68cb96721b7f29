"""Changes of the configuration (thesis 4): pure functions that make the next one, and the leader's part in getting there.

A server joins as a learner in one plain step. Every change of the voter set goes through a joint configuration, single
changes too: one path, and never two disjoint majorities. The leader that finds the joint configuration committed, be it the
one that began it or a later one, appends its end (rule 67). A voter that is removed is a learner during the joint phase
(rule 69). At most one change is under way, and none before the leader has committed in its term (rule 65).
"""

import msgspec

from coordd.messages.entry import encode_configuration
from coordd.raft import replication
from coordd.raft.events import AddServer, Change, ChangeRequested, Founded, MoveServer, PromoteServer, RemoveServer
from coordd.raft.output import Accepted, Refusal
from coordd.raft.quorum import has_quorum
from coordd.raft.replica import Leadership, Replica
from coordd.types import Configuration, Member, ServerId

__all__ = ["begin_promotion", "changed", "consider_promotions", "end_joint", "finish_joint", "found", "request"]


# --- the next configuration, pure -------------------------------------------------------------------------------------


def changed(configuration: Configuration, change: Change) -> Configuration | Refusal:
    """The configuration that begins this change."""
    match change:
        case AddServer(member=member, replaces=replaces):
            return _with_learner(configuration, member, replaces)
        case RemoveServer(server=server):
            return _without(configuration, server)
        case MoveServer():
            return _elsewhere(configuration, change)
        case PromoteServer(server=server):  # pragma: no branch - mypy proves that there is no other kind
            return _marked_for_promotion(configuration, server)


def _marked_for_promotion(configuration: Configuration, server: ServerId) -> Configuration | Refusal:
    member = configuration.member(server)
    if member is None:
        return Refusal.UNKNOWN_SERVER
    if member.voter:
        return Refusal.ALREADY_MEMBER
    return _replacing(configuration, msgspec.structs.replace(member, promote=True))


def _elsewhere(configuration: Configuration, change: MoveServer) -> Configuration | Refusal:
    member = configuration.member(change.server)
    if member is None:
        return Refusal.UNKNOWN_SERVER
    addresses = {"raft_address": change.raft_address, "client_address": change.client_address}
    return _replacing(configuration, msgspec.structs.replace(member, **addresses))


def _with_learner(configuration: Configuration, member: Member, replaces: ServerId | None) -> Configuration | Refusal:
    same = [m for m in configuration.members if m.id == member.id or (m.name == member.name and m.id != replaces)]
    if same:
        return Refusal.ALREADY_MEMBER
    old = configuration.member(replaces) if replaces else None
    if replaces and old is None:
        return Refusal.UNKNOWN_SERVER
    learner = msgspec.structs.replace(member, voter=False, replaces=replaces if old and old.voter else None)
    stay = [m for m in configuration.members if old is None or old.voter or m.id != old.id]
    return _with_members(configuration, [*stay, learner])


def _without(configuration: Configuration, server: ServerId) -> Configuration | Refusal:
    member = configuration.member(server)
    if member is None:
        return Refusal.UNKNOWN_SERVER
    if not member.voter:
        return _with_members(configuration, [m for m in configuration.members if m.id != server])
    if len(configuration.voters) == 1:
        return Refusal.LAST_VOTER
    demoted = _replacing(configuration, msgspec.structs.replace(member, voter=False))
    return msgspec.structs.replace(demoted, outgoing=configuration.voters, leaving=(server,))


def begin_promotion(configuration: Configuration, server: ServerId) -> Configuration:
    """Joint: the learner votes from now on, and whom it replaces is leaving."""
    member = configuration.member(server)
    if member is None:
        return configuration
    leaving = (member.replaces,) if member.replaces and configuration.member(member.replaces) else ()
    promoted = msgspec.structs.replace(member, voter=True, promote=False, replaces=None)
    members = [
        promoted if m.id == server else msgspec.structs.replace(m, voter=False) if m.id in leaving else m
        for m in configuration.members
    ]
    joint = _with_members(configuration, members)
    return msgspec.structs.replace(joint, outgoing=configuration.voters, leaving=leaving)


def end_joint(configuration: Configuration) -> Configuration:
    members = [m for m in configuration.members if m.id not in configuration.leaving]
    return msgspec.structs.replace(_with_members(configuration, members), outgoing=(), leaving=())


def _replacing(configuration: Configuration, member: Member) -> Configuration:
    return _with_members(configuration, [member if m.id == member.id else m for m in configuration.members])


def _with_members(configuration: Configuration, members: list[Member]) -> Configuration:
    return msgspec.structs.replace(configuration, members=tuple(sorted(members, key=lambda m: m.id)))


# --- the leader's part ------------------------------------------------------------------------------------------------


def found(r: Replica, event: Founded, now: float) -> Accepted | Refusal:
    """Entry 1 of a new cluster, at term 1; then campaign at once. An empty server never gets a configuration otherwise
    than from here or from a leader (rule 77)."""
    if r.log.last or r.term:
        return Refusal.HAS_LOG
    r.term = 1
    first = r.log.append(1, [encode_configuration(event.configuration)])
    r.push_configuration(first, event.configuration)
    r.election_due = now
    r.fact("founded", cluster=event.configuration.cluster_id)
    return Accepted(first, 1, r.term)


def request(r: Replica, event: ChangeRequested, now: float) -> Accepted | Refusal:
    """Begin the change an operator asked for, or say why not."""
    leading, configuration = r.leading, r.configuration
    if leading is None or configuration is None:
        return Refusal.NOT_LEADER
    refusal = _not_now(r, leading, configuration)
    if refusal is not None:
        return refusal
    new = changed(configuration, event.change)
    if isinstance(new, Refusal):
        return new
    moved = event.change.server if isinstance(event.change, MoveServer) else None
    matters = new.voters != configuration.voters or moved in new.voters
    if matters and not event.force and not _healthy_quorum(r, leading, new, now, moved):
        return Refusal.UNHEARD if _unheard(r, leading, new, now) else Refusal.WOULD_LOSE_QUORUM
    return _append(r, leading, new, now)


def _not_now(r: Replica, leading: Leadership, configuration: Configuration) -> Refusal | None:
    if leading.transfer is not None:
        return Refusal.TRANSFERRING
    if r.log.commit < leading.term_start:
        return Refusal.NOT_READY
    if r.configuration_index > r.log.commit or configuration.joint:
        return Refusal.CHANGE_PENDING
    return None


def _healthy_quorum(
    r: Replica, leading: Leadership, new: Configuration, now: float, moved: ServerId | None = None
) -> bool:
    """Also if `moved` can't be reached at its new address, by a slip of the pen; a single server needs nobody's reach. Of
    the quorum one at least must have a state, or nobody could lead, nor give the others theirs."""
    if new.voters == (moved,):
        return True
    healthy = [s for s in new.voters if s != moved and (s == r.me or _heard(r, leading, s, now))]
    return has_quorum((new.voters,), healthy.__contains__) and any(
        s == r.me or not leading.peers[s].stateless for s in healthy
    )


def _heard(r: Replica, leading: Leadership, server: ServerId, now: float) -> bool:
    progress = leading.peers.get(server)
    if progress is None or progress.refilling:
        return False
    return progress.boot != 0 and now - progress.contact < r.election_timeout


def _unheard(r: Replica, leading: Leadership, new: Configuration, now: float) -> bool:
    """Some voter had no time yet to answer this leader: whether it is healthy will be known soon."""
    tracked = [leading.peers[voter] for voter in new.voters if voter != r.me]
    return any(progress.boot == 0 and now - progress.contact < r.election_timeout for progress in tracked)


def _append(r: Replica, leading: Leadership, new: Configuration, now: float) -> Accepted:
    first = replication.append(r, leading, [encode_configuration(new)])
    replication.track_members(r, leading, now)
    r.fact("configuration", index=first, voters=new.voters, outgoing=new.outgoing)
    return Accepted(first, 1, r.term)


def finish_joint(r: Replica, leading: Leadership, now: float) -> None:
    """The commit index moved: a committed joint configuration is ended by whoever leads."""
    configuration = r.configuration
    if configuration is not None and configuration.joint and r.configuration_index <= r.log.commit:
        _append(r, leading, end_joint(configuration), now)


def consider_promotions(r: Replica, leading: Leadership, now: float) -> None:
    """Make a voter of a learner that has caught up, is heard, and would not cost the new configuration its quorum (71)."""
    configuration = r.configuration
    if configuration is None or _not_now(r, leading, configuration) is not None:
        return
    for member in configuration.members:
        if not member.promote or not _heard(r, leading, member.id, now) or not leading.peers[member.id].caught_up:
            continue
        new = begin_promotion(configuration, member.id)
        if _healthy_quorum(r, leading, new, now):
            _append(r, leading, new, now)
            return
