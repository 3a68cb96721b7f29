"""Take rules out and see who notices. Ends with 1 if some test did not."""

import argparse
import sys
import time

from tests.removals import REMOVALS
from tests.removals.trial import notices
from tests.removals.words import Removal
from tests.sim.children import in_children


def tried(case: tuple[Removal, str]) -> tuple[bool, float]:
    """Whether the test noticed, and after how many seconds."""
    began = time.monotonic()
    return notices(case[0].edits, case[1]), time.monotonic() - began


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.removals", description=__doc__)
    parser.add_argument("rules", nargs="*", type=int, metavar="NUMBER", help="only these rules")
    parser.add_argument("--jobs", type=int, default=1, help="tests at a time (default 1)")
    parser.add_argument("--quiet", action="store_true", help="only what was not noticed")
    settings = parser.parse_args(arguments)
    chosen = [removal for removal in REMOVALS if not settings.rules or removal.rule in settings.rules]
    cases = [(removal, test) for removal in chosen for test in removal.tests]
    blind = 0
    for (removal, test), result in in_children(tried, cases, settings.jobs, seconds=300.0):
        seen, seconds = result or (False, 0.0)  # no result: the child has said why, or took too long
        blind += not seen
        word = "noticed" if seen else "NOT SEEN"
        if not (seen and settings.quiet):
            print(f"{removal.rule:>3} {removal.edits[0].where}: {word} by {test} ({seconds:.1f} s)", flush=True)
    print(f"{len(cases) - blind} of {len(cases)} removals noticed")
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main())
