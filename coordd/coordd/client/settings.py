"""Where a client finds its cluster: arguments or environment to addresses with keys."""

import time
from collections.abc import Iterable, Mapping

from coordd.errors import ConfigError
from coordd.transport.clients import resolve_address
from coordd.transport.security import check_key

__all__ = ["IPC", "clock", "from_environment", "seeds"]

_AGENT, _SERVERS, _TOKEN = "COORD_AGENT", "COORD_SERVERS", "COORD_TOKEN"
IPC = "ipc://"


def clock() -> float:
    """Seconds that never go back and go on while the host is suspended: what a TTL is counted in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def seeds(servers: Iterable[tuple[str, str]], agent: str) -> dict[str, str]:
    """Address → public key, names resolved (which may block); the agent's path has no key.

    Raises: ConfigError if there is neither, there are both, or one is wrong.
    """
    listed = list(servers)
    if agent and listed:
        raise ConfigError("give either servers or an agent's path, not both")
    if agent:
        if not agent.startswith(IPC) or agent == IPC:
            raise ConfigError(f"agent {agent!r} is not of the form ipc:///path")
        return {agent: ""}
    if not listed:
        raise ConfigError(f"no server is known: set {_AGENT} to ipc:///path, or {_SERVERS} to host:port@KEY,…")
    return {resolve_address(address): check_key(key) for address, key in listed}


def from_environment(environ: Mapping[str, str]) -> tuple[list[tuple[str, str]], str, str]:
    """(servers, agent, token). COORD_AGENT wins over COORD_SERVERS, which is `host:port@KEY`, separated by commas.

    Raises: ConfigError naming the variable.
    """
    token = environ.get(_TOKEN, "")
    if agent := environ.get(_AGENT, ""):
        return [], agent, token
    servers = []
    for item in filter(None, (part.strip() for part in environ.get(_SERVERS, "").split(","))):
        address, at, key = item.partition("@")
        if not at:
            raise ConfigError(f"{_SERVERS}: {item!r} is not of the form host:port@KEY")
        servers.append((address, key))
    return servers, "", token
