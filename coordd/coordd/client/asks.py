"""What a client can ask, once for both shells: the request, and how its reply becomes a result or an error. Pure."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from coordd.errors import ConflictError, InvalidError, TransportError, request_error
from coordd.messages.client import (
    Body,
    Consistency,
    Info,
    InfoRequest,
    Read,
    ReadResult,
    Renewed,
    RenewSession,
    ReplyBody,
    Servers,
    ServersRequest,
    Write,
    Written,
)
from coordd.messages.codec import MAX_COMMAND_BYTES
from coordd.messages.command import (
    Command,
    CreateSession,
    Done,
    Failure,
    Fence,
    KvDelete,
    KvPut,
    LockGrant,
    SessionBehavior,
    encode,
)
from coordd.messages.query import Keys, KvGet, KvList, KvPair, KvPairs, Query
from coordd.types import Index

__all__ = [
    "Ask",
    "create_session",
    "expect",
    "info",
    "kv_delete",
    "kv_get",
    "kv_keys",
    "kv_list",
    "kv_put",
    "read",
    "relay",
    "renew_session",
    "request",
    "servers",
    "unheld",
    "write",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One request and the meaning of its reply."""

    body: Body
    result: Callable[[ReplyBody], T]
    """May raise a RequestError."""
    numbered: bool = False
    wait: float = 0.0
    """Seconds that the server may rightly take: a blocking read."""
    timeout: float | None = None
    """Seconds in place of the client's own setting."""
    server: str = ""
    token: str | None = None


def request(body: Body, timeout: float | None = None, server: str = "") -> Ask[ReplyBody]:
    """Any request as it stands."""
    return Ask(body, _as_it_is, timeout=timeout, server=server)


def relay(body: Body, token: str, budget: float) -> Ask[ReplyBody]:
    """Another client's request, with its token and what is left of its time."""
    wait = body.wait_ms / 1000 if isinstance(body, Read) else 0.0
    return Ask(body, _as_it_is, timeout=budget, token=token, wait=wait)


def write(command: Command, *, numbered: bool = True, timeout: float | None = None) -> Ask[Done | LockGrant]:
    """One command. Not numbered, it saves a registration, but ends as unknown where its answer is lost.

    Raises: InvalidError if the command is too large for any server.
    """
    encoded = encode(command)
    if len(encoded) > MAX_COMMAND_BYTES:
        raise InvalidError(f"the command has {len(encoded)} bytes, more than the {MAX_COMMAND_BYTES} allowed")
    return Ask(Write(msgspec.Raw(encoded)), _written, numbered=numbered, timeout=timeout)


def read(
    query: Query,
    *,
    consistency: Consistency = "default",
    max_stale: float = 0.0,
    index: Index = 0,
    wait: float = 0.0,
    timeout: float | None = None,
) -> Ask[ReadResult]:
    body = Read(query, consistency, int(max_stale * 1000), index, int(wait * 1000))
    return Ask(body, lambda reply: expect(reply, ReadResult), wait=wait if index else 0.0, timeout=timeout)


def kv_get(key: str, consistency: Consistency) -> Ask[KvPair | None]:
    def result(reply: ReplyBody) -> KvPair | None:
        return next(iter(expect(expect(reply, ReadResult).value, KvPairs).pairs), None)

    return Ask(Read(KvGet(key), consistency), result)


def kv_list(prefix: str, consistency: Consistency) -> Ask[tuple[KvPair, ...]]:
    return Ask(Read(KvList(prefix), consistency), lambda reply: expect(expect(reply, ReadResult).value, KvPairs).pairs)


def kv_keys(prefix: str, separator: str, consistency: Consistency) -> Ask[tuple[str, ...]]:
    query = KvList(prefix, keys_only=True, separator=separator)
    return Ask(Read(query, consistency), lambda reply: expect(expect(reply, ReadResult).value, Keys).keys)


def kv_put(
    key: str,
    value: bytes,
    *,
    flags: int = 0,
    cas: Index | None = None,
    acquire: str | None = None,
    release: str | None = None,
    fence: Fence | None = None,
) -> Ask[Done]:
    return _done(KvPut(key, value, flags, cas, acquire, release, fence))


def kv_delete(key: str, *, cas: Index | None = None, fence: Fence | None = None) -> Ask[Done]:
    return _done(KvDelete(key, cas, fence))


def create_session(
    node: str, *, ttl: float, lock_delay: float, behavior: SessionBehavior, name: str, checks: tuple[str, ...]
) -> Ask[str]:
    """The session's id, drawn here, so that a repeated request can't make two."""
    session = str(uuid.uuid4())
    command = CreateSession(session, node, name, int(ttl * 1000), int(lock_delay * 1000), behavior, checks)
    asked = write(command)

    def result(reply: ReplyBody) -> str:
        _written(reply)
        return session

    return Ask(asked.body, result, numbered=True)


def renew_session(session: str, timeout: float | None = None) -> Ask[float]:
    """The session's TTL in seconds."""
    return Ask(RenewSession(session), lambda reply: expect(reply, Renewed).ttl_ms / 1000, timeout=timeout)


def servers() -> Ask[Servers]:
    return Ask(ServersRequest(), lambda reply: expect(reply, Servers))


def info(server: str) -> Ask[Info]:
    return Ask(InfoRequest(), lambda reply: expect(reply, Info), server=server)


R = TypeVar("R")


def expect(value: object, kind: type[R]) -> R:
    """Raises: TransportError if the server answered something else."""
    if not isinstance(value, kind):
        raise TransportError(f"the server answered with {type(value).__name__} where {kind.__name__} was expected")
    return value


def _as_it_is(reply: ReplyBody) -> ReplyBody:
    return reply


def _done(command: Command) -> Ask[Done]:
    asked = write(command)
    return Ask(asked.body, lambda reply: expect(_written(reply), Done), numbered=True)


def _written(reply: ReplyBody) -> Done | LockGrant:
    result = expect(reply, Written).result
    if isinstance(result, Failure):
        raise request_error(result.code, result.text)
    return result


def unheld(name: str, holder: str) -> ConflictError:
    return ConflictError(f"lock {name!r} is held by session {holder}" if holder else f"lock {name!r} is not free yet")
