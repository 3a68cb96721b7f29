"""What a client may ask about the replicated state, and what it is told: queries, their rows and results.

Each query has a key and an order, so that every server gives the same answer at the same index. Requests that carry
queries, and the replies, are in `client.py`.
"""

from typing import TypeAlias

import msgspec

from coordd.messages.command import CheckDefinition, ServiceDefinition, SessionBehavior
from coordd.types import Index

__all__ = [
    "Catalog",
    "CatalogEntry",
    "CheckInfo",
    "Checks",
    "Health",
    "HealthEntry",
    "Keys",
    "KvGet",
    "KvList",
    "KvPair",
    "KvPairs",
    "ListChecks",
    "ListLocks",
    "ListNodes",
    "ListPolicies",
    "ListServices",
    "ListSessions",
    "ListTokens",
    "LockInfo",
    "LockWaiter",
    "Locks",
    "NodeCatalog",
    "NodeInfo",
    "Nodes",
    "Policies",
    "PolicyInfo",
    "Query",
    "QueryResult",
    "ResolveToken",
    "Row",
    "ServiceHealth",
    "ServiceInfo",
    "ServiceNames",
    "SessionInfo",
    "Sessions",
    "TokenInfo",
    "TokenRules",
    "Tokens",
    "Wire",
]


class Wire(msgspec.Struct, frozen=True, array_like=True, tag=True, omit_defaults=True):
    """Base of what stands in a union on the wire; each kind has a tag of its own."""


class Row(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Base of what stands inside others."""


# --- queries -----------------------------------------------------------------------------------------------------------


class KvGet(Wire, frozen=True, tag="qk"):
    """One key. Result KvPairs with one pair or none. Permission key:read."""

    key: str


class KvList(Wire, frozen=True, tag="ql"):
    """All keys with a prefix, in order of the key's bytes. `keys_only` leaves the values out. `separator` folds keys
    that go on behind it into one, keys only."""

    prefix: str
    keys_only: bool = False
    separator: str = ""


class ListNodes(Wire, frozen=True, tag="qn"):
    """Every node, by name. Result Nodes."""


class NodeCatalog(Wire, frozen=True, tag="qo"):
    """One node with its services and checks. Result Catalog with one entry or none."""

    node: str


class ListServices(Wire, frozen=True, tag="qs"):
    """Every service name with the union of its tags, by name. Result ServiceNames."""


class ServiceHealth(Wire, frozen=True, tag="qh"):
    """Every instance of a service with its node, and the node's and the instance's checks, by (node, instance id).

    Result Health. Nothing is filtered by status or tag here: the asking side does that from one cached view.
    """

    service: str


class ListChecks(Wire, frozen=True, tag="qc"):
    """Checks by (node, check id); of one node, one service or in one status, if named. Result Checks."""

    node: str = ""
    service: str = ""
    status: str = ""


class ListSessions(Wire, frozen=True, tag="qe"):
    """Sessions by id; of one node if named. Result Sessions."""

    node: str = ""
    id: str = ""


class ListLocks(Wire, frozen=True, tag="qy"):
    """Locks with holder and waiters, by name; one lock if named. Result Locks."""

    name: str = ""


class ListPolicies(Wire, frozen=True, tag="qp"):
    name: str = ""


class ListTokens(Wire, frozen=True, tag="qt"):
    """Tokens by accessor, without secrets. Permission operator:read."""

    accessor: str = ""


class ResolveToken(Wire, frozen=True, tag="qr"):
    """The asking token itself: its accessor and the rules of its policies, for the agent's own authorizer. Result Token."""


Query: TypeAlias = (
    KvGet
    | KvList
    | ListNodes
    | NodeCatalog
    | ListServices
    | ServiceHealth
    | ListChecks
    | ListSessions
    | ListLocks
    | ListPolicies
    | ListTokens
    | ResolveToken
)


# --- rows --------------------------------------------------------------------------------------------------------------


class KvPair(Row, frozen=True):
    key: str
    value: bytes
    flags: int
    create_index: Index
    modify_index: Index
    lock_index: int
    version: int
    """Number of changes since the key was created."""
    session: str = ""


class NodeInfo(Row, frozen=True):
    node: str
    address: str
    node_id: str
    meta: dict[str, str]
    tagged_addresses: dict[str, str]
    create_index: Index
    modify_index: Index


class CheckInfo(Row, frozen=True):
    node: str
    check: CheckDefinition
    service_name: str
    service_tags: tuple[str, ...]
    create_index: Index
    modify_index: Index


class ServiceInfo(Row, frozen=True):
    node: str
    service: ServiceDefinition
    create_index: Index
    modify_index: Index


class HealthEntry(Row, frozen=True):
    """One service instance and all that decides its health."""

    node: NodeInfo
    service: ServiceInfo
    checks: tuple[CheckInfo, ...]


class CatalogEntry(Row, frozen=True):
    node: NodeInfo
    services: tuple[ServiceInfo, ...]
    checks: tuple[CheckInfo, ...]


class SessionInfo(Row, frozen=True):
    id: str
    name: str
    node: str
    ttl_ms: int
    lock_delay_ms: int
    behavior: SessionBehavior
    node_checks: tuple[str, ...]
    service_checks: tuple[str, ...]
    create_index: Index
    modify_index: Index


class LockWaiter(Row, frozen=True):
    session: str
    deadline: int
    """Replicated nanoseconds."""


class LockInfo(Row, frozen=True):
    name: str
    holder: str
    """Session, or "" while only waited for or delayed."""
    token: Index
    waiters: tuple[LockWaiter, ...]
    delayed_until: int
    """Replicated nanoseconds before which nobody is granted the lock; 0: no delay."""


class PolicyInfo(Row, frozen=True):
    name: str
    description: str
    rules: str
    create_index: Index
    modify_index: Index


class TokenInfo(Row, frozen=True):
    accessor: str
    description: str
    policies: tuple[str, ...]
    management: bool
    create_index: Index
    modify_index: Index


# --- results -----------------------------------------------------------------------------------------------------------


class KvPairs(Wire, frozen=True, tag="rk"):
    pairs: tuple[KvPair, ...]


class Keys(Wire, frozen=True, tag="ry"):
    keys: tuple[str, ...]


class Nodes(Wire, frozen=True, tag="rn"):
    nodes: tuple[NodeInfo, ...]


class Catalog(Wire, frozen=True, tag="rc"):
    entries: tuple[CatalogEntry, ...]


class ServiceNames(Wire, frozen=True, tag="rs"):
    services: tuple[tuple[str, tuple[str, ...]], ...]


class Health(Wire, frozen=True, tag="rh"):
    entries: tuple[HealthEntry, ...]


class Checks(Wire, frozen=True, tag="ri"):
    checks: tuple[CheckInfo, ...]


class Sessions(Wire, frozen=True, tag="re"):
    sessions: tuple[SessionInfo, ...]


class Locks(Wire, frozen=True, tag="rl"):
    locks: tuple[LockInfo, ...]


class Policies(Wire, frozen=True, tag="rp"):
    policies: tuple[PolicyInfo, ...]


class Tokens(Wire, frozen=True, tag="rt"):
    tokens: tuple[TokenInfo, ...]


class TokenRules(Wire, frozen=True, tag="rr"):
    """What a token may do, for the pure authorizer: `acl.authorizer.Authorizer` is built from it."""

    accessor: str
    """"" for the anonymous token."""
    enabled: bool
    """False before `acl bootstrap`: everything is allowed."""
    management: bool
    rules: tuple[str, ...]
    """Rules text of each policy, in the order of the policies' names."""


QueryResult: TypeAlias = (
    KvPairs
    | Keys
    | Nodes
    | Catalog
    | ServiceNames
    | Health
    | Checks
    | Sessions
    | Locks
    | Policies
    | Tokens
    | TokenRules
)
