"""Under CI a skip is a failure, unless allowed_skips.txt names the test and says why.

A test that skips itself where a program or a right is missing is kind to a laptop, and dangerous in CI: the day the
program goes missing there, the suite stays green and tests nothing.
"""

import os
import re
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("allowed_skips.txt")


def read_allowed(path: Path) -> list[tuple[re.Pattern[str], str]]:
    """The list's lines as (pattern of node ids, reason); a line without a reason is an error."""
    allowed = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        glob, _, reason = (part.strip() for part in line.partition("\t"))
        if not glob or not reason:
            raise pytest.UsageError(f"{path.name}:{number}: expected a node id, a tab and a reason, got {line!r}")
        allowed.append((re.compile(".*".join(re.escape(part) for part in glob.split("*"))), reason))
    return allowed


class SkipsFail:
    """Collects the skips that no line of the list allows, and fails the run if there were any."""

    def __init__(self, list_file: Path) -> None:
        self._allowed = read_allowed(list_file)
        self._offences: list[str] = []

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        expected_failure = hasattr(report, "wasxfail")
        if not report.skipped or expected_failure:
            return
        if any(pattern.fullmatch(report.nodeid) for pattern, _ in self._allowed):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self._offences.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._offences and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._offences:
            terminalreporter.section("skips that CI does not allow", red=True)
            for offence in sorted(set(self._offences)):
                terminalreporter.write_line(offence)
            terminalreporter.write_line(f"Install what they miss, or name them in {LIST.name} with a reason.")


def pytest_configure(config: pytest.Config) -> None:
    """Watch over skips under CI; with pytest-xdist in the controlling process alone, which hears of them all."""
    if os.environ.get("CI") == "true" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipsFail(LIST), "skips-fail")
