"""What a client says to a server (or to its agent, which relays) and what it gets.

One request, one reply with the same `id`, in any order; a subscription gets views until it ends. The caller's token travels
in every request. `budget_ms` is what is left of the caller's deadline when the request is sent: each hop keeps a monotonic
deadline of its own, drops the request *before* proposing if it is spent, and answers `outcome-unknown` after.
"""

from typing import Literal, TypeAlias

import msgspec

from coordd.messages.command import CommandResult
from coordd.messages.query import Query, QueryResult, Row, Wire
from coordd.types import Index, ServerId, Term

__all__ = [
    "PROTOCOL_VERSION",
    "AddServerRequest",
    "AgentBeat",
    "BeatTaken",
    "Body",
    "BootstrapRequest",
    "Consistency",
    "Credit",
    "Error",
    "Info",
    "InfoRequest",
    "Keepalive",
    "LogRecord",
    "LogRequest",
    "LogTail",
    "MoveServerRequest",
    "Ok",
    "PeerInfo",
    "Read",
    "ReadResult",
    "RemoveServerRequest",
    "RenewSession",
    "Renewed",
    "Reply",
    "ReplyBody",
    "Request",
    "ServerInfo",
    "Servers",
    "ServersRequest",
    "Subscribe",
    "TransferRequest",
    "Unsubscribe",
    "View",
    "Write",
    "Written",
]

PROTOCOL_VERSION = 1

Consistency: TypeAlias = Literal["default", "consistent", "stale"]


# --- requests ---------------------------------------------------------------------------------------------------------


class Write(Wire, frozen=True, tag="w"):
    """One command. With `client` 0 it is a one-shot: it is never sent twice once a leader may have taken it."""

    command: msgspec.Raw
    client: int = 0
    number: int = 0
    lowest: int = 0


class Read(Wire, frozen=True, tag="r"):
    """A query. With `index` > 0 it blocks until the query's topics have changed after that index, or `wait_ms` passed."""

    query: Query
    consistency: Consistency = "default"
    max_stale_ms: int = 0
    """`stale` only: refuse to answer from a state older than this; 0: any age."""
    index: Index = 0
    wait_ms: int = 0


class Subscribe(Wire, frozen=True, tag="s"):
    """Keep the query's result in view. Subscribing again under the same number replaces the subscription.

    At once, and then at each change, the server sends a `View` under this request's id, while credit lasts (one view each).
    Changes that come while there is no credit are folded into the next view.
    """

    subscription: int
    query: Query
    credit: int = 8


class Credit(Wire, frozen=True, tag="c"):
    """One more view may be sent. No reply."""

    subscription: int
    credit: int = 1


class Unsubscribe(Wire, frozen=True, tag="u"):
    subscription: int


class Keepalive(Wire, frozen=True, tag="k"):
    """Renews all that waits for this connection at the server, and the registration `client` if not 0. Reply Ok."""

    client: int = 0


class RenewSession(Wire, frozen=True, tag="sr"):
    """Give the session its full TTL again. Reply Renewed, or Error not-found if it is gone or expiring."""

    session: str


class AgentBeat(Wire, frozen=True, tag="ab"):
    """The agent of this node lives. Any server takes it and passes it on to the leader. Reply BeatTaken."""

    node: str


class ServersRequest(Wire, frozen=True, tag="sv"):
    """The servers of the cluster, needed by every client; asks no permission."""


class InfoRequest(Wire, frozen=True, tag="if"):
    """What this server knows of itself: figures for `coordctl info`."""


class BootstrapRequest(Wire, frozen=True, tag="ob"):
    """Found the cluster from this server's configuration file. Only before there is one; then operator:write."""


class AddServerRequest(Wire, frozen=True, tag="oa"):
    """operator:write. The leader first waits for the new server's hello; reply Ok when it is a learner in a committed
    configuration. It becomes a voter by itself unless `learner`."""

    name: str
    raft_address: str
    client_address: str
    public_key: str
    learner: bool = False
    replaces: str = ""
    force: bool = False


class RemoveServerRequest(Wire, frozen=True, tag="or"):
    """operator:write. By name, or by full identity where a name is not unique. Reply Ok when it is out."""

    server: str
    force: bool = False


class MoveServerRequest(Wire, frozen=True, tag="om"):
    """operator:write. The member's addresses in the configuration become these; "" leaves one as it is. Reply Ok when that
    is committed. Refused without `force` if a majority needed this server: the address may be wrong."""

    server: str
    raft_address: str = ""
    client_address: str = ""
    force: bool = False


class TransferRequest(Wire, frozen=True, tag="ot"):
    """operator:write. Hand leadership to the named server, or to the best one for "". Reply Ok when another leads."""

    server: str = ""


class LogRequest(Wire, frozen=True, tag="ol"):
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
    | MoveServerRequest
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


class Error(Wire, frozen=True, tag="er"):
    """See `errors.RequestError`. `hint` with code not-leader: the leader's client address, or ""."""

    code: str
    text: str
    hint: str = ""
    term: Term = 0


class Ok(Wire, frozen=True, tag="ok"):
    index: Index = 0
    text: str = ""


class Written(Wire, frozen=True, tag="wd"):
    result: CommandResult


class ReadResult(Wire, frozen=True, tag="rd"):
    index: Index
    """Index of the last change to the query's topics, at least 1; the `index` for the next blocking read."""
    value: QueryResult
    age_ms: int = 0
    """How long ago this server last knew its state to be current; 0 for default and consistent reads."""
    known_leader: bool = True
    filtered: bool = False
    """Rows were left out because the token may not see them."""


class View(Wire, frozen=True, tag="vw"):
    """The present result of a subscription. `previous` is the index of the view sent before (0: the first): whoever holds
    another one has missed something and subscribes anew."""

    subscription: int
    index: Index
    previous: Index
    value: QueryResult
    filtered: bool = False


class Renewed(Wire, frozen=True, tag="rw"):
    ttl_ms: int


class BeatTaken(Wire, frozen=True, tag="bt"):
    interval_ms: int
    """How long to wait before the next beat; grows with the number of nodes."""


class ServerInfo(Row, frozen=True):
    id: ServerId
    raft_address: str
    client_address: str
    public_key: str
    voter: bool
    leader: bool


class Servers(Wire, frozen=True, tag="sl"):
    cluster_id: str
    """"" before bootstrap; then the list is this server's configuration file."""
    cluster_name: str
    servers: tuple[ServerInfo, ...]
    index: Index = 0


class PeerInfo(Row, frozen=True):
    """A server as the leader sees it; match 0 and contact -1 where it does not know."""

    id: ServerId
    role: str
    """leader, follower, learner, leaving."""
    match: Index
    contact_ms: int
    level: int = 0
    """The highest feature level that it supports; 0 where the leader does not know."""
    priority: int | None = None
    """Its setting; None where the leader does not know."""


class Info(Wire, frozen=True, tag="in"):
    """Figures by name: role, term, leader, commit_index, applied_index, last_index, durable_index, snapshots_installed, …"""

    figures: dict[str, str | int | float | bool]
    peers: tuple[PeerInfo, ...] = ()


class LogRecord(Row, frozen=True):
    index: Index
    term: Term
    kind: str
    """noop, configuration, or the command's name."""
    text: str
    """The entry for human eyes, secrets left out."""


class LogTail(Wire, frozen=True, tag="lt"):
    records: tuple[LogRecord, ...]


ReplyBody: TypeAlias = Written | ReadResult | View | Error | Ok | Renewed | BeatTaken | Servers | Info | LogTail


class Reply(msgspec.Struct, frozen=True, array_like=True):
    id: int
    body: ReplyBody
