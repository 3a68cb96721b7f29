"""Which error stands for what SQLite says."""

import sqlite3
from pathlib import Path

import pytest

from coordd.errors import DiskFullError, StorageError
from coordd.state.failures import storage_error
from coordd.state.machine import examine


def test_only_a_full_disk_may_be_waited_out() -> None:
    error = sqlite3.OperationalError("database or disk is full")
    assert not isinstance(storage_error(error), DiskFullError)
    error.sqlite_errorname = "SQLITE_FULL"
    full = storage_error(error, "/data/state.db")
    assert isinstance(full, DiskFullError)
    assert str(full) == "no space left for /data/state.db: free some, nothing was changed"
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    assert not isinstance(storage_error(error), DiskFullError)
    assert "check the disk" in str(storage_error(error))


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be opened") as caught:
        examine(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
