"""When the cluster's feature level may rise, and what must wait until then (rule 95). Pure.

Servers say in their hellos which level they support. The leader counts only what a server's *present* life has said (its
boot is the one that its acknowledgements carry), and asks who has not said it yet. When every member of the newest
configuration supports more than the active level, it proposes the lowest of what they support. From the proposal on a
server that supports less is not added; so no member of the log's newest configuration is ever below the active level.
"""

from collections.abc import Sequence

from coordd.errors import BusyError, ConflictError
from coordd.messages import levels
from coordd.messages.command import Command, RaiseFeatureLevel
from coordd.messages.peer import Hello
from coordd.server.node import Node
from coordd.types import Member, Term, server_name

__all__ = ["Levels", "next_level"]


def next_level(active: int, supported: Sequence[int | None]) -> int | None:
    """The level that all support, if it is above the active one. `supported`: of each member, None where it is not known."""
    known = [level for level in supported if level is not None]
    if not known or len(known) < len(supported):
        return None
    lowest = min(known)
    return lowest if lowest > active else None


class Levels:
    """Mutable; one per server, of use on the leader."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hellos: dict[str, Hello] = {}
        """The last under each key; only accepted keys get this far."""
        self._proposed: tuple[Term, int] = (0, 0)

    def heard(self, key: str, hello: Hello) -> None:
        self._hellos[key] = hello

    # --- rising -------------------------------------------------------------------------------------------------------

    def supported_by(self, member: Member) -> int | None:
        """None: its present life has not said, to this leader."""
        replica = self._node.raft.replica
        if member.id == replica.me:
            return levels.SUPPORTED
        progress = replica.leading.peers.get(member.id) if replica.leading else None
        hello = self._hellos.get(member.public_key)
        if progress is None or hello is None or (hello.sender, hello.boot) != (member.id, progress.boot):
            return None
        return hello.level

    def to_ask(self) -> list[str]:
        """Keys of members whose level this leader does not know."""
        if not self._node.leading:
            return []
        return [member.public_key for member in self._members() if self.supported_by(member) is None]

    def due(self) -> RaiseFeatureLevel | None:
        """To be proposed by a ready leader."""
        term = self._node.raft.replica.term
        level = next_level(self._node.machine.feature_level, [self.supported_by(member) for member in self._members()])
        if level is None or self._proposed == (term, level):
            return None
        self._proposed = (term, level)
        return RaiseFeatureLevel(term, level)

    def refused(self) -> None:
        """The core did not take the proposal: it is due again."""
        self._proposed = (0, 0)

    # --- what must wait -----------------------------------------------------------------------------------------------

    def demand(self, command: Command) -> None:
        """Raises: ConflictError that names who holds the cluster back, BusyError if nobody does any more."""
        needed, active = levels.level_of(command), self._node.machine.feature_level
        if needed <= active:
            return
        said = [(server_name(member.id), self.supported_by(member)) for member in self._members()]
        behind = [f"{name} supports level {level} only" for name, level in said if level is not None and level < needed]
        behind += [f"{name} is not reached" for name, level in said if level is None]
        what = f"{type(command).__name__} needs feature level {needed}, the cluster is at {active}"
        if not behind:
            raise BusyError(f"{what} and is about to be raised: try again")
        raise ConflictError(f"{what}: not until every server has been upgraded: {', '.join(behind)}")

    def demand_of_newcomer(self, key: str) -> None:
        """Raises: ConflictError if who said hello under this key supports too little to be added."""
        term, proposed = self._proposed
        under_way = proposed if term == self._node.raft.replica.term else 0
        needed = max(self._node.machine.feature_level, under_way)
        supported = self._hellos[key].level if key in self._hellos else levels.FIRST
        if supported < needed:
            raise ConflictError(
                f"the new server supports feature level {supported}, the cluster is at {needed}: install the version"
                " that the other servers run there first"
            )

    def _members(self) -> tuple[Member, ...]:
        configuration = self._node.configuration
        return configuration.members if configuration is not None else ()
