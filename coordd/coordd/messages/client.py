"""What a client says to a server (or to its agent, which relays) and what it gets.

One request, one reply with the same `id`, in any order; a subscription gets views until it ends. The caller's token travels
in every request. `budget_ms` is what is left of the caller's deadline when the request is sent: each hop keeps a monotonic
deadline of its own, drops the request *before* proposing if it is spent, and answers `outcome-unknown` after.
"""

from typing import Literal, TypeAlias

import msgspec

from coordd.messages.command import CheckDefinition, CommandResult, ServiceDefinition, SessionBehavior
from coordd.types import Index, ServerId, Term

__all__ = [
    "PROTOCOL_VERSION",
    "AddServerRequest",
    "AgentBeat",
    "BeatTaken",
    "Body",
    "BootstrapRequest",
    "Catalog",
    "CatalogEntry",
    "CheckInfo",
    "Checks",
    "Consistency",
    "Credit",
    "Error",
    "Health",
    "HealthEntry",
    "Info",
    "InfoRequest",
    "Keepalive",
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
    "LogRecord",
    "LogRequest",
    "LogTail",
    "NodeCatalog",
    "NodeInfo",
    "Nodes",
    "Ok",
    "PeerInfo",
    "Policies",
    "PolicyInfo",
    "Query",
    "QueryResult",
    "Read",
    "ReadResult",
    "RemoveServerRequest",
    "RenewSession",
    "Renewed",
    "Reply",
    "ReplyBody",
    "Request",
    "ResolveToken",
    "ServerInfo",
    "Servers",
    "ServersRequest",
    "ServiceHealth",
    "ServiceInfo",
    "ServiceNames",
    "SessionInfo",
    "Sessions",
    "Subscribe",
    "TokenInfo",
    "TokenRules",
    "Tokens",
    "TransferRequest",
    "Unsubscribe",
    "View",
    "Write",
    "Written",
]

PROTOCOL_VERSION = 1

Consistency: TypeAlias = Literal["default", "consistent", "stale"]


class _Wire(msgspec.Struct, frozen=True, array_like=True, tag=True, omit_defaults=True):
    pass


class _Row(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    pass


# --- queries: each has a key and an order, so that every server gives the same answer at the same index -------------


class KvGet(_Wire, frozen=True, tag="qk"):
    """One key. Result KvPairs with one pair or none. Permission key:read."""

    key: str


class KvList(_Wire, frozen=True, tag="ql"):
    """All keys with a prefix, in order of the key's bytes. `keys_only` leaves the values out. `separator` folds keys
    that go on behind it into one, keys only."""

    prefix: str
    keys_only: bool = False
    separator: str = ""


class ListNodes(_Wire, frozen=True, tag="qn"):
    """Every node, by name. Result Nodes."""


class NodeCatalog(_Wire, frozen=True, tag="qo"):
    """One node with its services and checks. Result Catalog with one entry or none."""

    node: str


class ListServices(_Wire, frozen=True, tag="qs"):
    """Every service name with the union of its tags, by name. Result ServiceNames."""


class ServiceHealth(_Wire, frozen=True, tag="qh"):
    """Every instance of a service with its node, and the node's and the instance's checks, by (node, instance id).

    Result Health. Nothing is filtered by status or tag here: the asking side does that from one cached view.
    """

    service: str


class ListChecks(_Wire, frozen=True, tag="qc"):
    """Checks by (node, check id); of one node, one service or in one status, if named. Result Checks."""

    node: str = ""
    service: str = ""
    status: str = ""


class ListSessions(_Wire, frozen=True, tag="qe"):
    """Sessions by id; of one node if named. Result Sessions."""

    node: str = ""
    id: str = ""


class ListLocks(_Wire, frozen=True, tag="qy"):
    """Locks with holder and waiters, by name; one lock if named. Result Locks."""

    name: str = ""


class ListPolicies(_Wire, frozen=True, tag="qp"):
    name: str = ""


class ListTokens(_Wire, frozen=True, tag="qt"):
    """Tokens by accessor, without secrets. Permission operator:read."""

    accessor: str = ""


class ResolveToken(_Wire, frozen=True, tag="qr"):
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


class KvPair(_Row, frozen=True):
    key: str
    value: bytes
    flags: int
    create_index: Index
    modify_index: Index
    lock_index: int
    version: int
    """Number of changes since the key was created."""
    session: str = ""


class NodeInfo(_Row, frozen=True):
    node: str
    address: str
    node_id: str
    meta: dict[str, str]
    tagged_addresses: dict[str, str]
    create_index: Index
    modify_index: Index


class CheckInfo(_Row, frozen=True):
    node: str
    check: CheckDefinition
    service_name: str
    service_tags: tuple[str, ...]
    create_index: Index
    modify_index: Index


class ServiceInfo(_Row, frozen=True):
    node: str
    service: ServiceDefinition
    create_index: Index
    modify_index: Index


class HealthEntry(_Row, frozen=True):
    """One service instance and all that decides its health."""

    node: NodeInfo
    service: ServiceInfo
    checks: tuple[CheckInfo, ...]


class CatalogEntry(_Row, frozen=True):
    node: NodeInfo
    services: tuple[ServiceInfo, ...]
    checks: tuple[CheckInfo, ...]


class SessionInfo(_Row, frozen=True):
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


class LockWaiter(_Row, frozen=True):
    session: str
    deadline: int
    """Replicated nanoseconds."""


class LockInfo(_Row, frozen=True):
    name: str
    holder: str
    """Session, or "" while only waited for or delayed."""
    token: Index
    waiters: tuple[LockWaiter, ...]
    delayed_until: int
    """Replicated nanoseconds before which nobody is granted the lock; 0: no delay."""


class PolicyInfo(_Row, frozen=True):
    name: str
    description: str
    rules: str
    create_index: Index
    modify_index: Index


class TokenInfo(_Row, frozen=True):
    accessor: str
    description: str
    policies: tuple[str, ...]
    management: bool
    create_index: Index
    modify_index: Index


class KvPairs(_Wire, frozen=True, tag="rk"):
    pairs: tuple[KvPair, ...]


class Keys(_Wire, frozen=True, tag="ry"):
    keys: tuple[str, ...]


class Nodes(_Wire, frozen=True, tag="rn"):
    nodes: tuple[NodeInfo, ...]


class Catalog(_Wire, frozen=True, tag="rc"):
    entries: tuple[CatalogEntry, ...]


class ServiceNames(_Wire, frozen=True, tag="rs"):
    services: tuple[tuple[str, tuple[str, ...]], ...]


class Health(_Wire, frozen=True, tag="rh"):
    entries: tuple[HealthEntry, ...]


class Checks(_Wire, frozen=True, tag="ri"):
    checks: tuple[CheckInfo, ...]


class Sessions(_Wire, frozen=True, tag="re"):
    sessions: tuple[SessionInfo, ...]


class Locks(_Wire, frozen=True, tag="rl"):
    locks: tuple[LockInfo, ...]


class Policies(_Wire, frozen=True, tag="rp"):
    policies: tuple[PolicyInfo, ...]


class Tokens(_Wire, frozen=True, tag="rt"):
    tokens: tuple[TokenInfo, ...]


class TokenRules(_Wire, frozen=True, tag="rr"):
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


# --- requests ---------------------------------------------------------------------------------------------------------


class Write(_Wire, frozen=True, tag="w"):
    """One command. With `client` 0 it is a one-shot: it is never sent twice once a leader may have taken it."""

    command: msgspec.Raw
    client: int = 0
    number: int = 0
    lowest: int = 0


class Read(_Wire, frozen=True, tag="r"):
    """A query. With `index` > 0 it blocks until the query's topics have changed after that index, or `wait_ms` passed."""

    query: Query
    consistency: Consistency = "default"
    max_stale_ms: int = 0
    """`stale` only: refuse to answer from a state older than this; 0: any age."""
    index: Index = 0
    wait_ms: int = 0


class Subscribe(_Wire, frozen=True, tag="s"):
    """Keep the query's result in view. Subscribing again under the same number replaces the subscription.

    At once, and then at each change, the server sends a `View` under this request's id, while credit lasts (one view each).
    Changes that come while there is no credit are folded into the next view.
    """

    subscription: int
    query: Query
    credit: int = 8


class Credit(_Wire, frozen=True, tag="c"):
    """One more view may be sent. No reply."""

    subscription: int
    credit: int = 1


class Unsubscribe(_Wire, frozen=True, tag="u"):
    subscription: int


class Keepalive(_Wire, frozen=True, tag="k"):
    """Renews all that waits for this connection at the server, and the registration `client` if not 0. Reply Ok."""

    client: int = 0


class RenewSession(_Wire, frozen=True, tag="sr"):
    """Give the session its full TTL again. Reply Renewed, or Error not-found if it is gone or expiring."""

    session: str


class AgentBeat(_Wire, frozen=True, tag="ab"):
    """The agent of this node lives. Any server takes it and passes it on to the leader. Reply BeatTaken."""

    node: str


class ServersRequest(_Wire, frozen=True, tag="sv"):
    """The servers of the cluster, needed by every client; asks no permission."""


class InfoRequest(_Wire, frozen=True, tag="if"):
    """What this server knows of itself: figures for `coordctl info`."""


class BootstrapRequest(_Wire, frozen=True, tag="ob"):
    """Found the cluster from this server's configuration file. Only before there is one; then operator:write."""


class AddServerRequest(_Wire, frozen=True, tag="oa"):
    """operator:write. The leader first waits for the new server's hello; reply Ok when it is a learner in a committed
    configuration. It becomes a voter by itself unless `learner`."""

    name: str
    raft_address: str
    client_address: str
    public_key: str
    learner: bool = False
    replaces: str = ""
    force: bool = False


class RemoveServerRequest(_Wire, frozen=True, tag="or"):
    """operator:write. By name, or by full identity where a name is not unique. Reply Ok when it is out."""

    server: str
    force: bool = False


class TransferRequest(_Wire, frozen=True, tag="ot"):
    """operator:write. Hand leadership to the named server, or to the best one for "". Reply Ok when another leads."""

    server: str = ""


class LogRequest(_Wire, frozen=True, tag="ol"):
    """operator:read. The newest `count` entries of this server's log from `first` on (0: the last ones), decoded."""

    first: Index = 0
    count: int = 20


Body: TypeAlias = (
    Write
    | Read
    | Subscribe
    | Credit
    | Unsubscribe
    | Keepalive
    | RenewSession
    | AgentBeat
    | ServersRequest
    | InfoRequest
    | BootstrapRequest
    | AddServerRequest
    | RemoveServerRequest
    | TransferRequest
    | LogRequest
)


class Request(msgspec.Struct, frozen=True, array_like=True):
    version: int
    id: int
    """Chosen by the client, unique on its connection."""
    token: str
    """Secret of an ACL token; "" is the anonymous token."""
    budget_ms: int
    body: Body


# --- replies ----------------------------------------------------------------------------------------------------------


class Error(_Wire, frozen=True, tag="er"):
    """See `errors.RequestError`. `hint` with code not-leader: the leader's client address, or ""."""

    code: str
    text: str
    hint: str = ""
    term: Term = 0


class Ok(_Wire, frozen=True, tag="ok"):
    index: Index = 0
    text: str = ""


class Written(_Wire, frozen=True, tag="wd"):
    result: CommandResult


class ReadResult(_Wire, frozen=True, tag="rd"):
    index: Index
    """Index of the last change to the query's topics, at least 1; the `index` for the next blocking read."""
    value: QueryResult
    age_ms: int = 0
    """How long ago this server last knew its state to be current; 0 for default and consistent reads."""
    known_leader: bool = True
    filtered: bool = False
    """Rows were left out because the token may not see them."""


class View(_Wire, frozen=True, tag="vw"):
    """The present result of a subscription. `previous` is the index of the view sent before (0: the first): whoever holds
    another one has missed something and subscribes anew."""

    subscription: int
    index: Index
    previous: Index
    value: QueryResult
    filtered: bool = False


class Renewed(_Wire, frozen=True, tag="rw"):
    ttl_ms: int


class BeatTaken(_Wire, frozen=True, tag="bt"):
    interval_ms: int
    """How long to wait before the next beat; grows with the number of nodes."""


class ServerInfo(_Row, frozen=True):
    id: ServerId
    raft_address: str
    client_address: str
    public_key: str
    voter: bool
    leader: bool


class Servers(_Wire, frozen=True, tag="sl"):
    cluster_id: str
    """"" before bootstrap; then the list is this server's configuration file."""
    cluster_name: str
    servers: tuple[ServerInfo, ...]
    index: Index = 0


class PeerInfo(_Row, frozen=True):
    """A server as the leader sees it; match 0 and contact -1 where it does not know."""

    id: ServerId
    role: str
    """leader, follower, learner, leaving."""
    match: Index
    contact_ms: int


class Info(_Wire, frozen=True, tag="in"):
    """Figures by name: role, term, leader, commit_index, applied_index, last_index, durable_index, snapshots_installed, …"""

    figures: dict[str, str | int | float | bool]
    peers: tuple[PeerInfo, ...] = ()


class LogRecord(_Row, frozen=True):
    index: Index
    term: Term
    kind: str
    """noop, configuration, or the command's name."""
    text: str
    """The entry for human eyes, secrets left out."""


class LogTail(_Wire, frozen=True, tag="lt"):
    records: tuple[LogRecord, ...]


ReplyBody: TypeAlias = Written | ReadResult | View | Error | Ok | Renewed | BeatTaken | Servers | Info | LogTail


class Reply(msgspec.Struct, frozen=True, array_like=True):
    id: int
    body: ReplyBody
