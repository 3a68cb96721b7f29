"""TCP check: whatever listens must accept a connection."""

import asyncio

from coordd.messages.local import CheckSpec
from coordd_agent.checks.schedule import Outcome

__all__ = ["probe_tcp"]


async def probe_tcp(spec: CheckSpec) -> Outcome:
    """Raises: OSError if there is no connection."""
    host, _, port = spec.tcp.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    # Not closed politely: nothing was sent, and waiting for the other side's end would count as the check's time.
    writer.transport.abort()
    return Outcome("passing", f"TCP connect {spec.tcp}: success")
