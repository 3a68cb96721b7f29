"""Is every planted bug caught, and by what?

    python -m tests.sim.planted [NAME…]      look for the seed that notices each soonest, and write it down
    python -m tests.sim.planted --check      only whether what is written down still notices each

A bug that nothing notices within its time means that the simulator is blind there: the command ends with 1. Since any change
of the product changes what a seed does, a check goes on to the next seeds before it gives up.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.removals.trial import notices
from tests.sim.bugs import BUGS
from tests.sim.children import in_children
from tests.sim.mutation import planted
from tests.sim.run import Outcome, run
from tests.sim.surroundings import Options

__all__ = ["SEEDS", "Catch", "hunt", "recorded"]

FILE = Path(__file__).with_name("planted.tsv")
SECONDS = 20.0
"""Simulated, of each run."""
LIMIT = 300.0
"""Seconds of one core's time for each bug."""
PATIENCE = 4 * LIMIT
"""Real seconds: other work may slow this one down."""
ENOUGH = 2
"""Seeds that notice, of which a search takes the one that does so soonest."""
TRIED = 150
MORE = 60
"""Seeds that a check tries behind the one that is written down."""


class Catch(NamedTuple):
    bug: str
    by: str
    """A seed, or a test."""
    seconds: float
    """Real ones until it noticed."""
    told: str
    """What it said."""


def recorded() -> dict[str, Catch]:
    """What the last search wrote down."""
    lines = FILE.read_text(encoding="utf-8").splitlines()[1:] if FILE.exists() else []
    found = (line.split("\t") for line in lines)
    return {bug: Catch(bug, by, float(seconds), told) for bug, by, seconds, told in found}


SEEDS = recorded()


def hunt(bug: str, seeds: range, enough: int = 1) -> Catch | None:
    """Of the first seeds that fail with the bug planted, and not without it, the one that does so soonest."""
    caught: list[Catch] = []
    began = time.process_time()
    for seed in seeds:
        limit = LIMIT / 10 if caught else LIMIT
        if len(caught) == enough or time.process_time() - began > limit:
            break
        options = Options(seed, SECONDS)
        before = time.process_time()
        outcome = _with_bug(bug, options)
        spent = time.process_time() - before
        if outcome.failure and not run(options).failure:
            caught.append(Catch(bug, f"seed {seed}", round(spent, 2), outcome.failure.split("(")[0].strip()))
    return min(caught, key=lambda catch: catch.seconds, default=None)


def _with_bug(bug: str, options: Options) -> Outcome:
    with planted(*BUGS[bug].edits):
        return run(options)


def search(bug: str) -> Catch | None:
    test = BUGS[bug].test
    return _by_test(bug, test) if test else hunt(bug, range(1, 1 + TRIED), ENOUGH)


def check(bug: str) -> Catch | None:
    test = BUGS[bug].test
    if test:
        return _by_test(bug, test)
    first = int(SEEDS[bug].by.removeprefix("seed ")) if bug in SEEDS else 1
    return hunt(bug, range(first, first + 1 + MORE))


def _by_test(bug: str, test: str) -> Catch | None:
    began = time.monotonic()
    if not notices(BUGS[bug].edits, test):
        return None
    return Catch(bug, f"tests/{test}", round(time.monotonic() - began, 2), "it fails")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.planted", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these bugs")
    parser.add_argument("--check", action="store_true", help="look only where the last search found it")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at a time (default 2)")
    settings = parser.parse_args(arguments)
    names = settings.names or list(BUGS)
    survivors = []
    found = dict(SEEDS)
    for bug, catch in in_children(check if settings.check else search, names, settings.jobs, PATIENCE):
        if catch is None:
            survivors.append(bug)
            print(f"{bug:<50} SURVIVED", flush=True)
            continue
        found[bug] = catch
        anew = bug in SEEDS and SEEDS[bug].by != catch.by and settings.check
        told = f"{catch.by}{' (not the one written down)' if anew else ''}, {catch.seconds:.1f} s: {catch.told}"
        print(f"{bug:<50} {told[:150]}", flush=True)
        if not settings.check:
            _write([found[bug] for bug in BUGS if bug in found])
    print(f"{len(names) - len(survivors)} of {len(names)} caught")
    return 1 if survivors else 0


def _write(catches: list[Catch]) -> None:
    lines = ["\t".join(Catch._fields), *("\t".join(map(str, catch)) for catch in catches)]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
