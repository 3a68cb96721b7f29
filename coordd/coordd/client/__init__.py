"""The client library: for agents, the command line, and applications.

    with Client(servers=[("192.0.2.1:8311", PUBLIC_KEY)], token=SECRET) as client:
        client.kv_put("greeting", b"hello")
        with client.lock("nightly", ttl=15) as lock:
            client.kv_put("report", b"done", fence=Fence("nightly", lock.token))

`Client` is for threads, `AsyncClient` for asyncio; both are thin shells around one core without I/O (`core.py`,
`exchange.py`), which decides whom to ask, what may be sent again, and what an answer, or none, means. Errors are those
of `coordd.errors`: OutcomeUnknownError is the only one after which a write may have taken effect.
"""

from typing import TYPE_CHECKING

from coordd.client.asks import Ask
from coordd.client.blocking import Client, Subscribed
from coordd.client.lock import Lock
from coordd.messages.command import Fence

if TYPE_CHECKING:
    from coordd.client.aio import AsyncClient
    from coordd.client.aio_lock import AsyncLock

__all__ = ["Ask", "AsyncClient", "AsyncLock", "Client", "Fence", "Lock", "Subscribed"]


def __getattr__(name: str) -> object:
    """Asyncio is imported for those who use it: it would double the start of a command."""
    if name == "AsyncClient":
        from coordd.client.aio import AsyncClient

        return AsyncClient
    if name == "AsyncLock":
        from coordd.client.aio_lock import AsyncLock

        return AsyncLock
    raise AttributeError(name)
