"""What a log on disk amounts to: every checksum verified, and the whole judged against the high-water mark.

Pure reading from a connection; who opens it, and what is done about the verdict, is decided elsewhere. The verdict:

- An entry whose chain, kind or place is wrong, or a single row whose checksum is wrong: DamagedError.
- A log that ends before the mark, or holds another history there: not an error but amnesia. `promised` is then larger
  than the last entry of `tail`, and the core neither votes nor counts until a leader has refilled the log.
- A term or vote older than the mark's: the mark's is taken.
"""

import sqlite3
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import msgspec

from coordd.errors import DamagedError
from coordd.messages.entry import CONFIGURATION, UNREADABLE, decode_configuration
from coordd.storage.chain import chain_of
from coordd.storage.high_water import Mark
from coordd.storage.log_schema import read_base, read_hard_state
from coordd.types import Base, Configuration, HardState, Index, LogSlice, Term, TermRun

__all__ = ["Recovered", "Verdict", "judge", "term_runs"]


class Recovered(msgspec.Struct, frozen=True):
    """What a restarted core must know; the fields are those of `raft.events.Restarted`."""

    hard_state: HardState
    base: Base
    tail: LogSlice
    """The newest entries, as many as fit into the given number of bytes, and in any case all behind the commit index;
    ends with the last entry of the log."""
    tail_previous_term: Term
    earlier_runs: tuple[TermRun, ...]
    """Terms of the entries between the base and the tail."""
    configurations: tuple[tuple[Index, Configuration], ...]
    """Every configuration entry behind the base."""
    promised: Index
    """Entries up to here may have been acknowledged. More than `tail.last`: the disk has forgotten some."""

    @property
    def newest_configuration(self) -> Configuration | None:
        return self.configurations[-1][1] if self.configurations else self.base.configuration


class Verdict(msgspec.Struct, frozen=True):
    recovered: Recovered
    chain: int
    """At `recovered.tail.last`."""
    stored_last: Index
    """Last entry in the file. More than `recovered.tail.last`: what lies behind that is another history, to drop."""
    stored_hard_state: HardState
    """As the file has it, without the mark's term and vote."""

    @property
    def amnesia(self) -> bool:
        return self.recovered.promised > self.recovered.tail.last


class _Scan(msgspec.Struct):
    """Running result of reading the entries in order."""

    index: Index
    chain: int
    tail: deque[tuple[Term, bytes]]
    tail_bytes: int
    tail_previous_term: Term
    earlier_runs: list[TermRun]
    configurations: list[tuple[Index, Configuration]]
    chain_at_mark: int | None


def judge(connection: sqlite3.Connection, path: Path, mark: Mark, tail_bytes: int) -> Verdict:
    """Read and verify everything. `path` is for the texts. Raises: DamagedError, sqlite3.Error."""
    _check_pages(connection, path)
    stored = read_hard_state(connection, path)
    base = read_base(connection, path)
    hard_state = _newer(stored, mark, path)
    scan = _scan(connection, path, base, mark, tail_bytes, hard_state.commit)
    stored_last = scan.index
    other_history = not mark.refilling and scan.chain_at_mark not in (None, mark.chain)
    if other_history and mark.last <= base.index:
        raise DamagedError(f"{path} is damaged (its base is not the one that the high_water file beside it marks)")
    if other_history:
        scan = _scan(connection, path, base, mark, tail_bytes, hard_state.commit, last=mark.last - 1)
    terms = [term for term, _ in scan.tail]
    first = scan.index - len(terms) + 1
    commit = max(base.index, min(hard_state.commit, scan.index))
    return Verdict(
        Recovered(
            hard_state=HardState(hard_state.term, hard_state.vote, commit),
            base=base,
            tail=LogSlice(first, [data for _, data in scan.tail], term_runs(first, terms)),
            tail_previous_term=scan.tail_previous_term,
            earlier_runs=tuple(scan.earlier_runs),
            configurations=tuple(scan.configurations),
            promised=mark.last,
        ),
        chain=scan.chain,
        stored_last=stored_last,
        stored_hard_state=stored,
    )


def term_runs(first: Index, terms: Iterable[Term]) -> tuple[TermRun, ...]:
    """Terms of the entries from `first` on, as runs."""
    listed = list(terms)
    starts = [first + place for place, (one, two) in enumerate(pairwise(listed), start=1) if one != two]
    return tuple((index, listed[index - first]) for index in ([first, *starts] if listed else []))


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """The structure of the file: a lost free list would later overwrite live pages."""
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise DamagedError(f"{path} is damaged ({problem.splitlines()[0]})")


def _newer(stored: HardState, mark: Mark, path: Path) -> HardState:
    """The newer of the two terms and votes: a vote that was promised must hold even if the database forgot it."""
    if mark.term > stored.term:
        return HardState(mark.term, mark.vote, stored.commit)
    if mark.term == stored.term and mark.vote is not None and mark.vote != stored.vote:
        if stored.vote is not None:
            raise DamagedError(
                f"{path} is damaged (vote for {stored.vote} in term {stored.term}, high_water says {mark.vote})"
            )
        return HardState(mark.term, mark.vote, stored.commit)
    return stored


def _scan(
    connection: sqlite3.Connection,
    path: Path,
    base: Base,
    mark: Mark,
    tail_bytes: int,
    commit: Index,
    last: Index | None = None,
) -> _Scan:
    """Verify the entries behind the base, up to `last` if given. The tail keeps all that is not known to be committed."""
    scan = _Scan(base.index, base.chain, deque(), 0, base.term, [], [], None)
    if mark.last == base.index:
        scan.chain_at_mark = base.chain
    rows = connection.execute(
        "SELECT idx, term, kind, data, chain FROM entries WHERE idx > ? AND idx <= ? ORDER BY idx",
        (base.index, last if last is not None else (1 << 63) - 1),
    )
    for row in rows:
        _verify(scan, row, path)
        index, term, kind, data, _ = row
        if index == mark.last:
            scan.chain_at_mark = scan.chain
        if kind == CONFIGURATION:
            scan.configurations.append((index, _configuration(data, index, path)))
        scan.tail.append((term, data))
        scan.tail_bytes += len(data)
        while scan.tail_bytes > tail_bytes and len(scan.tail) > 1 and index - len(scan.tail) + 1 <= commit:
            place = index - len(scan.tail) + 1
            scan.tail_previous_term, dropped = scan.tail.popleft()
            scan.tail_bytes -= len(dropped)
            if not scan.earlier_runs or scan.earlier_runs[-1][1] != scan.tail_previous_term:
                scan.earlier_runs.append((place, scan.tail_previous_term))
    return scan


def _verify(scan: _Scan, row: tuple[Index, Term, int, bytes, int], path: Path) -> None:
    index, term, kind, data, chain = row
    if index != scan.index + 1:
        raise DamagedError(f"{path} is damaged (entry {scan.index + 1} is missing)")
    scan.chain = chain_of(scan.chain, index, term, data)
    if scan.chain != chain or data[:1] != bytes([kind & 0xFF]):
        raise DamagedError(f"{path} is damaged (entry {index} does not match its checksum)")
    scan.index = index


def _configuration(data: bytes, index: Index, path: Path) -> Configuration:
    try:
        return decode_configuration(data)
    except UNREADABLE as error:
        raise DamagedError(f"{path} is damaged (entry {index} holds no configuration: {error})") from error
