"""The one row layer: reads and writes of a batch go through memory and reach SQLite together.

Contract of `Table`: between `begin` and `commit` of the surrounding transaction `get`, `put` and `delete` work on an
overlay; `flush` writes it with two statements' worth of `executemany` and brings `digest` up to date; `select` flushes
first, so that SQL sees what the batch did. Rows are immutable tuples of a NamedTuple class. After a rollback the owner
calls `forget`, and what is in memory is read from the file again.

Clean rows stay in a cache bounded in entries; rows with a large value are not kept.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from coordd.errors import InvariantError
from coordd.state.digest import MODULUS, row_hash
from coordd.state.failures import FAILURES, storage_error
from coordd.state.schema import create_table

__all__ = ["CACHED_ROWS", "Key", "SqlValue", "Table"]

SqlValue: TypeAlias = str | int | bytes
Key: TypeAlias = tuple[SqlValue, ...]
Row = TypeVar("Row", bound=tuple[SqlValue, ...])

CACHED_ROWS = 16_384
"""Clean rows kept for each table."""
_CACHED_VALUE = 2_048
"""A row whose last column (the value of a key) is longer is not kept in memory."""


class Table(Generic[Row]):
    """Rows of one kind, by key. `count` is the number of rows, `digest` their multiset hash as of the last flush."""

    def __init__(self, connection: sqlite3.Connection, name: str, row: type[Row], key: int) -> None:
        self.name = name
        self.count = 0
        self.digest = 0
        self._connection = connection
        self._row = row
        self._width = key
        columns: tuple[str, ...] = row._fields  # type: ignore[attr-defined]  # a NamedTuple, which has no common type
        match = " AND ".join(f"{column} = ?" for column in columns[:key])
        updates = ", ".join(f"{column} = excluded.{column}" for column in columns[key:])
        self.create = create_table(name, row, columns[:key])
        self._select = f"SELECT {', '.join(columns)} FROM {name}"  # noqa: S608  # names of this program, no input
        self._get = f"{self._select} WHERE {match}"
        self._put = (
            f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
            f" ON CONFLICT ({', '.join(columns[:key])}) DO UPDATE SET {updates}"
        )
        self._delete = f"DELETE FROM {name} WHERE {match}"  # noqa: S608
        self._hash = row_hash(name)
        self._changed: dict[Key, Row | None] = {}
        self._before: dict[Key, int | None] = {}
        self._cache: dict[Key, Row] = {}
        self._hashes: dict[Key, int] = {}

    def get(self, *key: SqlValue) -> Row | None:
        if key in self._changed:
            return self._changed[key]
        return self._cache.get(key) or self._fetch(key)

    def need(self, *key: SqlValue) -> Row:
        """A row that another one refers to. Raises: InvariantError if there is none."""
        row = self.get(*key)
        if row is None:
            raise InvariantError(f"{self.name} has no row {key!r}, which another row refers to")
        return row

    def put(self, row: Row) -> None:
        key = row[: self._width]
        if key in self._changed:
            old = self._changed[key]
        else:
            old = self._cache.get(key) or self._fetch(key)
            self._remember(key, old)
        if old is None:
            self.count += 1
        self._changed[key] = row

    def delete(self, *key: SqlValue) -> bool:
        """True if there was such a row."""
        old = self.get(*key)
        if old is None:
            return False
        if key not in self._changed:
            self._remember(key, old)
        self._changed[key] = None
        self.count -= 1
        return True

    def select(self, tail: str = "", parameters: Sequence[SqlValue] = ()) -> list[Row]:
        """Rows that `tail` ("WHERE … ORDER BY … LIMIT …") picks, the batch's own changes included."""
        self.flush()
        make = self._row._make  # type: ignore[attr-defined]
        return [make(found) for found in self._read(f"{self._select} {tail}", parameters)]

    def column(self, name: str, tail: str, parameters: Sequence[SqlValue] = ()) -> list[SqlValue]:
        """One column of the rows that `tail` picks."""
        self.flush()
        sql = f"SELECT {name} FROM {self.name} {tail}"  # noqa: S608
        return [value for (value,) in self._read(sql, parameters)]

    def scalar(self, expression: str, tail: str = "", parameters: Sequence[SqlValue] = ()) -> int:
        """One integer over the rows that `tail` picks; 0 for NULL."""
        self.flush()
        sql = f"SELECT {expression} FROM {self.name} {tail}"  # noqa: S608
        [(value,)] = self._read(sql, parameters)
        return int(value or 0)

    def flush(self) -> None:
        """Write the overlay into the open transaction."""
        if not self._changed:
            return
        puts: list[Row] = []
        deletes: list[Key] = []
        digest = self.digest
        for key, row in self._changed.items():
            before = self._before[key]
            if before is not None:
                digest -= before
            if row is not None:
                hashed = self._hash(row)
                digest += hashed
                puts.append(row)
                self._keep(key, row, hashed)
            elif before is not None:
                deletes.append(key)
                self._drop(key)
        self.digest = digest % MODULUS
        self._changed = {}
        self._before = {}
        if deletes:
            self._connection.executemany(self._delete, deletes)
        if puts:
            self._connection.executemany(self._put, puts)

    def forget(self) -> None:
        """Drop what is in memory: the transaction was rolled back, or the file was just opened."""
        self._changed = {}
        self._before = {}
        self._cache = {}
        self._hashes = {}
        (self.count,) = self._connection.execute(f"SELECT count(*) FROM {self.name}").fetchone()  # noqa: S608

    def recompute(self) -> int:
        """The digest, from the rows as they stand in the file."""
        return sum(self.hashes()) % MODULUS

    def hashes(self) -> Iterator[int]:
        """Of the rows as they stand in the file, one after the other."""
        return map(self._hash, self._connection.execute(self._select))

    def _read(self, sql: str, parameters: Sequence[SqlValue]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except FAILURES as error:
            raise storage_error(error, f"table {self.name} of the replicated state", "read") from error

    def _remember(self, key: Key, row: Row | None) -> None:
        """The row's hash before its first change since the last flush; not the row, which may be large."""
        if row is None:
            self._before[key] = None
        else:
            self._before[key] = self._hashes.get(key) or self._hash(row)

    def _fetch(self, key: Key) -> Row | None:
        found = self._read(self._get, key)
        if not found:
            return None
        row: Row = self._row._make(found[0])  # type: ignore[attr-defined]
        self._keep(key, row, None)
        return row

    def _keep(self, key: Key, row: Row, hashed: int | None) -> None:
        last = row[-1]
        if not isinstance(last, int) and len(last) > _CACHED_VALUE:
            self._drop(key)
            return
        cache = self._cache
        if len(cache) >= CACHED_ROWS:
            self._drop(next(iter(cache)))
        cache[key] = row
        if hashed is not None:
            self._hashes[key] = hashed

    def _drop(self, key: Key) -> None:
        self._cache.pop(key, None)
        self._hashes.pop(key, None)
