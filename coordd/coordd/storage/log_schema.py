"""The tables of raft.db, in columns that an operator with `sqlite3` understands, and their two single rows.

SQLite checks no page, so every row carries a checksum: an entry its chain, the single rows one of their own.
"""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
from crc32c import crc32c

from coordd.errors import DamagedError
from coordd.types import Base, Configuration, HardState, ServerId

__all__ = [
    "APPLICATION_ID",
    "SCHEMA",
    "VERSION",
    "connect",
    "read_base",
    "read_hard_state",
    "store_base",
    "store_hard_state",
]

APPLICATION_ID = 0x636F6F72
"""In the file's header: "coor"."""
VERSION = 1

SCHEMA = f"""
CREATE TABLE entries (
  idx INTEGER PRIMARY KEY,  -- place in the log
  term INTEGER NOT NULL,
  kind INTEGER NOT NULL,    -- first byte of data: 0 noop, 1 command, 2 configuration
  data BLOB NOT NULL,
  chain INTEGER NOT NULL    -- CRC-32C over the chain before, idx, term and data
) STRICT;
CREATE TABLE hard_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  term INTEGER NOT NULL,
  vote TEXT,
  commit_idx INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE base (         -- the log was dropped up to and with idx
  id INTEGER PRIMARY KEY CHECK (id = 1),
  idx INTEGER NOT NULL,
  term INTEGER NOT NULL,
  chain INTEGER NOT NULL,
  configuration TEXT,       -- JSON, in force at idx
  configuration_idx INTEGER NOT NULL,
  state_file TEXT NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection without implicit transactions, to be used by one thread at a time; `options` is the URI's query."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None, check_same_thread=False, timeout=0
    )


def store_hard_state(connection: sqlite3.Connection, hard_state: HardState) -> None:
    row = (hard_state.term, hard_state.vote, hard_state.commit)
    connection.execute("INSERT OR REPLACE INTO hard_state VALUES (1, ?, ?, ?, ?)", (*row, _checksum(row)))


def read_hard_state(connection: sqlite3.Connection, path: Path) -> HardState:
    """Raises: DamagedError."""
    term, vote, commit = _single_row(connection, path, "hard_state")
    return HardState(term, ServerId(vote) if vote is not None else None, commit)


def store_base(connection: sqlite3.Connection, base: Base) -> None:
    configuration = msgspec.json.encode(base.configuration).decode() if base.configuration else None
    row = (base.index, base.term, base.chain, configuration, base.configuration_index, base.state_file)
    connection.execute("INSERT OR REPLACE INTO base VALUES (1, ?, ?, ?, ?, ?, ?, ?)", (*row, _checksum(row)))


def read_base(connection: sqlite3.Connection, path: Path) -> Base:
    """Raises: DamagedError."""
    index, term, chain, text, configuration_index, state_file = _single_row(connection, path, "base")
    configuration = msgspec.json.decode(text, type=Configuration) if text is not None else None
    return Base(index, term, chain, configuration, configuration_index, state_file)


def _single_row(connection: sqlite3.Connection, path: Path, table: str) -> Any:
    row = connection.execute(f"SELECT * FROM {table} WHERE id = 1").fetchone()  # noqa: S608 - our own table names
    if row is None or row[-1] != _checksum(row[1:-1]):
        raise DamagedError(f"{path} is damaged (the row of table {table} does not match its checksum)")
    return row[1:-1]


def _checksum(row: tuple[object, ...]) -> int:
    return crc32c(msgspec.msgpack.encode(row))
