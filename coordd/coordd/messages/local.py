"""What a program on the same host says to the agent beyond what it can say to a server: services and checks.

A local request has the same leading fields as `client.Request`, and its bodies have tags of their own, so that one
frame on the agent's socket is either; the agent relays every body of `client.Body` that it does not answer itself.
Replies are those of `client.ReplyBody`, hence one client library serves both: Register, Deregister and Update get `Ok`
(`index` is the catalog's, or 0 while it has not heard of the change yet, and then `text` says why), ListLocalServices
gets a `ReadResult` with a `Catalog` of one entry, this node, ListLocalChecks one with `Checks`. Create and modify
indexes are 0 there: they belong to the catalog.
"""

from typing import TypeAlias

import msgspec

from coordd.errors import TransportError
from coordd.messages.client import PROTOCOL_VERSION, Body
from coordd.messages.command import CheckStatus, ServiceDefinition
from coordd.messages.entry import UNREADABLE

__all__ = [
    "CheckSpec",
    "DeregisterService",
    "ListLocalChecks",
    "ListLocalServices",
    "LocalBody",
    "LocalRequest",
    "RegisterService",
    "UpdateTtlCheck",
    "decode_local_request",
    "encode_local_request",
]


class CheckSpec(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """How the agent finds out whether something is well. Exactly one of `http`, `tcp` and `ttl_ms` is set."""

    id: str = ""
    """"" : `service:<service id>`, with `:2`, `:3`, … for further ones of the same service."""
    name: str = ""
    http: str = ""
    """URL to ask: 2xx passes, 429 warns, anything else is critical."""
    method: str = "GET"
    headers: dict[str, str] = {}
    body: str = ""
    tls_skip_verify: bool = False
    tcp: str = ""
    """`host:port` that must accept a connection."""
    ttl_ms: int = 0
    """The service reports itself at least this often, else it turns critical."""
    interval_ms: int = 10_000
    timeout_ms: int = 10_000
    success_before_passing: int = 0
    """How many successes in a row it takes before the check passes again; 0 and 1: the first one counts."""
    failures_before_critical: int = 0
    status: CheckStatus = "critical"
    """Before the first result."""
    notes: str = ""


class _Local(msgspec.Struct, frozen=True, array_like=True, tag=True, omit_defaults=True):
    pass


class RegisterService(_Local, frozen=True, tag="lsr"):
    """Put a service of this host under the agent's care, in place of one with the same id. It is kept over restarts."""

    service: ServiceDefinition
    checks: tuple[CheckSpec, ...] = ()


class DeregisterService(_Local, frozen=True, tag="lsd"):
    """Forget a service and its checks. Error not-found for an unknown id, conflict for one of a configuration file."""

    service_id: str


class ListLocalServices(_Local, frozen=True, tag="lsl"):
    """The services in the agent's care."""


class ListLocalChecks(_Local, frozen=True, tag="lcl"):
    """Their checks with the agent's own, newest results; of one service, if named."""

    service_id: str = ""


class UpdateTtlCheck(_Local, frozen=True, tag="lcu"):
    """Report for a TTL check. Error not-found for an unknown id, invalid for a check of another kind."""

    check_id: str
    status: CheckStatus
    output: str = ""


LocalBody: TypeAlias = RegisterService | DeregisterService | ListLocalServices | ListLocalChecks | UpdateTtlCheck


class LocalRequest(msgspec.Struct, frozen=True, array_like=True):
    """What arrives on the agent's socket. Field by field `client.Request`, with more bodies."""

    version: int
    id: int
    token: str
    budget_ms: int
    body: Body | LocalBody


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LocalRequest)


def encode_local_request(request: LocalRequest) -> bytes:
    return _encoder.encode(request)


def decode_local_request(frame: bytes | memoryview) -> LocalRequest:
    """Raises: TransportError if the bytes are no request of this version."""
    try:
        request = _decoder.decode(frame)
    except UNREADABLE as error:
        raise TransportError(f"unreadable request: {error}") from error
    if request.version != PROTOCOL_VERSION:
        raise TransportError(f"request of protocol version {request.version}, this side speaks {PROTOCOL_VERSION}")
    return request
