"""Does a test notice that something was taken out of the product?"""

import contextlib
import os
from collections.abc import Sequence

import pytest

from tests.sim.mutation import Edit, planted

__all__ = ["notices"]

OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]


class _Count:
    """A pytest plugin."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed += report.failed
        self.passed += report.passed and report.when == "call"


def notices(edits: Sequence[Edit], test: str) -> bool:
    """Whether the test, a node id below `tests/`, fails with these edits. To be asked in a child process of its own
    (`sim/children.py`): a test that fails may leave much behind.

    Raises: LookupError if an edit does not fit any more, RuntimeError if there was no such test to run.
    """
    count = _Count()
    silence = os.open(os.devnull, os.O_WRONLY)
    loud = os.dup(1), os.dup(2)
    with planted(*edits):
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            with contextlib.suppress(SystemExit):
                pytest.main([*OPTIONS, f"tests/{test}"], [count])
        finally:
            os.dup2(loud[0], 1)
            os.dup2(loud[1], 2)
    if not count.passed and not count.failed:
        raise RuntimeError(f"tests/{test} was not run")
    return count.failed > 0
