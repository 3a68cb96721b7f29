"""The logs of stopped servers, read as an operator would: with sqlite3."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

__all__ = ["differences", "entries"]

Rows = dict[int, tuple[int, int]]
"""Index → (term, chain); the chain covers everything before."""


def entries(data: Path) -> Rows:
    """The log of a stopped server."""
    with closing(sqlite3.connect(f"file:{data / 'raft.db'}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT idx, term, chain FROM entries ORDER BY idx").fetchall()
    return {index: (term, chain) for index, term, chain in found}


def differences(folders: Iterable[Path], up_to: int) -> list[str]:
    """Where logs differ in the range that all have, up to an index that all have committed."""
    logs = [entries(folder) for folder in folders]
    first = max(min(log) for log in logs)
    wrong = [] if first <= up_to else [f"no log has entries from {first} to {up_to} in common with the others"]
    for index in range(first, up_to + 1):
        versions = {log.get(index) for log in logs}
        if len(versions) != 1:
            wrong.append(f"entry {index}: {sorted(map(str, versions))}")
    return wrong
