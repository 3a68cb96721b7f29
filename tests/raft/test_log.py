"""RaftLog against a plain list of (term, bytes): append, replace, hand over, persist, evict, compact, in any order."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordd.errors import InvariantError
from coordd.raft.log import RaftLog
from coordd.types import Index, LogSlice, Term
from tests.raft.cluster import command, piece

Entry = tuple[Term, bytes]


class LogModel(RuleBasedStateMachine):
    """`entries[n]` is the entry of index n + 1, compacted ones included; `disk` is what the writes so far have made."""

    def __init__(self) -> None:
        super().__init__()
        self.log = RaftLog(LogSlice(1, [], ()), 0, 0, 0)
        self.entries: list[Entry] = []
        self.disk: list[Entry] = []
        self.queue: deque[tuple[int, LogSlice | None]] = deque()
        self.sequence = 0
        self.term: Term = 1

    def term_at(self, index: Index) -> Term:
        return self.entries[index - 1][0] if index else 0

    # --- what happens to a log ----------------------------------------------------------------------------------------

    @rule()
    def new_term(self) -> None:
        self.term += 1

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        first = len(self.entries) + 1
        new = piece(first, [self.term] * count)
        assert self.log.append(self.term, new.entries) == first
        self.entries += [(self.term, entry) for entry in new.entries]

    @rule(back=st.integers(0, 6), steps=st.lists(st.integers(0, 2), min_size=1, max_size=5))
    def take(self, back: int, steps: list[int]) -> None:
        """A leader's entries behind one that agrees: some may be here already, some conflict."""
        at = max(len(self.entries) - back, self.log.commit)
        terms, term = [], max(self.term_at(at), 1)
        for step in steps:
            term += step
            terms.append(term)
        self.term = max(self.term, terms[-1])
        new = piece(at + 1, terms)
        theirs = list(zip(new.terms(), new.entries, strict=True))
        differing = [n for n, entry in enumerate(theirs, start=at + 1) if self.entries[n - 1 : n] != [entry]]
        conflict = self.log.first_conflict(new)
        assert conflict == (differing[0] if differing else None)
        if conflict is not None:
            self.log.replace_from(conflict, new)
            self.entries[conflict - 1 :] = theirs[conflict - at - 1 :]

    @rule()
    def hand_over(self) -> None:
        self.sequence += 1
        self.queue.append((self.sequence, self.log.take_unsaved(self.sequence)))

    @precondition(lambda self: self.queue)
    @rule()
    def persist(self) -> None:
        sequence, new = self.queue.popleft()
        if new is not None:
            assert 0 < new.first <= len(self.disk) + 1, "a gap on disk"
            self.disk[new.first - 1 :] = zip(new.terms(), new.entries, strict=True)
        self.log.persisted(sequence)

    @rule(share=st.floats(0, 1))
    def commit(self, share: float) -> None:
        self.log.commit += int((len(self.entries) - self.log.commit) * share)

    @rule(share=st.floats(0, 1))
    def apply(self, share: float) -> None:
        ready = min(self.log.commit, self.log.durable)
        self.log.applied += max(0, int((ready - self.log.applied) * share))

    @rule(limit=st.integers(0, 60))
    def evict(self, limit: int) -> None:
        before, size = self.log.first, self.log.memory_bytes
        self.log.evict(limit)
        safe = min(self.log.applied, self.log.durable)
        assert before <= self.log.first <= max(before, safe + 1)
        if size > limit + limit // 4:
            assert self.log.memory_bytes <= limit or self.log.first == max(before, safe + 1)

    @rule(share=st.floats(0, 1))
    def compact(self, share: float) -> None:
        safe = min(self.log.applied, self.log.durable)
        index = self.log.base_index + max(0, int((safe - self.log.base_index) * share))
        self.log.compacted(index, self.term_at(index))

    @rule(beyond=st.integers(1, 5))
    def install(self, beyond: int) -> None:
        """A snapshot behind the end; writes still queued finish before it, and are told of afterwards."""
        index = len(self.entries) + beyond
        self.entries += [(self.term, b"only in the snapshot")] * beyond
        self.disk = list(self.entries)
        self.log.reset(index, self.term)
        for sequence, _ in self.queue:
            self.log.persisted(sequence)
        self.queue.clear()
        assert self.log.durable == self.log.commit == self.log.applied == self.log.last == index

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def positions(self) -> None:
        log = self.log
        assert log.last == len(self.entries)
        assert log.last_term == self.term_at(log.last)
        assert log.base_index <= log.applied <= log.commit <= log.last
        assert log.base_index < log.first <= log.commit + 1
        assert log.memory_bytes == sum(len(entry) for _, entry in self.entries[log.first - 1 :])

    @invariant()
    def content(self) -> None:
        log = self.log
        for index in range(log.base_index, log.last + 1):
            assert log.term(index) == self.term_at(index)
        for index in range(log.first, log.last + 1):
            assert log.entry(index) == self.entries[index - 1][1]
            assert index in log
        assert log.term(log.last + 1) is None
        assert log.first - 1 not in log
        assert log.last + 1 not in log
        if log.base_index:
            assert log.term(log.base_index - 1) is None

    @invariant()
    def durability(self) -> None:
        """Durable is on disk now, and no write still queued will replace it."""
        log = self.log
        assert log.durable <= log.last
        assert self.disk[log.base_index : log.durable] == self.entries[log.base_index : log.durable]
        for _, new in self.queue:
            if new is not None and new.first <= log.durable:
                kept = list(zip(new.terms(), new.entries, strict=True))[: log.durable - new.first + 1]
                assert kept == self.entries[new.first - 1 : log.durable]
        if not self.queue and log.unsaved is None:
            assert log.durable == log.last

    @rule(start=st.floats(0, 1), max_entries=st.integers(1, 5), max_bytes=st.integers(1, 40))
    def read(self, start: float, max_entries: int, max_bytes: int) -> None:
        first = self.log.first + int((self.log.last + 1 - self.log.first) * start)
        found = self.log.slice(first, max_entries, max_bytes)
        assert found.first == first
        count = len(found.entries)
        expected = self.entries[first - 1 : first - 1 + count]
        assert list(zip(found.terms() if found.entries else (), found.entries, strict=True)) == expected
        rest = self.entries[first - 1 :]
        assert (count == 0) is (not rest)
        assert count <= max_entries
        assert count <= 1 or sum(len(entry) for _, entry in expected) <= max_bytes
        if count < min(max_entries, len(rest)):
            assert sum(len(entry) for _, entry in rest[: count + 1]) > max_bytes, "it could have been longer"
        assert self.log.size_between(first, first + count - 1) == sum(len(entry) for _, entry in expected)

    @rule(index=st.integers(0, 40), term=st.integers(0, 12))
    def search_back(self, index: Index, term: Term) -> None:
        base = self.log.base_index
        known = [n for n in range(base, min(index, self.log.last) + 1) if self.term_at(n) <= term]
        if known:
            assert self.log.last_at_or_below(index, term) == (known[-1], self.term_at(known[-1]))
        else:
            at, its_term = self.log.last_at_or_below(index, term)
            assert at <= max(index, base)
            assert its_term == self.term_at(base), "the oldest term that is known"


TestLogModel = LogModel.TestCase
TestLogModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_rule_37_committed_entries_are_not_replaced() -> None:
    log = RaftLog(piece(1, [1, 1, 1]), 0, 0, 0)
    log.commit = 2
    with pytest.raises(InvariantError, match="committed entries would be replaced"):
        log.replace_from(2, piece(2, [2]))
    log.replace_from(3, piece(3, [2]))
    assert [log.term(n) for n in (1, 2, 3)] == [1, 1, 2]


def test_terms_never_fall_along_a_log() -> None:
    log = RaftLog(piece(1, [1, 3]), 0, 0, 0)
    with pytest.raises(InvariantError, match="terms fall"):
        log.append(2, [command("x")])


def test_a_slice_begins_in_memory() -> None:
    log = RaftLog(piece(5, [2, 2]), 1, 2, 1, ((3, 1),))
    assert log.slice(7, 9, 99).entries == []
    for first in (4, 8):
        with pytest.raises(InvariantError, match="outside memory"):
            log.slice(first, 9, 99)


def test_a_log_that_was_read_from_disk_knows_all_its_terms() -> None:
    log = RaftLog(piece(8, [4, 4, 5]), 4, 2, 1, ((3, 1), (4, 3), (6, 4)))
    assert [log.term(n) for n in range(1, 12)] == [None, 1, 1, 3, 3, 4, 4, 4, 4, 5, None]
    assert (log.first, log.last, log.durable, log.commit, log.applied) == (8, 10, 10, 2, 2)
    assert log.last_at_or_below(10, 3) == (5, 3)
    assert log.last_at_or_below(10, 2) == (3, 1)
    assert log.last_at_or_below(10, 0) == (3, 1), "nothing older is known"


def test_truncating_beyond_the_end_is_nothing() -> None:
    log = RaftLog(piece(1, [1, 1]), 0, 0, 0)
    log.truncate(3)
    assert (log.last, log.durable) == (2, 2)
    log.truncate(2)
    assert (log.last, log.durable) == (1, 1)


def test_a_piece_without_entries_conflicts_with_nothing() -> None:
    log = RaftLog(piece(1, [1, 1]), 0, 0, 0)
    assert log.first_conflict(LogSlice(9, [], ())) is None
