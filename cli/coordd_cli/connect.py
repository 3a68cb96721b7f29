"""The way from a command to the cluster: through the local agent, or straight to servers whose keys are pinned.

Answers come back as the type that the command expects; everything else is raised as an error of coordd.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from coordd.client import Client, asks
from coordd.errors import CoorddError, DeniedError, TransportError
from coordd.messages.client import Body, Consistency, Info, ReadResult, ServerInfo
from coordd.messages.command import Command
from coordd.messages.local import LocalBody
from coordd.messages.query import Query
from coordd_cli.call import UsageError
from coordd_cli.settings import Resolved, default_agent_socket

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Link", "role_of"]

T = TypeVar("T")

ASK_EACH_SECONDS = 1.5
"""A server that is there answers at once; `members` must not wait long for those that are not."""


class Link:
    """One connection, for one command. Raises: ConfigError, TransportError if there is no agent to talk to."""

    def __init__(self, resolved: Resolved) -> None:
        self._resolved = resolved
        timeout = resolved.settings.timeout_s
        token = resolved.read_token()
        if resolved.direct:
            servers = [(one.address, one.public_key) for one in resolved.servers]
            self.client = Client(servers, token=token, timeout=timeout, name="coordctl")
        else:
            path = _agent_socket(resolved)
            self.client = Client(agent=f"ipc://{path}", token=token, timeout=timeout, name="coordctl")

    def close(self) -> None:
        self.client.close()

    def read(self, query: Query, kind: type[T], consistency: str = "") -> T:
        """`consistency`: in place of the setting."""
        chosen = cast(Consistency, consistency or self._resolved.settings.consistency)
        return asks.expect(self.client.ask(asks.read(query, consistency=chosen)).value, kind)

    def write(self, command: Command, kind: type[T]) -> T:
        return asks.expect(self.client.ask(asks.write(command)), kind)

    def request(self, body: Body, kind: type[T], timeout: float | None = None) -> T:
        return asks.expect(self.client.ask(asks.request(body, timeout)), kind)

    def local(self, body: LocalBody, kind: type[T]) -> T:
        """Ask the agent about what is its own."""
        if self._resolved.direct:
            raise UsageError(
                f"services and checks are registered with a host's agent, but {self._resolved.source('servers')} "
                "names servers; name the agent with --agent"
            )
        # The library passes on any body; only its types speak of what servers understand.
        return self.request(cast(Body, body), kind)

    def local_read(self, body: LocalBody, kind: type[T]) -> T:
        return asks.expect(self.local(body, ReadResult).value, kind)

    def ask_servers(self, servers: Sequence[ServerInfo]) -> dict[str, Info]:
        """What each server that can be reached says of itself, by its public key. All are asked at once."""
        if not servers:
            return {}
        direct = Client(
            [(one.client_address, one.public_key) for one in servers],
            token=self._resolved.read_token(),
            timeout=ASK_EACH_SECONDS,
        )
        try:
            asked: dict[str, Future[Info]] = {
                one.public_key: direct.start(asks.info(one.client_address)) for one in servers
            }
            return {key: answer for key, future in asked.items() if (answer := _answer(future)) is not None}
        finally:
            direct.close()


def role_of(server: ServerInfo, answers: Mapping[str, Info]) -> str:
    """leader, voter or learner. Whether it leads, a server that answers knows best itself."""
    own = answers[server.public_key].figures.get("role") if server.public_key in answers else None
    if own == "leader" or (own is None and server.leader):
        return "leader"
    return "voter" if server.voter else "learner"


def _answer(future: "Future[Info]") -> Info | None:
    try:
        return future.result()
    except DeniedError:
        return Info({})  # it is there, and does not tell us more
    except CoorddError:
        return None


def _agent_socket(resolved: Resolved) -> Path:
    """Raises: TransportError at once where the library would go on trying until the deadline."""
    path = resolved.settings.agent or default_agent_socket(os.environ)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            raise TransportError(
                f"no agent can be reached at {path} ({resolved.source('agent')}): {error.strerror or error}; "
                "is coordd-agent running? --server asks a server instead"
            ) from error
    return path
