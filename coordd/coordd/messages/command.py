"""What may stand in the log besides Raft's own entries: one struct for each kind of change to the replicated state.

A command is encoded by whoever asks for it and applied by `state.machine` on every server. Applying is deterministic and
total: a command that makes no sense yields a `Failure`. New kinds are added at the end of the union with a tag of their
own, new fields at the end of a struct with a default; tags are never reused. Durations are milliseconds, times are
replicated nanoseconds (`CommandHeader.state_time`), identifiers are chosen by the sender, never in apply.
"""

from typing import Literal, TypeAlias

import msgspec

from coordd.types import Index, Term

__all__ = [
    "AclBootstrap",
    "AclDeletePolicy",
    "AclDeleteToken",
    "AclPutPolicy",
    "AclPutToken",
    "CheckDefinition",
    "CheckStatus",
    "Command",
    "CommandResult",
    "CreateSession",
    "Deregister",
    "DestroySession",
    "Done",
    "ExpireClients",
    "ExpireSessions",
    "Failure",
    "Fence",
    "KvDelete",
    "KvDeleteTree",
    "KvPut",
    "LockAcquire",
    "LockCancel",
    "LockGrant",
    "LockRelease",
    "NodeStatus",
    "RaiseFeatureLevel",
    "Register",
    "RegisterClient",
    "ServiceDefinition",
    "SetNodeStatus",
    "command_decoder",
    "encode",
    "result_decoder",
]

CheckStatus: TypeAlias = Literal["passing", "warning", "critical"]
SessionBehavior: TypeAlias = Literal["release", "delete"]


class _Command(msgspec.Struct, frozen=True, array_like=True, tag=True, omit_defaults=True, forbid_unknown_fields=True):
    """A field that this version does not know makes a command unreadable: it must not be logged here and mean something to
    a later version."""


class _Record(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, forbid_unknown_fields=True):
    """Part of a command."""


# --- key/value -------------------------------------------------------------------------------------------------------


class Fence(_Record, frozen=True):
    """A write with a fence is accepted only while exactly this grant of the lock is held."""

    lock: str
    token: Index


class KvPut(_Command, frozen=True, tag="kp"):
    """Set a key. At most one of `cas`, `acquire`, `release` is given.

    `cas`: only if the key's modify index equals it; 0: only if the key does not exist. `acquire`/`release`: Consul's
    session lock on a key. A put whose precondition does not hold answers Done(ok=False) and changes nothing.
    """

    key: str
    value: bytes
    flags: int = 0
    cas: Index | None = None
    acquire: str | None = None
    release: str | None = None
    fence: Fence | None = None


class KvDelete(_Command, frozen=True, tag="kd"):
    """Delete one key; Done(ok=True) also if it did not exist, Done(ok=False) if `cas` differs from its modify index."""

    key: str
    cas: Index | None = None
    fence: Fence | None = None


class KvDeleteTree(_Command, frozen=True, tag="kt"):
    """Delete every key with this prefix. Touches at most the machine's row limit, else Failure `invalid`."""

    prefix: str


# --- catalog ---------------------------------------------------------------------------------------------------------


class ServiceDefinition(_Record, frozen=True):
    """One service instance as its node registers it."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    address: str = ""
    """"" : the node's address."""
    port: int = 0
    meta: dict[str, str] = {}
    tagged_addresses: dict[str, tuple[str, int]] = {}
    weight_passing: int = 1
    weight_warning: int = 1
    enable_tag_override: bool = False


class CheckDefinition(_Record, frozen=True):
    """The state of one check. `service_id` "" makes it a check of the node, which counts for all its services."""

    id: str
    name: str
    status: CheckStatus = "critical"
    service_id: str = ""
    output: str = ""
    notes: str = ""
    type: str = ""
    """http, tcp, ttl, …: for display."""
    interval: str = ""
    timeout: str = ""


class Register(_Command, frozen=True, tag="cr"):
    """Create or update a node and, with it, service instances and checks. What is not named stays as it is."""

    node: str
    address: str
    node_id: str = ""
    meta: dict[str, str] = {}
    tagged_addresses: dict[str, str] = {}
    services: tuple[ServiceDefinition, ...] = ()
    checks: tuple[CheckDefinition, ...] = ()
    skip_node_update: bool = False


class Deregister(_Command, frozen=True, tag="cd"):
    """Remove a check (`check_id`), a service with its checks (`service_id`), or a whole node with everything on it."""

    node: str
    service_id: str = ""
    check_id: str = ""


class NodeStatus(_Record, frozen=True):
    node: str
    status: CheckStatus
    output: str = ""


class SetNodeStatus(_Command, frozen=True, tag="ns"):
    """Proposed by the leader: the check `serfHealth` of these nodes flips. Under another term it does nothing."""

    term: Term
    nodes: tuple[NodeStatus, ...]


# --- sessions --------------------------------------------------------------------------------------------------------


class CreateSession(_Command, frozen=True, tag="sc"):
    """A session on a node. `ttl_ms` 0: it lives as long as its checks."""

    id: str
    """UUID, drawn by the asking side."""
    node: str
    name: str = ""
    ttl_ms: int = 0
    lock_delay_ms: int = 15_000
    behavior: SessionBehavior = "release"
    node_checks: tuple[str, ...] = ("serfHealth",)
    service_checks: tuple[str, ...] = ()


class DestroySession(_Command, frozen=True, tag="sd"):
    """End a session: its locks are released or its keys deleted. Done also if it did not exist."""

    id: str


class ExpireSessions(_Command, frozen=True, tag="sx"):
    """Proposed by the leader whose timers ran out. Names create indexes, so that a re-created session is never hit."""

    term: Term
    sessions: tuple[tuple[str, Index], ...]


# --- locks -----------------------------------------------------------------------------------------------------------


class LockAcquire(_Command, frozen=True, tag="la"):
    """Take the lock or queue for it. Answer: LockGrant.

    The session must be alive now and again when the grant happens. Asking again while waiting or holding answers the
    present state and changes nothing but the deadline.
    """

    name: str
    session: str
    wait_ms: int = 0
    """0: do not queue. Else the waiter's replicated deadline is the state time at apply plus this."""


class LockRelease(_Command, frozen=True, tag="lr"):
    """Give the lock back. Done(ok=False) if that very grant is not held."""

    name: str
    token: Index


class LockCancel(_Command, frozen=True, tag="lc"):
    """Leave the queue, and release the lock if it was granted meanwhile."""

    name: str
    session: str


# --- numbered writes -------------------------------------------------------------------------------------------------


class RegisterClient(_Command, frozen=True, tag="wr"):
    """Open a numbered series of writes. Done.index is the client's identity; Failure `conflict` if it is in use."""

    name: str = ""
    id: int = 0
    """The identity, below 2**63, drawn at random by the client, so that nobody else can guess it and use up its numbers;
    0: the index of this entry."""


class ExpireClients(_Command, frozen=True, tag="wx"):
    """Proposed by the leader: forget clients not heard of for long."""

    term: Term
    clients: tuple[int, ...]


# --- ACL -------------------------------------------------------------------------------------------------------------


class AclBootstrap(_Command, frozen=True, tag="ab"):
    """Create the first management token and turn the default to deny. Works once, else Failure `denied`."""

    accessor: str
    secret_hash: bytes
    """SHA-256 of the secret; the secret itself never leaves the process that drew it."""


class AclPutPolicy(_Command, frozen=True, tag="ap"):
    """Create or replace a policy by name. `rules` is checked by `acl.rules` before it is proposed, and again in apply."""

    name: str
    rules: str
    """JSON text, see acl.rules."""
    description: str = ""


class AclDeletePolicy(_Command, frozen=True, tag="aq"):
    name: str


class AclPutToken(_Command, frozen=True, tag="at"):
    """Create a token, or change description and policies of an existing accessor (then `secret_hash` is empty)."""

    accessor: str
    secret_hash: bytes
    policies: tuple[str, ...] = ()
    description: str = ""
    management: bool = False


class AclDeleteToken(_Command, frozen=True, tag="au"):
    accessor: str


# --- the cluster -----------------------------------------------------------------------------------------------------


class RaiseFeatureLevel(_Command, frozen=True, tag="fl"):
    """Proposed by the leader once every server supports this level (`levels.py`). Under another term it does nothing."""

    term: Term
    level: int


Command: TypeAlias = (
    KvPut
    | KvDelete
    | KvDeleteTree
    | Register
    | Deregister
    | SetNodeStatus
    | CreateSession
    | DestroySession
    | ExpireSessions
    | LockAcquire
    | LockRelease
    | LockCancel
    | RegisterClient
    | ExpireClients
    | AclBootstrap
    | AclPutPolicy
    | AclDeletePolicy
    | AclPutToken
    | AclDeleteToken
    | RaiseFeatureLevel
)


# --- results ---------------------------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, array_like=True, tag="ok", omit_defaults=True):
    """The command was applied at `index`. `ok` False: its precondition did not hold and nothing changed."""

    index: Index
    ok: bool = True
    version: int = 0
    """KvPut: how often the key has been changed since it was created."""


class LockGrant(msgspec.Struct, frozen=True, array_like=True, tag="lg", omit_defaults=True):
    """State of one session's request for a lock."""

    index: Index
    token: Index = 0
    """Fencing token: the log index of the grant; 0 while not held."""
    position: int = 0
    """Place in the queue from 1; 0 if held, or not queued."""
    holder: str = ""
    """Session that holds the lock, if any."""


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="no", omit_defaults=True):
    """The command was applied without effect because it was wrong. `code` is one of `errors.RequestError` codes."""

    index: Index
    code: str
    text: str = ""


CommandResult: TypeAlias = Done | LockGrant | Failure

encode = msgspec.msgpack.Encoder().encode
"""Commands and results to bytes."""
command_decoder = msgspec.msgpack.Decoder(Command)
result_decoder: "msgspec.msgpack.Decoder[CommandResult]" = msgspec.msgpack.Decoder(CommandResult)
