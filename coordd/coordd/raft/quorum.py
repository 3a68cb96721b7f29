"""Quorum arithmetic, pure. A decision needs a majority of each half; outside a joint change there is one half (thesis 4.3)."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias

from coordd.types import Configuration, ServerId

__all__ = ["Halves", "VoteResult", "agreed", "count_votes", "halves_of", "has_quorum"]

Halves: TypeAlias = tuple[tuple[ServerId, ...], ...]
"""Voter sets that must each agree. Empty before bootstrap: then nothing can be decided."""


class VoteResult(Enum):
    """A tally may still be open; it is never None."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def halves_of(configuration: Configuration) -> Halves:
    if configuration.outgoing:
        return (configuration.voters, configuration.outgoing)
    return (configuration.voters,)


def agreed(halves: Halves, value_of: Callable[[ServerId], int]) -> int:
    """The highest value that a majority of each half has reached; 0 where nobody can decide.

    With n voters sorted by value, the one at position (n - 1) // 2 from below has a majority at or above it.
    """
    if not halves:
        return 0
    lowest = None
    for half in halves:
        if not half:
            return 0
        value = sorted(map(value_of, half))[(len(half) - 1) // 2]
        if lowest is None or value < lowest:
            lowest = value
    return lowest or 0


def has_quorum(halves: Halves, is_member: Callable[[ServerId], bool]) -> bool:
    """Whether the servers that satisfy the predicate are a majority of each half."""
    return bool(halves) and agreed(halves, lambda server: int(is_member(server))) == 1


def count_votes(halves: Halves, votes: Mapping[ServerId, bool]) -> VoteResult:
    """LOST as soon as some half can no longer reach its majority. Votes of non-voters do not count."""
    if has_quorum(halves, lambda server: votes.get(server, False)):
        return VoteResult.WON
    if has_quorum(halves, lambda server: votes.get(server, True)):
        return VoteResult.PENDING
    return VoteResult.LOST
