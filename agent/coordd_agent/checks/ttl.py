"""TTL check: the service reports itself, and turns critical when it has been silent for too long."""

import asyncio

from coordd.messages.local import CheckSpec
from coordd_agent.checks.schedule import Report

__all__ = ["TtlTimer"]


class TtlTimer:
    """Runs for one check. `renew` after each report of the service."""

    def __init__(self, check_id: str, spec: CheckSpec, report: Report, left_s: float | None = None) -> None:
        """`left_s`: what was left of the TTL when the agent stopped."""
        self._check_id = check_id
        self._spec = spec
        self._report = report
        self._ttl = spec.ttl_ms / 1000
        self._left = self._ttl if left_s is None else min(left_s, self._ttl)
        self._renewed = asyncio.Event()

    def renew(self) -> None:
        self._renewed.set()

    async def run(self) -> None:
        """Until cancelled."""
        left = self._left
        while True:
            try:
                async with asyncio.timeout(left):
                    await self._renewed.wait()
            except TimeoutError:
                self._report(self._check_id, "critical", f"TTL expired: no report for {self._spec.ttl_ms} ms")
                await self._renewed.wait()
            self._renewed.clear()
            left = self._ttl
