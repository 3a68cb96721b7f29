"""Take rules out and see who notices. Ends with 1 if some test did not."""

import contextlib
import os
import sys
import time

import pytest

from tests.removals import REMOVALS
from tests.removals.words import Removal
from tests.sim.mutation import planted

OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
PASSED, FAILED, NOT_RUN = range(3)


class Notice:
    """A pytest plugin that counts."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed += report.failed
        self.passed += report.passed and report.when == "call"


def noticed(removal: Removal, test: str) -> bool:
    """Whether the test fails without the rule, tried in a child process: a test that fails may leave much behind."""
    child = os.fork()
    if child == 0:
        notice = Notice()
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
        with contextlib.suppress(BaseException), planted(*removal.edits):
            pytest.main([*OPTIONS, f"tests/{test}"], [notice])
        os._exit(FAILED if notice.failed else PASSED if notice.passed else NOT_RUN)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (PASSED, FAILED):
        raise SystemExit(f"{test} was not run, or the edit of {removal.edits[0].where} does not fit any more")
    return code == FAILED


def main(numbers: list[int]) -> int:
    blind = 0
    for removal in REMOVALS:
        if numbers and removal.rule not in numbers:
            continue
        for test in removal.tests:
            began = time.monotonic()
            seen = noticed(removal, test)
            blind += not seen
            word = "noticed" if seen else "NOT SEEN"
            print(
                f"{removal.rule:>3} {removal.edits[0].where}: {word} by {test} ({time.monotonic() - began:.1f} s)",
                flush=True,
            )
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]]))
