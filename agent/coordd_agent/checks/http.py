"""HTTP check: 2xx passes, 429 warns, everything else is critical, redirects included.

aiohttp is loaded with the first such check: it is the largest import of the agent. Link-local addresses are refused
unless allowed, also behind a name or written as IPv4 in IPv6, since clouds hand out credentials there; no proxy is
used, whatever the environment says. Of the body at most 4 KiB are read.
"""

import contextlib
import errno
import ipaddress
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from coordd.messages.local import CheckSpec
from coordd_agent.checks.schedule import MAX_OUTPUT_BYTES, Outcome

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HttpProber"]

USER_AGENT = "coordd-agent health check"
MAX_CONNECTIONS = 256


class HttpProber:
    """All HTTP checks of an agent share its session. `close` at the end."""

    def __init__(self, allow_link_local: bool) -> None:
        self._allow_link_local = allow_link_local
        self._session: aiohttp.ClientSession | None = None

    async def probe(self, spec: CheckSpec) -> Outcome:
        """Raises: OSError or ValueError if there is no answer."""
        import aiohttp

        if not self._allow_link_local and _is_link_local(urlsplit(spec.http).hostname or ""):
            return Outcome("critical", f"{spec.http} is a link-local address; checks.allow_link_local is false")
        session = self._open()
        try:
            async with session.request(
                spec.method,
                spec.http,
                headers={"User-Agent": USER_AGENT, **spec.headers},
                data=spec.body.encode() or None,
                allow_redirects=False,
                ssl=not spec.tls_skip_verify,
            ) as response:
                body = await _beginning(response)
        except aiohttp.ClientError as error:
            raise OSError(f"{spec.method} {spec.http}: {error}") from error
        line = f"HTTP {spec.method} {spec.http}: {response.status} {response.reason or ''}"
        text = f"{line} Output: {body.decode(errors='replace')}"
        if response.status == 429:
            return Outcome("warning", text)
        return Outcome("passing" if 200 <= response.status < 300 else "critical", text)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None:
            # A new connection each time: an old one would still work when nothing listens any more.
            resolver = None if self._allow_link_local else _careful_resolver()
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, force_close=True, resolver=resolver)
            # The check's own timeout is the only one.
            no_timeout = aiohttp.ClientTimeout(total=None, sock_connect=None)
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, timeout=no_timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


async def _beginning(response: "aiohttp.ClientResponse") -> bytes:
    """As much of the body as is shown; the rest stays unread, and the connection is closed."""
    body = b""
    with contextlib.suppress(EOFError):
        while len(body) < MAX_OUTPUT_BYTES and (part := await response.content.read(MAX_OUTPUT_BYTES - len(body))):
            body += part
    response.close()
    return body


def _is_link_local(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_link_local


def _careful_resolver() -> Any:
    """Resolves names as the system does, and leaves link-local addresses out."""
    from aiohttp.abc import ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class Careful(ThreadedResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            fit = [one for one in found if not _is_link_local(one["host"])]
            if not fit:
                text = f"{host} has only link-local addresses; checks.allow_link_local is false"
                raise OSError(errno.EACCES, text)
            return fit

    return Careful()
