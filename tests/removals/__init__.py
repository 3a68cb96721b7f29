"""Rules taken out of the product one at a time, and the tests that notice: the proof behind docs/rules.md.

`python -m tests.removals [NUMBER…]` takes each rule out (see `sim/mutation.py`; no file changes), runs the tests named
beside it and tells which of them did not notice. Rules that only the simulator can see are in `sim/bugs.py`.

    words.py                   what a removal is, and the names of long files
    consensus.py               groups A to E and J of the list: terms, votes, replication, reads, the disk
    life.py                    groups F to I and K: members, snapshots, transfers, the state, the wire
    operation.py               78: addresses; 93 and 95: versions beside each other; 82, 83, 100: what must not be crowded out
    __main__.py                takes out, runs, tells
"""

from tests.removals import consensus, life, operation
from tests.removals.words import Removal

__all__ = ["REMOVALS"]

REMOVALS: tuple[Removal, ...] = tuple(
    sorted(consensus.REMOVALS + life.REMOVALS + operation.REMOVALS, key=lambda removal: removal.rule)
)
