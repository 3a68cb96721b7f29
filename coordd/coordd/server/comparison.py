"""What the replicas' states amount to at the same index, pure: who differs from whom, and who is right.

Equal logs give equal states (rule 91). If they do not, a state was damaged in memory, or applying is not the same everywhere. The
majority of the voters is right: a server that it contradicts is told so and takes itself out. Without a majority nobody can
tell, and nobody is taken out: an alarm is raised, once for each index.

Bounded: the last `_KEPT` indexes of each server.
"""

from collections.abc import Callable
from enum import StrEnum

from coordd.types import Index, ServerId

__all__ = ["Comparison", "Verdict"]

_KEPT = 8


class Verdict(StrEnum):
    """Of an index at which digests differ."""

    WRONG = "most voters agree on another state than this server's"
    OTHERS_WRONG = "most voters agree with this server's state, another server does not"
    UNDECIDED = "states differ, and no majority agrees on one"


class Comparison:
    """Mutable; one per server. `has_quorum(holds)`: whether the servers of which that is true are a quorum."""

    def __init__(self, me: ServerId, has_quorum: Callable[[Callable[[ServerId], bool]], bool]) -> None:
        self._me = me
        self._has_quorum = has_quorum
        self._digests: dict[ServerId, dict[Index, bytes]] = {}
        self._told: set[Index] = set()

    def note(self, server: ServerId, index: Index, digest: bytes) -> Verdict | None:
        """A server's state amounts to this; the own one's does too. Returns what follows, at most once for an index."""
        digests = self._digests.setdefault(server, {})
        digests[index] = digest
        verdict = self._judge(index)
        if len(digests) > _KEPT:
            oldest = min(digests)
            verdict = verdict or self._judge(oldest, last=server == self._me)
            del digests[oldest]
            if server == self._me:
                self._told.discard(oldest)
        return verdict

    def forget_own(self) -> None:
        """This server's state was replaced."""
        self._digests.pop(self._me, None)

    def keep_only(self, members: set[ServerId]) -> None:
        """Others are of no account any more."""
        for server in self._digests.keys() - members:
            del self._digests[server]

    def _judge(self, index: Index, last: bool = False) -> Verdict | None:
        """`last`: no more is to be heard of this index."""
        known = {server: digests[index] for server, digests in self._digests.items() if index in digests}
        own = known.get(self._me)
        if own is None or index in self._told or set(known.values()) == {own}:
            return None
        verdict = self._decide(known, own)
        if verdict is not None or last:
            self._told.add(index)
            return verdict or Verdict.UNDECIDED
        return None

    def _decide(self, known: dict[ServerId, bytes], own: bytes) -> Verdict | None:
        """None: it depends on servers that have not been heard yet."""
        open_still = False
        for digest in sorted(set(known.values())):
            if self._has_quorum(_holding(digest, known)):
                return Verdict.OTHERS_WRONG if digest == own else Verdict.WRONG
            open_still |= self._has_quorum(_holding(digest, known, otherwise=digest))
        return None if open_still else Verdict.UNDECIDED


def _holding(digest: bytes, known: dict[ServerId, bytes], otherwise: bytes = b"") -> Callable[[ServerId], bool]:
    return lambda server: known.get(server, otherwise) == digest
