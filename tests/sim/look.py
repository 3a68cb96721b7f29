"""What the simulator may see of a core from outside: the one place that knows how the core keeps it."""

from typing import NamedTuple

from coordd.raft.core import Raft
from coordd.raft.output import Role
from coordd.raft.replica import Replica
from coordd.types import Index, ServerId, Term

__all__ = ["Look", "insides", "look"]


class Look(NamedTuple):
    """A core after a step."""

    role: Role
    term: Term
    leader: ServerId | None
    commit: Index
    last: Index


def insides(raft: Raft) -> Replica:
    return raft.replica


def look(raft: Raft) -> Look:
    replica = raft.replica
    log = replica.log
    return Look(replica.role, replica.term, replica.leader, log.commit, log.last)
