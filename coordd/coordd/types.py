"""Words that every room uses: positions in the log, identities of servers, the cluster's configuration.

Everything here is frozen data without behaviour beyond what can be read off its own fields.
"""

from collections.abc import Iterator
from typing import NewType, TypeAlias

import msgspec

__all__ = [
    "Base",
    "Configuration",
    "HardState",
    "Index",
    "LogSlice",
    "LogWrite",
    "Member",
    "ServerId",
    "SnapshotMeta",
    "Term",
    "TermRun",
    "make_server_id",
    "server_name",
]

# Plain aliases, not NewTypes: arithmetic on them happens for every entry, and a NewType would turn each sum into a call.
Index: TypeAlias = int
"""Position in the log, from 1; 0 is the position before the first entry."""
Term: TypeAlias = int
"""Raft term, from 1; 0 is the term before the first election."""

ServerId = NewType("ServerId", str)
"""Identity of one server life: `name#incarnation`. A wiped disk draws a new incarnation, hence a new identity (rule 75)."""


def make_server_id(name: str, incarnation: str) -> ServerId:
    """Join a server's name and the incarnation (32 hexadecimal digits) kept in its data folder."""
    return ServerId(f"{name}#{incarnation}")


def server_name(server: ServerId) -> str:
    """The name part of an identity, as the operator wrote it in the configuration file."""
    return server.partition("#")[0]


class HardState(msgspec.Struct, frozen=True, array_like=True):
    """What Raft must remember: current term, the vote given in it, and (as a hint, without fsync) the commit index."""

    term: Term = 0
    vote: ServerId | None = None
    commit: Index = 0


class Member(msgspec.Struct, frozen=True):
    """One server of the cluster as the replicated configuration knows it.

    Addresses are numeric `host:port`; the key is the server's CURVE public key in Z85 (40 characters).
    """

    id: ServerId
    raft_address: str
    client_address: str
    public_key: str
    voter: bool
    promote: bool = False
    """A learner that is to become a voter as soon as it has caught up. Invariant: never true for a voter."""
    replaces: ServerId | None = None
    """The member that leaves at the moment when this learner becomes a voter."""

    @property
    def name(self) -> str:
        return server_name(self.id)


class Configuration(msgspec.Struct, frozen=True):
    """The cluster's membership. It takes effect when it is appended to the log (thesis 4.1).

    While `outgoing` is not empty the configuration is joint (thesis 4.3): every decision needs a majority of the voters
    among `members` and a majority of `outgoing`. `members` then also lists the servers that are about to leave, as
    learners, so that they still hear of the end of the change.
    """

    cluster_id: str
    cluster_name: str
    members: tuple[Member, ...]
    """Sorted by id; ids, names and public keys are unique, but for a replacement, where old and new share a name."""
    outgoing: tuple[ServerId, ...] = ()
    leaving: tuple[ServerId, ...] = ()
    """Members that the end of the joint phase drops altogether. Invariant: empty unless `outgoing` is set."""

    @property
    def voters(self) -> tuple[ServerId, ...]:
        return tuple(m.id for m in self.members if m.voter)

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    def member(self, server: ServerId) -> Member | None:
        return next((m for m in self.members if m.id == server), None)

    def named(self, name: str) -> Member | None:
        """The member an operator means by a name: of two with the same name, the one that stays."""
        found = [m for m in self.members if m.name == name]
        return next((m for m in found if m.id not in self.leaving), found[0] if found else None)


TermRun: TypeAlias = tuple[Index, Term]
"""(first index, term): every entry from that index on has that term, until the next run begins."""


class LogSlice(msgspec.Struct, frozen=True, array_like=True):
    """A contiguous piece of the log: entries `first .. first + len(entries) - 1`.

    Terms are kept as runs, not per entry: no object per entry is made on the hot path. Invariants: if there are entries,
    the first run starts at `first`; runs rise in index and in term; no run starts behind the last entry.
    """

    first: Index
    entries: list[bytes]
    runs: tuple[TermRun, ...]

    @property
    def last(self) -> Index:
        return self.first + len(self.entries) - 1

    def terms(self) -> Iterator[Term]:
        """The term of each entry, in order."""
        if not self.entries:
            return
        stops = [start for start, _ in self.runs[1:]] + [self.last + 1]
        for (start, term), stop in zip(self.runs, stops, strict=True):
            for _ in range(start, stop):
                yield term


class LogWrite(msgspec.Struct, frozen=True):
    """One unit of durable work. Term and vote never become durable after entries of a later write (rule 3)."""

    sequence: int
    """Rises by one with each write of this process."""
    hard_state: HardState
    """As of this write; its commit index alone needs no fsync."""
    slice: LogSlice | None
    """Entries to append. Those already stored at or behind `slice.first` are replaced."""
    must_sync: bool
    """False if only the commit index changed: then it may wait for the next write (rule 5)."""


class Base(msgspec.Struct, frozen=True):
    """The point below which the log was dropped, and what must be known of it (rules 73, 85)."""

    index: Index = 0
    term: Term = 0
    chain: int = 0
    """Chained checksum of the entry at `index`; 0 for an empty log."""
    configuration: Configuration | None = None
    """The configuration in force at `index`; None only before bootstrap or join."""
    configuration_index: Index = 0
    state_file: str = ""
    """Name of the state database that holds at least everything up to `index`; "" while there is none."""


class SnapshotMeta(msgspec.Struct, frozen=True):
    """What a snapshot says about itself; read from the produced file, never from the moment it was asked for."""

    index: Index
    term: Term
    chain: int
    configuration: Configuration
    configuration_index: Index
    size: int = 0
    """Bytes of the file."""
    digest: str = ""
    """SHA-256 of the file, hexadecimal."""
