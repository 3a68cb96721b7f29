"""The replicated state as a function of the log: one SQLite file, changed only by `apply`.

`apply` is deterministic (rules 91, 93): what it does follows from the rows and the entries alone, however the log is cut
into batches. It is total (rule 96): a command that makes no sense gives a `Failure`; only an entry that this version can't
read raises InvariantError, because a replica that shrugs diverges for good. One batch is one transaction; if it fails it
is rolled back, the machine stands where it stood before, and the error is raised: DiskFullError (try again when there is
space), StorageError, UnsupportedError (an entry raises the feature level beyond this version), or whatever the bug was.

The file can be read by others meanwhile. It is not synced at each commit: after a power cut it may lag behind the log, and
is replayed forward. `checkpoint` syncs it.
"""

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from coordd.acl.authorizer import Authorizer
from coordd.errors import DamagedError, InvariantError, StorageError, invariant
from coordd.messages.command import Command, CommandResult, command_decoder
from coordd.messages.entry import (
    COMMAND,
    CONFIGURATION,
    NOOP,
    UNREADABLE,
    CommandHeader,
    decode_command,
    decode_configuration,
)
from coordd.messages.levels import FIRST
from coordd.messages.query import Query, QueryResult
from coordd.state import health, locks, permissions, queries, sessions
from coordd.state.acl import Authorizers
from coordd.state.clients import Clients
from coordd.state.commands import Commands
from coordd.state.digest import MODULUS
from coordd.state.failures import FAILURES, storage_error
from coordd.state.levels import require_format, require_supported
from coordd.state.limits import Limits, Refused
from coordd.state.permissions import Permission
from coordd.state.rows import Rows
from coordd.state.schema import SCHEMA_VERSION, MetaRow
from coordd.state.scrub import fault_of
from coordd.state.sessions import SessionAlive
from coordd.state.topics import Topic, reap, topic_index
from coordd.types import Configuration, Index, Term

__all__ = ["Answer", "Applied", "Machine", "examine"]

_META = "machine"
_BUSY_SECONDS = 5.0
PAGE_CACHE_MIB = 256
_WAL_KEPT_BYTES = 64 * 1024 * 1024
_UNREADABLE = (struct.error, *UNREADABLE)
"""The first: of a command whose header is cut off."""


class Applied(NamedTuple):
    """What one entry did. `client` and `number` as in its header, 0 without; `result` None for noop and configuration."""

    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody asks of this
    client: int
    number: int
    result: CommandResult | None


class Answer(NamedTuple):
    """`index`: of the last change to the query's topics, at least 1. `filtered`: the token may not see all rows."""

    index: Index  # type: ignore[assignment]  # see Applied
    value: QueryResult
    filtered: bool


class Machine:
    """The replicated state in one file. Used by one thread."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits) -> None:
        """Use `open`."""
        self._connection = connection
        self._rows = Rows(connection, limits)
        self._clients = Clients(self._rows)
        self._commands = Commands(self._rows, self._clients)
        self._authorizers = Authorizers(self._rows)
        self._stored: dict[str, int] = {}
        """Digests of the tables as the file has them."""
        self.applied: Index = 0
        self.applied_term: Term = 0
        self.state_time = 0
        """Replicated nanoseconds; never decreases."""
        self.configuration: Configuration | None = None
        self.configuration_index: Index = 0
        self._configuration_text = ""
        self.changes: set[Topic] = set()
        """Topics touched by the last `apply`."""

    @classmethod
    def open(
        cls, path: str, *, limits: Limits | None = None, examined: bool = False, cache_mib: int = PAGE_CACHE_MIB
    ) -> "Machine":
        """Open a state file and verify it, or make one; `path` may be ":memory:". `examined`: `examine` has just found it
        whole. It is verified over the connection that serves, so that its pages, as far as they have room in the cache,
        are never read from the disk again.

        Raises: DamagedError if the rows are not those that were written, StorageError if the file can't be used,
        UnsupportedError if it was written by a version that knows more.
        """
        limits = limits or Limits()
        if not examined:
            examine(path, limits)
        machine = cls(_connect(path, cache_mib), limits)
        with _closed_on_error(path, machine._connection):
            if machine._version() == 0:
                machine._create()
            machine._load()
            _demand_whole(path, machine)
        return machine

    # --- changing ---------------------------------------------------------------------------------------------------

    def apply(self, first: Index, entries: Sequence[tuple[Term, bytes]]) -> list[Applied]:
        """Apply the entries at `first` and behind, in one transaction. Raises: see the module's text."""
        invariant(first == self.applied + 1, "the log is applied in order", first=first, applied=self.applied)
        rows = self._rows
        rows.changes = set()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            applied = [self._entry(index, term, entry) for index, (term, entry) in enumerate(entries, first)]
            self._finish()
            self._connection.execute("COMMIT")
        except FAILURES as error:
            self._roll_back()
            raise storage_error(error) from error
        except BaseException:
            self._roll_back()
            raise
        self.changes = rows.changes
        if ("acl",) in self.changes:
            self._authorizers.forget()
        return applied

    def _entry(self, index: Index, term: Term, entry: bytes) -> Applied:
        invariant(len(entry) > 0, "an entry has a kind", index=index)
        kind = entry[0]
        self.applied = index
        self.applied_term = term
        if kind == COMMAND:
            try:
                header, body = decode_command(entry)
                command: Command = command_decoder.decode(body)
            except _UNREADABLE as error:
                raise InvariantError(f"this version can't read the command at index {index}: {error}") from error
            return Applied(index, header.client, header.number, self._command(header, command))
        if kind == CONFIGURATION:
            try:
                self.configuration = decode_configuration(entry)
            except _UNREADABLE as error:
                raise InvariantError(f"this version can't read the configuration at index {index}: {error}") from error
            self._configuration_text = msgspec.json.encode(self.configuration).decode()
            self.configuration_index = index
        else:
            invariant(kind == NOOP, "this version does not know this kind of entry", index=index, kind=kind)
        return Applied(index, 0, 0, None)

    def _command(self, header: CommandHeader, command: Command) -> CommandResult:
        rows = self._rows
        rows.index = self.applied
        rows.term = self.applied_term
        if header.state_time > self.state_time:
            self.state_time = header.state_time
        rows.now = self.state_time
        if rows.now >= rows.next_due:
            locks.note_due(rows)
        known = self._clients.known_result(header) if header.client else None
        result = self._run(command) if known is None else known
        if rows.unsettled:
            locks.settle(rows)
        if rows.topics.count > rows.most_topics:
            reap(rows)
        if header.client and known is None:
            self._clients.record(header, result)
        return result

    def _run(self, command: Command) -> CommandResult:
        try:
            return self._commands.run(command)
        except Refused as refusal:
            return refusal.failure(self.applied)

    def _finish(self) -> None:
        """Bring everything that was kept in memory into the transaction."""
        self._clients.flush()
        self._rows.meta.put(self._meta())
        for table in self._rows.tables:
            table.flush()
        changed = [table for table in self._rows.tables if table.digest != self._stored[table.name]]
        self._connection.executemany(
            "UPDATE digests SET digest = ? WHERE name = ?", [(f"{table.digest:032x}", table.name) for table in changed]
        )
        for table in changed:
            self._stored[table.name] = table.digest

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._load()
        except FAILURES as error:
            raise storage_error(error) from error

    # --- reading ----------------------------------------------------------------------------------------------------

    def query(self, query: Query, authorizer: Authorizer, accessor: str = "") -> Answer:
        """Answer from the state as applied. Rows that the authorizer does not let through are left out.

        Raises: InvalidError if the answer would be too large for a reply.
        """
        try:
            value, filtered = queries.answer(self._rows, query, authorizer, accessor)
        except msgspec.MsgspecError as error:
            raise storage_error(error, done="read") from error
        return Answer(max(1, self.topic_index(self.topics(query))), value, filtered)

    def topics(self, query: Query) -> tuple[Topic, ...]:
        """What the query's answer depends on."""
        return queries.topics(query)

    def topic_index(self, topics: Iterable[Topic]) -> Index:
        """Index of the last change to any of the topics; 0 if there was none."""
        return max((topic_index(self._rows, topic) for topic in topics), default=0)

    def authorizer(self, secret: str) -> tuple[str, Authorizer] | None:
        """Accessor and authorizer of the token with that secret; "" is the anonymous one. None: there is no such token."""
        return self._authorizers.of(secret)

    def required(self, item: Command | Query) -> tuple[Permission, ...]:
        """What a token must be allowed, all of it, to propose this command or ask this query."""
        return permissions.required(self._rows, item)

    def sessions_alive(self) -> list[SessionAlive]:
        """Sessions with a TTL: what the leader's timers need."""
        return sessions.alive(self._rows)

    def clients_alive(self) -> list[int]:
        """Registered clients."""
        return [int(client) for client in self._rows.clients.column("client", "ORDER BY client")]

    def nodes_alive(self) -> dict[str, bool | None]:
        """Every node, by name → whether its `serfHealth` passes; None: it has no such check, hence no agent."""
        return health.nodes_alive(self._rows)

    def lock_deadlines(self) -> int | None:
        """The state time at which the next lock delay or waiter's deadline is over: any command with that time acts on it."""
        return locks.next_due(self._rows)

    @property
    def acl_enabled(self) -> bool:
        return self._rows.acl_enabled > 0

    @property
    def feature_level(self) -> int:
        """The cluster's active level: commands above it are not proposed (rule 95)."""
        return self._rows.feature_level

    # --- the file ---------------------------------------------------------------------------------------------------

    @property
    def digest(self) -> int:
        """Order-free hash of all rows, this file's position among them: equal on two servers at the same index."""
        return sum(table.digest for table in self._rows.tables) % MODULUS

    @property
    def row_counts(self) -> dict[str, int]:
        return {table.name: table.count for table in self._rows.tables}

    def verify(self) -> bool:
        """Do the rows in the file have the digest that was kept for them, and the indexes these rows?"""
        whole = all(table.recompute() == table.digest for table in self._rows.tables)
        return whole and not fault_of(self._connection)

    @property
    def digests(self) -> dict[str, int]:
        """Of the tables, by name."""
        return {table.name: table.digest for table in self._rows.tables}

    def checkpoint(self) -> bool:
        """Sync the file. True if nothing is left in the WAL that is not in the file. Never waits for readers."""
        try:
            busy, frames, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except FAILURES as error:
            raise storage_error(error) from error
        return bool(busy == 0 and frames == copied)

    def close(self) -> None:
        self._connection.close()

    def _version(self) -> int:
        """Version of the schema in the file; 0 for an empty one."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _create(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._rows.create()
        self._connection.execute("CREATE TABLE digests (name TEXT PRIMARY KEY, digest TEXT NOT NULL)")
        self._connection.executemany(
            "INSERT INTO digests VALUES (?, ?)", [(table.name, f"{0:032x}") for table in self._rows.tables]
        )
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.execute("COMMIT")

    def _load(self) -> None:
        """Take everything that is kept in memory from the file."""
        rows = self._rows
        stored = dict(self._connection.execute("SELECT name, digest FROM digests"))
        for table in rows.tables:
            table.forget()
            table.digest = self._stored[table.name] = int(stored[table.name], 16)
        self._clients.forget()
        self._authorizers.forget()
        rows.unsettled.clear()
        meta = rows.meta.get(_META) or MetaRow(_META, 0, 0, 0, 0, 0, FIRST, 0, "")
        self.applied = meta.applied
        self.applied_term = meta.applied_term
        self.state_time = meta.state_time
        self.configuration_index = meta.configuration_index
        self._configuration_text = text = meta.configuration
        self.configuration = msgspec.json.decode(text, type=Configuration) if text else None
        rows.topic_floor = meta.topic_floor
        rows.acl_enabled = meta.acl_enabled
        rows.feature_level = meta.feature_level
        rows.now = meta.state_time
        rows.next_due = locks.first_due(rows)

    def _meta(self) -> MetaRow:
        return MetaRow(
            name=_META,
            applied=self.applied,
            applied_term=self.applied_term,
            state_time=self.state_time,
            topic_floor=self._rows.topic_floor,
            acl_enabled=self._rows.acl_enabled,
            feature_level=self._rows.feature_level,
            configuration_index=self.configuration_index,
            configuration=self._configuration_text,
        )


def examine(path: str, limits: Limits | None = None) -> None:
    """Read the whole file, if there is one, without changing it, nor its WAL: what is damaged stays as evidence.

    Raises: DamagedError, StorageError, UnsupportedError.
    """
    if not Path(path).exists() or not Path(path).stat().st_size:
        return
    beside = [side for suffix in ("-wal", "-shm") if not (side := Path(path + suffix)).exists()]
    try:
        connection = _connect_to_read(path)
        with _closed_on_error(path, connection):
            _check(path, Machine(connection, limits or Limits()))
        connection.close()
    except BaseException:
        for side in beside:  # a reader leaves them behind empty, where there were none
            side.unlink(missing_ok=True)
        raise


def _check(path: str, machine: Machine) -> None:
    version = machine._version()
    if version == 0:
        if machine._connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise DamagedError(f"{path} is a database, but holds no replicated state")
        return
    require_format(path, version)
    machine._load()
    _demand_whole(path, machine)  # first: a level that is damaged asks for no other version
    require_supported(path, machine.feature_level)


def _demand_whole(path: str, machine: Machine) -> None:
    if not machine.verify():
        raise DamagedError(f"{path} is damaged: its rows do not have the digest that was stored with them")


def _connect_to_read(path: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise StorageError(f"{path} can't be opened: {error}") from error


def _connect(path: str, cache_mib: int) -> sqlite3.Connection:
    try:
        # Whoever opens it may hand it to another thread, which then alone uses it.
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False)
    except sqlite3.Error as error:
        raise StorageError(f"{path} can't be opened: {error}") from error
    with _closed_on_error(path, connection):
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal" and path != ":memory:":
            raise StorageError(f"{path} can't be used: its file system does not allow SQLite's write-ahead log")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA cache_size = -{cache_mib * 1024}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    return connection


@contextmanager
def _closed_on_error(path: str, connection: sqlite3.Connection) -> Iterator[None]:
    """What goes wrong while opening has one of two names."""
    try:
        yield
    except (sqlite3.Error, TypeError, ValueError, KeyError, msgspec.MsgspecError) as error:
        connection.close()
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")):
            raise DamagedError(f"{path} can't be read as replicated state: {error}") from error
        raise StorageError(f"{path} can't be opened: {error}") from error
    except BaseException:
        connection.close()
        raise
