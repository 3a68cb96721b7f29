"""How the files of a log come to be and are taken into use, after `examine` had nothing against them."""

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from coordd.errors import DiskFullError, StorageError
from coordd.storage.examine import DATABASE, HIGH_WATER, WAL
from coordd.storage.failures import storing
from coordd.storage.files import FILE_MODE, sync_folder, sync_path
from coordd.storage.high_water import HighWater, Mark
from coordd.storage.log_schema import SCHEMA, connect, store_base, store_hard_state
from coordd.storage.recovery import Verdict
from coordd.types import Base, HardState

__all__ = ["create", "open_database", "prepare"]

_WANTED_MODE = "WAL"
MAX_KEPT_WALS = 3
"""Damaged WALs kept as evidence; the first ones tell most."""


def create(folder: Path) -> None:
    """Make an empty raft.db, durably. It appears under its name only when it is complete."""
    aside = folder / (DATABASE + ".new")
    for leftover in folder.glob(DATABASE + ".new*"):
        leftover.unlink()
    with storing(aside):
        aside.touch(FILE_MODE)
        connection = connect(aside, "mode=rw")
        try:
            _demand_wal(connection, aside)
            connection.executescript(SCHEMA)
            store_hard_state(connection, HardState())
            store_base(connection, Base())
        finally:
            connection.close()
        sync_path(aside)
        aside.rename(folder / DATABASE)
    sync_folder(folder)


def prepare(folder: Path, verdict: Verdict) -> None:
    """Make durable what was read, keep what proves damage, and see that there is a mark.

    After a kill the files may hold commits that no fsync has covered; they are about to be reported as durable.
    """
    wal = folder / WAL
    with storing(wal):
        if verdict.amnesia and wal.exists() and wal.stat().st_size:
            _keep_evidence(wal)
        for path in (wal, folder / DATABASE):
            if path.exists():
                sync_path(path)
        if not (folder / HIGH_WATER).exists():
            HighWater.create(folder / HIGH_WATER, Mark())
    sync_folder(folder)


def open_database(path: Path, wal_limit: int) -> sqlite3.Connection:
    """A connection as the log needs it: alone, without autocheckpoint, every commit synced."""
    with storing(path):
        connection = connect(path, "mode=rw")
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            _demand_wal(connection, path)
            for setting in (
                "synchronous=FULL",
                "fullfsync=1",
                "checkpoint_fullfsync=1",
                "wal_autocheckpoint=0",
                f"journal_size_limit={2 * wal_limit}",
                "secure_delete=OFF",
                "temp_store=MEMORY",
                "cache_size=-8192",
            ):
                connection.execute(f"PRAGMA {setting}")
            connection.execute("BEGIN IMMEDIATE")  # takes the lock that EXCLUSIVE then keeps
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
    return connection


def _demand_wal(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute(f"PRAGMA journal_mode={_WANTED_MODE}").fetchone()[0]
    if mode != "wal":
        raise StorageError(f"{path} can't be used in WAL mode (SQLite answers {mode}): use a local file system")


def _keep_evidence(wal: Path) -> None:
    kept = [wal.with_name(f"{wal.name}.damaged-{number}") for number in range(1, MAX_KEPT_WALS + 1)]
    free = next((path for path in kept if not path.exists()), None)
    if free is not None:
        with suppress(DiskFullError), storing(free):
            shutil.copyfile(wal, free)
            free.chmod(FILE_MODE)
