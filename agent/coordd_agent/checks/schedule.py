"""When a check runs, and when its results count.

`run_check` repeats one probe for ever: first at a random moment within its interval, so that a restarted agent does not
ask everything at once, then once an interval, never twice at the same time. A probe that raises or takes too long is
critical. `Thresholds` is pure: it turns results into the status that is told, which changes only after enough of the
same in a row.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from coordd.messages.command import CheckStatus
from coordd.messages.local import CheckSpec

__all__ = ["MAX_OUTPUT_BYTES", "Outcome", "Probe", "Report", "Thresholds", "run_check", "shorten"]

MAX_OUTPUT_BYTES = 4096


class Outcome(NamedTuple):
    status: CheckStatus
    output: str


Probe: TypeAlias = Callable[[], Awaitable[Outcome]]
Report: TypeAlias = Callable[[str, CheckStatus, str], None]
"""(check id, status, output)."""


def shorten(text: str) -> str:
    """At most MAX_OUTPUT_BYTES in UTF-8; the beginning says what went wrong."""
    data = text.encode(errors="replace")
    return text if len(data) <= MAX_OUTPUT_BYTES else data[:MAX_OUTPUT_BYTES].decode(errors="ignore")


class Thresholds:
    """Which status results amount to. Warnings count as success, as in Consul."""

    def __init__(self, spec: CheckSpec, status: CheckStatus) -> None:
        self.status: CheckStatus = status
        self._needed = {True: spec.success_before_passing, False: spec.failures_before_critical}
        self._success = True
        self._in_a_row = 0

    def judge(self, result: CheckStatus) -> CheckStatus:
        success = result != "critical"
        self._in_a_row = self._in_a_row + 1 if success == self._success else 1
        self._success = success
        if self._in_a_row >= self._needed[success]:
            self.status = result
        return self.status


async def run_check(check_id: str, spec: CheckSpec, status: CheckStatus, probe: Probe, report: Report) -> None:
    """Runs until cancelled. `status`: where it begins."""
    loop = asyncio.get_running_loop()
    interval = spec.interval_ms / 1000
    thresholds = Thresholds(spec, status)
    due = loop.time() + random.uniform(0, interval)  # noqa: S311  spreads load, guards nothing
    while True:
        await asyncio.sleep(due - loop.time())
        outcome = await _try(spec, probe)
        report(check_id, thresholds.judge(outcome.status), shorten(outcome.output))
        # Runs that were missed, because one took long or the host slept, are not made up for.
        due = max(due + interval, loop.time() + min(interval, 1.0) * 0.1)


async def _try(spec: CheckSpec, probe: Probe) -> Outcome:
    try:
        async with asyncio.timeout(spec.timeout_ms / 1000):
            return await probe()
    except TimeoutError:
        return Outcome("critical", f"no answer within {spec.timeout_ms} ms")
    except Exception as error:
        # Whatever the other side brings a probe to raise: it says that something is wrong there.
        return Outcome("critical", f"{type(error).__name__}: {error}")
