"""The same invariants from scratch: everything compared with everything after each step, believing no induction.

Slow; a run that passes `invariants.py` must pass here too. What is compared are whole logs, on disk and in memory.
"""

from itertools import combinations

from tests.sim.ledger import Ledger, TermLog, majorities
from tests.sim.violation import check

__all__ = ["from_scratch"]


def from_scratch(ledger: Ledger) -> None:
    """Raises: Violation."""
    logs = [(record.id, log) for record in ledger.records.values() for log in (record.submitted, record.durable)]
    for (one, log), (other, another) in combinations(logs, 2):
        place = _disagreement(log, another)
        check(place == 0, 2, "logs agree on an entry but not on what is before it", one=one, other=other, index=place)
    for record in ledger.records.values():
        if not record.up:
            continue
        check(record.commit <= ledger.commit, 6, "a commit index that nobody reached", server=record.id)
        # A state may be ahead of a log that has forgotten its end, and nothing behind that end is called committed there.
        known = max(record.commit, record.durable.base, record.restored)
        check(record.applied <= min(known, ledger.commit), 8, "applied beyond commit", server=record.id)
        check(record.applied <= record.promised, 8, "applied beyond the own durable log", server=record.id)
        held = record.submitted
        for index in range(held.base, min(record.commit, held.last) + 1):
            check(
                held.term(index) == ledger.committed[index],
                6,
                "a committed entry is another",
                server=record.id,
                index=index,
            )
        if record.role == "leader":
            _complete(ledger, record.submitted, record.term)
    leading = [(record.term, record.id) for record in ledger.records.values() if record.up and record.role == "leader"]
    check(len({term for term, _ in leading}) == len(leading), 1, "two leaders in one term", leading=leading)
    _durable(ledger)


def _disagreement(one: TermLog, other: TermLog) -> int:
    """The first index that differs although a later entry is the same; 0: the logs match."""
    first, last = max(one.base, other.base) + 1, min(one.last, other.last)
    same = [one.term(index) == other.term(index) for index in range(first, last + 1)]
    agreed = max((place for place, equal in enumerate(same) if equal), default=-1)
    return next((first + place for place, equal in enumerate(same[: agreed + 1]) if not equal), 0)


def _complete(ledger: Ledger, log: TermLog, term: int) -> None:
    """A leader has every entry that was committed in the terms before its own."""
    for index in range(log.base, ledger.commit + 1):
        if ledger.committed_in[index] < term:
            check(
                log.term(index) == ledger.committed[index],
                3,
                "a leader misses a committed entry",
                index=index,
                term=term,
            )


def _durable(ledger: Ledger) -> None:
    """The newest committed entry is on a deciding set of disks, by the newest committed configuration or a later one."""
    commit = ledger.commit
    if not commit:
        return
    term = ledger.committed[commit]
    having = {
        r.id
        for r in ledger.records.values()
        if r.durable.base >= commit or r.durable.term(commit) == term or r.owes >= commit  # who owes does not vote
    }
    committed = max((i for (i, t) in ledger.configurations if i <= commit and ledger.committed[i] == t), default=0)
    later = [
        c for (i, t), c in ledger.configurations.items() if i > commit or (i == committed and ledger.committed[i] == t)
    ]
    check(
        any(majorities(c, having) for c in later),
        5,
        "a committed entry left its quorum",
        index=commit,
        having=sorted(having),
    )
