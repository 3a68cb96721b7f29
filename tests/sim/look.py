"""What the simulator may see of a core from outside: the one place that knows how the core keeps it."""

from collections.abc import Collection
from typing import NamedTuple

from coordd.raft.core import Raft
from coordd.raft.output import Role
from coordd.raft.progress import Progress
from coordd.types import Index, ServerId, Term

__all__ = ["Look", "look"]


class Look(NamedTuple):
    """A core after a step."""

    role: Role
    term: Term
    leader: ServerId | None
    commit: Index
    last: Index
    durable: Index
    """What it believes its disk to have."""
    peers: Collection[Progress]
    """A leader's followers, as it sees them."""
    installing: bool = False
    """A snapshot takes the place of its log, perhaps on the disk already: it is told later."""


def look(raft: Raft) -> Look:
    replica = raft.replica
    log = replica.log
    peers = replica.leading.peers.values() if replica.leading is not None else ()
    return Look(
        replica.role, replica.term, replica.leader, log.commit, log.last, log.durable, peers, replica.installing
    )
