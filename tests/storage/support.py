"""What the storage tests share: logs in the making, copies of folders, and a model that is only a list."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from coordd.storage.log_store import LogStore
from coordd.types import HardState, LogSlice, LogWrite, ServerId

NAME = "s1"
CANDIDATE = ServerId("s2#" + "0" * 32)


def entry(text: str, size: int = 0) -> bytes:
    """A command entry that says `text`, padded to `size` bytes."""
    return (b"\x01" + text.encode()).ljust(size, b".")


def append(
    sequence: int, first: int, texts: list[str], term: int = 1, vote: ServerId | None = None, size: int = 0
) -> LogWrite:
    """A write that appends entries of one term."""
    entries = [entry(text, size) for text in texts]
    return LogWrite(sequence, HardState(term, vote), LogSlice(first, entries, ((first, term),)), must_sync=True)


def filled(folder: Path, count: int, size: int = 0, per_write: int = 1, wal_limit: int = 1 << 24) -> LogStore:
    """An open log with entries "e1", "e2", ….."""
    store = LogStore.open(folder, NAME, wal_limit=wal_limit)
    store.recover()
    for first in range(1, count + 1, per_write):
        texts = [f"e{index}" for index in range(first, min(first + per_write, count + 1))]
        store.write([append(first, first, texts, size=size)])
    return store


def contents(store: LogStore) -> list[bytes]:
    """All entries behind the base, read from disk."""
    found: list[bytes] = []
    while store.base.index + len(found) < store.last:
        answer = store.read(store.base.index + len(found) + 1, 1 << 20)
        assert answer is not None
        found += answer[1].entries
    return found


def copy_of(folder: Path) -> Path:
    """The files as they are now, as a SIGKILL would leave them."""
    number = sum(1 for path in folder.parent.iterdir() if path.name.startswith(f"{folder.name}-copy"))
    target = folder.with_name(f"{folder.name}-copy{number}")
    shutil.copytree(folder, target)
    return target


def fingerprint(folder: Path) -> dict[str, str]:
    """Names and checksums of all files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def scribble(path: Path, offset: int, length: int = 1) -> None:
    """Flip every bit of some bytes."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(length)
        assert len(old) == length, f"{path} has no {length} bytes at {offset}"
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    """What an operator's sqlite3 shows."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()
