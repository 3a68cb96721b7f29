"""What an all-seeing observer knows: every entry that ever existed, what was committed, what each disk holds.

Nothing here comes from asking a server what it believes; it is built from what the servers handed to their disks and what
the disks finished. Logs are kept as terms, because (index, term) names an entry for good (log matching), and `entries`
proves that it does.
"""

import bisect
from collections import deque
from dataclasses import dataclass, field

from coordd.messages.entry import CONFIGURATION, decode_configuration
from coordd.types import Base, Configuration, HardState, Index, LogSlice, LogWrite, ServerId, Term

__all__ = ["Ledger", "Position", "Record", "TermLog", "majorities"]

Position = tuple[Index, Term]


class TermLog:
    """A log reduced to the term of each entry behind its base."""

    __slots__ = ("base", "base_term", "terms")

    def __init__(self, base: Index = 0, base_term: Term = 0, terms: list[Term] | None = None) -> None:
        self.base = base
        self.base_term = base_term
        self.terms: list[Term] = terms or []

    @property
    def last(self) -> Index:
        return self.base + len(self.terms)

    @property
    def last_term(self) -> Term:
        return self.terms[-1] if self.terms else self.base_term

    def term(self, index: Index) -> Term | None:
        """None: compacted, or not there yet."""
        if index == self.base:
            return self.base_term
        offset = index - self.base - 1
        return self.terms[offset] if 0 <= offset < len(self.terms) else None

    def put(self, piece: LogSlice) -> None:
        """As a disk does: what stood at or behind the first entry is replaced."""
        del self.terms[piece.first - self.base - 1 :]
        self.terms.extend(piece.terms())

    def compact(self, index: Index) -> None:
        term = self.term(index)
        assert term is not None
        del self.terms[: index - self.base]
        self.base, self.base_term = index, term

    def copy(self) -> "TermLog":
        return TermLog(self.base, self.base_term, list(self.terms))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TermLog):
            return NotImplemented
        return (self.base, self.base_term, self.terms) == (other.base, other.base_term, other.terms)

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Record:
    """One server identity over all its lives."""

    id: ServerId
    boot: int = 0
    submitted: TermLog = field(default_factory=TermLog)
    """The log as the core has it: everything handed to the disk."""
    durable: TermLog = field(default_factory=TermLog)
    hard: HardState = field(default_factory=HardState)
    """Term and vote on the disk; its commit index is only a hint and not looked at."""
    in_flight: deque[LogWrite] = field(default_factory=deque)
    owes: Index = 0
    """It has acknowledged entries up to here, beyond what it has now; 0: it has all that it promised."""
    doubt: Base | None = None
    """A base that was being written when the power went."""
    up: bool = False
    role: str = ""
    term: Term = 0
    commit: Index = 0
    applied: Index = 0
    restored: Index = 0
    """How far its state went when it was opened; committed, though a log that has forgotten its end may not reach it."""
    stateless: bool = False
    """There is no state: it may vote and take entries, but neither lead nor answer."""
    dropped: Index = 0
    """How far the state went that is lost now: what was durable in it the log may still be cut to."""
    doubtful: bool = False
    """Its state's digest was damaged in memory, and the state not given up yet."""
    shown: tuple[Index, bytes] = (0, b"")
    """The digest that it told the others last, while doubtful."""
    contradicted: set[ServerId] = field(default_factory=set)
    """Who told it another one since."""
    reads: dict[int, Index] = field(default_factory=dict)
    """Linearizable reads that wait: what was committed when they were asked for."""

    @property
    def promised(self) -> Index:
        """The last entry that it may have acknowledged."""
        return self.owes or self.durable.last

    def refilled(self) -> None:
        if self.durable.last >= self.owes:
            self.owes = 0


@dataclass
class Ledger:
    entries: dict[Position, tuple[Term, bytes]] = field(default_factory=dict)
    """Every entry that was ever made: its predecessor's term and its bytes."""
    configurations: dict[Position, Configuration] = field(default_factory=dict)
    committed: list[Term] = field(default_factory=lambda: [0])
    """The term of each committed entry, from index 0."""
    committed_in: list[Term] = field(default_factory=lambda: [0])
    """The term of the leader who committed it. Never falls along the log."""
    records: dict[ServerId, Record] = field(default_factory=dict)
    leaders: dict[Term, tuple[ServerId, int]] = field(default_factory=dict)
    """Who led each term, and in which life."""
    digests: dict[Index, object] = field(default_factory=dict)
    """The state's digest after each index at which some server had one."""
    votes: dict[tuple[ServerId, Term], ServerId] = field(default_factory=dict)
    """Every vote that became durable."""

    @property
    def commit(self) -> Index:
        return len(self.committed) - 1

    def committed_before(self, term: Term) -> Index:
        """The last entry that a leader of an earlier term committed."""
        return bisect.bisect_left(self.committed_in, term) - 1 if term > 0 else 0

    def record(self, server: ServerId) -> Record:
        found = self.records.get(server)
        if found is None:
            found = self.records[server] = Record(server)
        return found

    def note(self, index: Index, term: Term, previous_term: Term, entry: bytes) -> bool:
        """Remember a new entry; False if (index, term) names another one already."""
        known = self.entries.get((index, term))
        if known is None:
            self.entries[index, term] = (previous_term, entry)
            if entry[0] == CONFIGURATION:
                self.configurations[index, term] = decode_configuration(entry)
            return True
        return known[0] == previous_term and (known[1] is entry or known[1] == entry)

    def holds(self, log: TermLog, index: Index) -> bool:
        """Whether the log holds the committed entry at `index`, and so (log matching) all before it."""
        return log.base >= index or log.term(index) == self.committed[index]

    def configuration(self, log: TermLog, up_to: Index | None = None) -> tuple[Index, Configuration | None]:
        """The newest configuration in a log, by append (thesis 4.1)."""
        limit = log.last if up_to is None else up_to
        found: tuple[Index, Configuration | None] = (0, None)
        for (index, term), configuration in self.configurations.items():
            if found[0] < index <= limit and self._has(log, index, term):
                found = (index, configuration)
        return found

    def _has(self, log: TermLog, index: Index, term: Term) -> bool:
        if index > log.base:
            return log.term(index) == term
        return index <= self.commit and self.committed[index] == term


def majorities(configuration: Configuration, having: set[ServerId]) -> bool:
    """Whether these servers decide: a majority of the voters, and of the outgoing ones while the change is joint."""
    groups = [configuration.voters, *([configuration.outgoing] if configuration.outgoing else [])]
    return all(sum(voter in having for voter in group) * 2 > len(group) for group in groups)
