"""What the tables of removals are written in."""

from typing import NamedTuple

from tests.sim.mutation import Edit

__all__ = [
    "ELECTIONS",
    "MEMBERSHIP",
    "PERSISTENCE",
    "READS",
    "REPLICATION",
    "SNAPSHOTS",
    "TIMING",
    "TRANSFER",
    "WINDOW",
    "Removal",
    "gone",
]

ELECTIONS = "raft/test_elections.py::"
MEMBERSHIP = "raft/test_membership.py::"
PERSISTENCE = "raft/test_persistence.py::"
READS = "raft/test_reads.py::"
REPLICATION = "raft/test_replication.py::"
SNAPSHOTS = "raft/test_snapshots.py::"
WINDOW = "raft/test_window.py::"
TIMING = "raft/test_timing.py::"
TRANSFER = "raft/test_transfer.py::"


class Removal(NamedTuple):
    rule: int
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """Node ids below `tests/`. Each of them must fail; of a test with parameters, one case."""


def gone(rule: int, where: str, old: str, new: str, *tests: str) -> Removal:
    """Without a rule that stands in one place; `where` is below `coordd.`."""
    return Removal(rule, (Edit(f"coordd.{where}", old, new),), tests)
