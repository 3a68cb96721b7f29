"""All rows of the replicated state, and what is known of the entry being applied.

The noun modules (kv, catalog, …) are functions on a `Rows`; only they and `machine` write to it. A write says which topics
it touched; a freed lock is put into `unsettled` and granted when the command is done.
"""

import sqlite3
from typing import Any

import msgspec

from coordd.messages.levels import FIRST
from coordd.state.limits import MAX_TIME, Limits
from coordd.state.schema import (
    INDEXES,
    CheckRow,
    ClientRow,
    KvDelayRow,
    KvRow,
    LockRow,
    MetaRow,
    NodeRow,
    PolicyRow,
    ServiceRow,
    SessionRow,
    TokenRow,
    TopicRow,
    WaiterRow,
)
from coordd.state.tables import Table
from coordd.state.topics import Topic
from coordd.types import Index, Term

__all__ = ["Rows", "from_json", "to_json"]

_encoder = msgspec.json.Encoder(order="deterministic")
from_json = msgspec.json.decode
NEVER = MAX_TIME


def to_json(value: object) -> str:
    """JSON text for a column: equal values give equal text, whatever order a map was built in."""
    return _encoder.encode(value).decode()


class Rows:
    """The tables, the position of the entry being applied, and what applying it touched."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        self.connection = connection
        self.limits = limits
        self.meta = Table(connection, "meta", MetaRow, 1)
        self.kv = Table(connection, "kv", KvRow, 1)
        self.kv_delays = Table(connection, "kv_delays", KvDelayRow, 1)
        self.clients = Table(connection, "clients", ClientRow, 1)
        self.topics = Table(connection, "topics", TopicRow, 2)
        self.nodes = Table(connection, "nodes", NodeRow, 1)
        self.services = Table(connection, "services", ServiceRow, 2)
        self.checks = Table(connection, "checks", CheckRow, 2)
        self.sessions = Table(connection, "sessions", SessionRow, 1)
        self.locks = Table(connection, "locks", LockRow, 1)
        self.lock_waiters = Table(connection, "lock_waiters", WaiterRow, 2)
        self.policies = Table(connection, "policies", PolicyRow, 1)
        self.tokens = Table(connection, "tokens", TokenRow, 1)
        self.tables: tuple[Table[Any], ...] = tuple(table for table in vars(self).values() if isinstance(table, Table))
        self.index: Index = 0
        self.term: Term = 0
        self.now = 0
        """State time of the entry being applied."""
        self.most_topics = limits.topics + limits.topics // 8
        """Topic rows at which the oldest are reaped, in one go, down to the limit."""
        self.topic_floor: Index = 0
        self.acl_enabled: Index = 0
        self.feature_level = FIRST
        self.changes: set[Topic] = set()
        self.unsettled: set[str] = set()
        """Locks that may have become grantable in this command."""
        self.next_due = NEVER
        """Nothing becomes due by the passing of state time before this; it may be too early, never too late."""

    def create(self) -> None:
        for table in self.tables:
            self.connection.execute(table.create)
        for sql in INDEXES:
            self.connection.execute(sql)

    def touch(self, kind: str, name: str = "") -> None:
        """This topic changes with the entry being applied."""
        topic: Topic = (kind, name) if name else (kind,)
        self.changes.add(topic)
        self.topics.put(TopicRow(kind, name, self.index))

    def due(self, time: int) -> None:
        """Something is to happen when state time has reached `time`."""
        self.next_due = min(self.next_due, time)
