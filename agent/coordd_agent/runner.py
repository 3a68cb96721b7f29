"""Runs the registry's checks: one task each, begun and ended as checks come and go."""

import asyncio
from collections.abc import Coroutine

from coordd.messages.command import CheckStatus
from coordd_agent.cache import StartTask
from coordd_agent.checks.http import HttpProber
from coordd_agent.checks.schedule import Outcome, run_check
from coordd_agent.checks.tcp import probe_tcp
from coordd_agent.checks.ttl import TtlTimer
from coordd_agent.registry import CheckState, Registry

__all__ = ["CheckRunner"]


class CheckRunner:
    def __init__(self, registry: Registry, allow_link_local: bool, start_task: StartTask) -> None:
        self._registry = registry
        self._http = HttpProber(allow_link_local)
        self._start_task = start_task
        self._tasks: dict[str, tuple[CheckState, asyncio.Task[None]]] = {}
        self._timers: dict[str, TtlTimer] = {}

    def follow(self, wall_now: float) -> None:
        """Make the tasks those of the registry's checks. To be called after each change of services."""
        wanted = self._registry.checks
        for check_id, (state, task) in list(self._tasks.items()):
            now = wanted.get(check_id)
            if now is None or (now.spec, now.service_id) != (state.spec, state.service_id):
                task.cancel()
                del self._tasks[check_id]
                self._timers.pop(check_id, None)
        for check_id, state in wanted.items():
            if check_id not in self._tasks:
                self._tasks[check_id] = (state, self._start_task(self._task(check_id, state, wall_now)))

    def renew(self, check_id: str) -> None:
        """The service reported for its TTL check."""
        if timer := self._timers.get(check_id):
            timer.renew()

    async def close(self) -> None:
        for _, task in self._tasks.values():
            task.cancel()
        await self._http.close()

    def _task(self, check_id: str, state: CheckState, wall_now: float) -> Coroutine[None, None, None]:
        spec = state.spec
        if spec.ttl_ms:
            saved = self._registry.reports.get(check_id)
            left_s = max(0.0, saved.expires_at - wall_now) if saved else None
            timer = self._timers[check_id] = TtlTimer(check_id, spec, self._report, left_s)
            return timer.run()

        async def probe() -> Outcome:
            return await (self._http.probe(spec) if spec.http else probe_tcp(spec))

        return run_check(check_id, spec, state.status, probe, self._report)

    def _report(self, check_id: str, status: CheckStatus, output: str) -> None:
        self._registry.report(check_id, status, output)
