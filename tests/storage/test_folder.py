"""The data folder: whose it is, who may use it, and that it never changes hands in silence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordd.errors import InUseError, StorageError
from coordd.storage.identity import read_identity
from coordd.storage.log_store import LogStore
from tests.storage.support import NAME, copy_of, filled, fingerprint, scribble

HOLD = """
import sys
from pathlib import Path
from coordd.storage.log_store import LogStore
store = LogStore.open(Path(sys.argv[1]), "s1")
print("open", flush=True)
sys.stdin.read()
"""

OPEN_AS_NOBODY = """
import os, sys
from pathlib import Path
from coordd.errors import StorageError
from coordd.storage.log_store import LogStore
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    LogStore.open(Path(sys.argv[1]), "s1")
except StorageError as error:
    print(error)
"""


def test_a_new_folder_is_closed_to_others(tmp_path: Path) -> None:
    store = filled(tmp_path / "deep" / "data", 1)
    assert (tmp_path / "deep" / "data").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "deep" / "data").iterdir()} == {0o600}
    store.close()


def test_an_empty_folder_is_closed_and_a_full_one_refused_when_open_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    filled(folder, 1).close()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    before = fingerprint(folder)
    with pytest.raises(StorageError, match="chmod 700"):
        LogStore.open(folder, NAME)
    assert fingerprint(folder) == before


def test_the_identity_stays_and_starts_are_counted(tmp_path: Path) -> None:
    first = LogStore.open(tmp_path / "data", NAME)
    first.close()
    second = LogStore.open(tmp_path / "data", NAME)
    second.close()
    assert first.identity.incarnation == second.identity.incarnation
    assert len(first.identity.incarnation) == 32
    assert (first.identity.boot, second.identity.boot) == (1, 2)
    other = LogStore.open(tmp_path / "other", NAME)
    assert other.identity.incarnation != first.identity.incarnation


def test_starts_are_counted_even_if_the_identity_file_is_an_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    LogStore.open(folder, NAME).close()
    old = (folder / "identity.json").read_bytes()
    for _ in range(3):
        LogStore.open(folder, NAME).close()
    (folder / "identity.json").write_bytes(old)
    store = LogStore.open(folder, NAME)
    assert store.identity.boot == 5


def test_the_folder_of_another_server_or_cluster_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store = LogStore.open(folder, NAME)
    store.join("cluster-a")
    store.join("cluster-a")
    with pytest.raises(StorageError, match="belongs to cluster cluster-a, not to cluster-b"):
        store.join("cluster-b")
    store.close()
    before = fingerprint(folder)
    with pytest.raises(StorageError, match="belongs to server s1, not to s9"):
        LogStore.open(folder, "s9")
    assert fingerprint(folder) == before
    identity = read_identity(folder, NAME)
    assert identity is not None
    assert identity.cluster_id == "cluster-a"
    assert json.loads((folder / "identity.json").read_text())["name"] == NAME


def test_a_start_cut_short_is_begun_again(tmp_path: Path) -> None:
    """The files of a first start appear in an order that lets every beginning of it be completed."""
    folder = tmp_path / "data"
    LogStore.open(folder, NAME).close()
    (folder / "identity.json").unlink()
    again = copy_of(folder)
    assert LogStore.open(again, NAME).recover().tail.last == 0
    (folder / "high_water").unlink()
    again = copy_of(folder)
    assert LogStore.open(again, NAME).recover().tail.last == 0
    (folder / "raft.db").rename(folder / "raft.db.new")
    scribble(folder / "raft.db.new", 0, 100)
    assert LogStore.open(folder, NAME).recover().tail.last == 0


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        before = fingerprint(folder)
        with pytest.raises(InUseError, match="in use by another process"):
            LogStore.open(folder, NAME)
        assert fingerprint(folder) == before
        process.kill()
    store = LogStore.open(folder, NAME)
    assert store.identity.boot == 2


def test_a_folder_in_use_by_this_process_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "data", 1)
    with pytest.raises(InUseError):
        LogStore.open(tmp_path / "data", NAME)
    store.close()
    LogStore.open(tmp_path / "data", NAME).close()


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=str(tmp_path)):
            LogStore.open(path, NAME)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_user_without_permission_is_told_so(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder, 1).close()
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        if path.stat().st_uid == 0 and path.name != "tmp":
            path.chmod(path.stat().st_mode | 0o055)
    before = fingerprint(folder)
    asked = [sys.executable, "-c", OPEN_AS_NOBODY, str(folder)]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert str(folder) in answer.stdout, answer
    assert "user id 65534" in answer.stdout
    assert fingerprint(folder) == before


def test_every_bit_of_the_identity_counts(tmp_path: Path) -> None:
    """One that flips never gives another identity; a few, in the JSON's spaces, change nothing."""
    store = filled(tmp_path / "data", 1)
    store.join("c" * 32)
    store.close()
    path = tmp_path / "data" / "identity.json"
    whole = path.read_bytes()
    identity = read_identity(tmp_path / "data", NAME)
    refused = 0
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert read_identity(tmp_path / "data", NAME) == identity
        except StorageError:
            refused += 1
    assert refused > 0.9 * 8 * len(whole)
