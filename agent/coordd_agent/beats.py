"""Heartbeats of this node: as long as they arrive, the leader keeps the node's check `serfHealth` passing."""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from coordd.errors import CoorddError, DeniedError, NotFoundError
from coordd.messages.client import AgentBeat, BeatTaken
from coordd_agent.cluster import Cluster

__all__ = ["Beats"]

log = logging.getLogger(__name__)

FIRST_INTERVAL_S = 1.0
LEAST_S, MOST_S = 0.1, 60.0
PATIENCE_S = 2.0
"""A beat that is answered later says nothing any more."""


class Beats:
    def __init__(
        self,
        node: str,
        cluster: Cluster,
        *,
        on_taken: Callable[[float], None],
        on_unknown: Callable[[], None],
        on_denied: Callable[[], None],
    ) -> None:
        """`on_taken(monotonic time)`: a server took one. `on_unknown`: the catalog does not have this node. `on_denied`:
        the token did well until now."""
        self.taken_at: float | None = None
        """Monotonic time at which a server last took a beat."""
        self._node = node
        self._cluster = cluster
        self._on_taken = on_taken
        self._on_unknown = on_unknown
        self._on_denied = on_denied
        self._denied = False
        self._interval = FIRST_INTERVAL_S

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        problem = ""
        while True:
            began = loop.time()
            was, problem = problem, await self._beat()
            if problem and not was:
                log.warning("heartbeat not taken: %s", problem)
            elif was and not problem:
                log.info("heartbeats are taken again")
            # A little early and never in step with other agents.
            pause = min(self._interval, FIRST_INTERVAL_S) if problem else self._interval
            await asyncio.sleep(max(0.0, began + pause * random.uniform(0.85, 1.0) - loop.time()))  # noqa: S311

    async def _beat(self) -> str:
        try:
            reply = await self._cluster.request(AgentBeat(self._node), timeout=PATIENCE_S)
        except NotFoundError as error:
            self._on_unknown()
            return str(error)
        except DeniedError as error:
            if not self._denied:
                self._on_denied()
            self._denied = True
            return str(error)
        except CoorddError as error:
            return str(error)
        if not isinstance(reply, BeatTaken):
            return f"the server answered a heartbeat with {type(reply).__name__}"
        self._interval = min(max(reply.interval_ms / 1000, LEAST_S), MOST_S)
        self._denied = False
        self.taken_at = time.monotonic()
        self._on_taken(self.taken_at)
        return ""
