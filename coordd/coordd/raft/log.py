"""The log as the core sees it: a tail in memory, the positions that matter, and what is known to be durable.

Entries are opaque bytes; terms are kept as runs. Everything above `commit` is always in memory, so that a follower can
judge any message without the disk; older entries leave memory once they are applied and durable, and the whole log below
`base_index` is compacted away.

Invariants: base_index <= applied <= commit <= last; durable <= last; memory holds `first .. last` with first <= commit + 1;
entries at or below commit never change (rule 37).
"""

from bisect import bisect_right
from collections import deque

from coordd.errors import invariant
from coordd.types import Index, LogSlice, Term, TermRun

__all__ = ["RaftLog"]


class RaftLog:
    """Mutable; owned by one core."""

    def __init__(
        self,
        tail: LogSlice,
        previous_term: Term,
        base_index: Index,
        base_term: Term,
        earlier_runs: tuple[TermRun, ...] = (),
    ) -> None:
        self.base_index = base_index
        """The log is compacted up to and with this index."""
        self.base_term = base_term
        self.first = tail.first
        """Index of the oldest entry in memory."""
        self.commit: Index = base_index
        self.applied: Index = base_index
        self.durable: Index = tail.last
        """Everything up to here survives a crash of this server and equals the log in memory."""
        self._entries = list(tail.entries)
        self._bytes = sum(map(len, self._entries))
        # Runs cover the whole log, entries that are not in memory included: one pair per term, the first one at the base.
        self._runs: list[TermRun] = [(base_index, base_term)]
        self._extend_runs(earlier_runs)
        self._extend_runs(((tail.first - 1, previous_term),) if tail.first - 1 > self._runs[-1][0] else ())
        self._extend_runs(tail.runs)
        # (sequence, last index) of writes on their way to the disk; lowered when a write behind them is replaced, so that a
        # late completion never vouches for entries that have been replaced since (rule 97, the ABA problem).
        self._in_flight: deque[tuple[int, Index]] = deque()
        self.unsaved: Index | None = None
        """First entry not yet handed to the writer."""

    # --- positions ---------------------------------------------------------------------------------------------------

    @property
    def last(self) -> Index:
        return self.first + len(self._entries) - 1

    @property
    def last_term(self) -> Term:
        return self._runs[-1][1]

    def term(self, index: Index) -> Term | None:
        """Term of an entry, or None where it is not known here (compacted, evicted before this start, or beyond the end)."""
        runs = self._runs
        if index >= runs[-1][0]:
            return runs[-1][1] if index <= self.last else None
        if index < self.base_index:
            return None
        return runs[bisect_right(runs, index, key=lambda run: run[0]) - 1][1]

    def last_at_or_below(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The last (index, term) at or before `index` whose term is at most `term` (rule 38).

        The search ends at the oldest known entry; its index is then an answer too, only a less sharp one.
        """
        position = len(self._runs) - 1
        stop = min(index, self.last)
        while position > 0 and (self._runs[position][0] > stop or self._runs[position][1] > term):
            stop = min(stop, self._runs[position][0] - 1)
            position -= 1
        return stop, self._runs[position][1]

    def __contains__(self, index: Index) -> bool:
        return self.first <= index <= self.last

    @property
    def memory_bytes(self) -> int:
        return self._bytes

    # --- reading -----------------------------------------------------------------------------------------------------

    def slice(self, first: Index, max_entries: int, max_bytes: int, last: Index | None = None) -> LogSlice:
        """Entries from `first` on, at least one if there is any, within the limits. `first` must be in memory, or last + 1."""
        invariant(self.first <= first <= self.last + 1, "slice outside memory", first=first, memory=self.first)
        start = first - self.first
        stop = len(self._entries) if last is None else last - self.first + 1
        entries = self._entries[start : min(stop, start + max_entries)]
        if self._bytes > max_bytes:
            total = 0
            for count, entry in enumerate(entries):
                total += len(entry)
                if total > max_bytes and count:
                    entries = entries[:count]
                    break
        return LogSlice(first, entries, self._runs_between(first, first + len(entries) - 1))

    def entry(self, index: Index) -> bytes:
        return self._entries[index - self.first]

    def size_between(self, first: Index, last: Index) -> int:
        """Bytes of the entries `first .. last`, both in memory."""
        return sum(map(len, self._entries[first - self.first : last - self.first + 1]))

    def _runs_between(self, first: Index, last: Index) -> tuple[TermRun, ...]:
        runs = self._runs
        if last < first:
            return ()
        if first >= runs[-1][0]:  # the common case: one term
            return ((first, runs[-1][1]),)
        position = bisect_right(runs, first, key=lambda run: run[0]) - 1
        found = [(first, runs[position][1])]
        for run in runs[position + 1 :]:
            if run[0] > last:
                break
            found.append(run)
        return tuple(found)

    # --- appending ---------------------------------------------------------------------------------------------------

    def append(self, term: Term, entries: list[bytes]) -> Index:
        """A leader's own entries at the end. Returns the index of the first."""
        first = self.last + 1
        self._extend(first, entries, ((first, term),))
        return first

    def first_conflict(self, piece: LogSlice) -> Index | None:
        """The first index of the piece that is missing here or has another term; None if all of it is here already.

        Terms are constant between run starts, so only those positions need a look.
        """
        if not piece.entries:
            return None
        last = self.last
        marks = {piece.first} | {start for start, _ in piece.runs}
        marks |= {start for start, _ in self._runs if piece.first < start <= piece.last}
        theirs = dict(piece.runs)
        their_term = piece.runs[0][1]
        for index in sorted(marks):
            if index > last:
                break
            their_term = theirs.get(index, their_term)
            if self.term(index) != their_term:
                return index
        return last + 1 if piece.last > last else None

    def replace_from(self, index: Index, piece: LogSlice) -> None:
        """Take the piece's entries from `index` on; whatever stood at or behind `index` goes (rules 13, 34)."""
        invariant(index > self.commit, "committed entries would be replaced", index=index, commit=self.commit)
        self.truncate(index)
        runs = tuple((max(start, index), term) for start, term in piece.runs if start > index)
        at = next(term for start, term in reversed(piece.runs) if start <= index)
        self._extend(index, piece.entries[index - piece.first :], ((index, at), *runs))

    def truncate(self, index: Index) -> None:
        """Drop `index` and everything behind it, also from what was believed durable."""
        if index > self.last:
            return
        removed = self._entries[index - self.first :]
        del self._entries[index - self.first :]
        self._bytes -= sum(map(len, removed))
        while self._runs[-1][0] >= index:
            self._runs.pop()
        self.durable = min(self.durable, index - 1)
        self._in_flight = deque((sequence, min(last, index - 1)) for sequence, last in self._in_flight)
        if self.unsaved is not None and self.unsaved >= index:
            self.unsaved = None

    def _extend(self, first: Index, entries: list[bytes], runs: tuple[TermRun, ...]) -> None:
        self._entries += entries
        self._bytes += sum(map(len, entries))
        self._extend_runs(runs)
        if self.unsaved is None:
            self.unsaved = first

    def _extend_runs(self, runs: tuple[TermRun, ...]) -> None:
        for start, term in runs:
            invariant(term >= self._runs[-1][1], "terms fall along the log", index=start, term=term)
            if term != self._runs[-1][1]:
                self._runs.append((start, term))

    # --- durability --------------------------------------------------------------------------------------------------

    def take_unsaved(self, sequence: int) -> LogSlice | None:
        """The entries that the writer has not seen yet, now on their way under this sequence number."""
        piece = None
        if self.unsaved is not None:
            piece = self.slice(self.unsaved, len(self._entries), self._bytes)
            self.unsaved = None
        self._in_flight.append((sequence, self.last))
        return piece

    def persisted(self, sequence: int) -> None:
        """Writes up to this one are durable."""
        while self._in_flight and self._in_flight[0][0] <= sequence:
            self.durable = max(self.durable, self._in_flight.popleft()[1])

    # --- shrinking ---------------------------------------------------------------------------------------------------

    def evict(self, max_bytes: int) -> None:
        """Let old entries leave memory: only such as are applied and durable, and not before a quarter is in excess."""
        if self._bytes <= max_bytes + max_bytes // 4:
            return
        limit = min(self.applied, self.durable)
        count = 0
        while self._bytes > max_bytes and self.first + count <= limit:
            self._bytes -= len(self._entries[count])
            count += 1
        del self._entries[:count]
        self.first += count

    def compacted(self, index: Index, term: Term) -> None:
        """The log on disk now starts behind `index`."""
        invariant(
            self.base_index <= index <= self.applied, "compaction beyond applied", index=index, applied=self.applied
        )
        self.base_index, self.base_term = index, term
        if index >= self.first:
            removed = self._entries[: index - self.first + 1]
            self._bytes -= sum(map(len, removed))
            del self._entries[: len(removed)]
            self.first = index + 1
        self._runs = [(index, term), *(run for run in self._runs if run[0] > index)]

    def reset(self, index: Index, term: Term) -> None:
        """A snapshot took the place of the whole log."""
        self.base_index, self.base_term = index, term
        self.first = index + 1
        self._entries = []
        self._bytes = 0
        self._runs = [(index, term)]
        self._in_flight.clear()
        self.unsaved = None
        self.commit = self.applied = self.durable = index
