"""The tables of a state file: one NamedTuple for each, from which the SQL is made, so that the two can't differ.

Rows hold text, integers and bytes only; a list or map is JSON text, so that `sqlite3` shows it. Times are replicated
nanoseconds, indexes are Raft indexes, "" stands for nothing. Columns that identify a row come first.
"""

from functools import cache
from typing import NamedTuple, get_type_hints

__all__ = [
    "INDEXES",
    "SCHEMA_VERSION",
    "CheckRow",
    "ClientRow",
    "KvDelayRow",
    "KvRow",
    "LockRow",
    "MetaRow",
    "NodeRow",
    "PolicyRow",
    "ServiceRow",
    "SessionRow",
    "TokenRow",
    "TopicRow",
    "WaiterRow",
    "create_table",
]

SCHEMA_VERSION = 2


class MetaRow(NamedTuple):
    """One row, the whole file's own position."""

    name: str
    applied: int
    applied_term: int
    state_time: int
    topic_floor: int
    """The highest index of a topic row that was reaped; see topics.py."""
    acl_enabled: int
    """Index of `acl bootstrap`, 0 before."""
    feature_level: int
    """See messages/levels.py."""
    configuration_index: int
    configuration: str
    """JSON of types.Configuration, "" before bootstrap."""


class KvRow(NamedTuple):
    key: str
    flags: int
    """The unsigned 64 bits of the message, as SQLite's signed ones."""
    create_index: int
    modify_index: int
    lock_index: int
    version: int
    session: str
    value: bytes


class KvDelayRow(NamedTuple):
    """A key whose lock can't be taken before that time, because its session was invalidated."""

    key: str
    delayed_until: int


class ClientRow(NamedTuple):
    client: int
    name: str
    last_seen: int
    lowest: int
    replies: str
    """JSON: write number to the result that it had."""


class TopicRow(NamedTuple):
    kind: str
    name: str
    modify_index: int


class NodeRow(NamedTuple):
    node: str
    node_id: str
    address: str
    meta: str
    tagged_addresses: str
    create_index: int
    modify_index: int


class ServiceRow(NamedTuple):
    node: str
    id: str
    name: str
    tags: str
    address: str
    port: int
    meta: str
    tagged_addresses: str
    weight_passing: int
    weight_warning: int
    enable_tag_override: int
    create_index: int
    modify_index: int


class CheckRow(NamedTuple):
    node: str
    id: str
    name: str
    status: str
    service_id: str
    output: str
    notes: str
    type: str
    interval: str
    timeout: str
    create_index: int
    modify_index: int


class SessionRow(NamedTuple):
    id: str
    name: str
    node: str
    ttl_ms: int
    lock_delay_ms: int
    behavior: str
    node_checks: str
    service_checks: str
    create_index: int
    modify_index: int


class LockRow(NamedTuple):
    """There is a row while the lock is held, waited for or delayed."""

    name: str
    holder: str
    token: int
    mode: str
    delayed_until: int


class WaiterRow(NamedTuple):
    name: str
    sequence: int
    """Index of the command that queued it: the order of the queue."""
    session: str
    deadline: int


class PolicyRow(NamedTuple):
    name: str
    description: str
    rules: str
    create_index: int
    modify_index: int


class TokenRow(NamedTuple):
    accessor: str
    secret_sha256: str
    description: str
    policies: str
    management: int
    create_index: int
    modify_index: int


INDEXES = (
    "CREATE INDEX kv_by_session ON kv (session, key) WHERE session <> ''",
    "CREATE INDEX kv_delays_by_time ON kv_delays (delayed_until)",
    "CREATE INDEX services_by_name ON services (name COLLATE NOCASE, node, id)",
    "CREATE INDEX sessions_by_node ON sessions (node, id)",
    "CREATE INDEX locks_by_holder ON locks (holder, name) WHERE holder <> ''",
    "CREATE INDEX locks_by_delay ON locks (delayed_until) WHERE delayed_until > 0",
    "CREATE INDEX waiters_by_session ON lock_waiters (session, name)",
    "CREATE INDEX waiters_by_deadline ON lock_waiters (deadline)",
    "CREATE UNIQUE INDEX tokens_by_secret ON tokens (secret_sha256) WHERE secret_sha256 <> ''",
)

_SQL_TYPES = {str: "TEXT", int: "INTEGER", bytes: "BLOB"}


@cache
def create_table(name: str, row: type[tuple[object, ...]], key: tuple[str, ...]) -> str:
    """The SQL that creates the table of these rows."""
    columns = ", ".join(f"{column} {_SQL_TYPES[kind]} NOT NULL" for column, kind in get_type_hints(row).items())
    return f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID"
