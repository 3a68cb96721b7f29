"""A damaged log becomes an empty one that remembers its promises; where they are not known for certain nothing is done."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordd.errors import DamagedError, InUseError, StorageError
from coordd.storage import refill
from coordd.storage.high_water import HighWater, Mark
from coordd.storage.log_store import LogStore
from coordd.storage.refill import KEPT, forget_log
from coordd.types import HardState, LogWrite
from tests.storage.support import CANDIDATE, NAME, append, filled, fingerprint, scribble


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The folder of a server that voted in term 3 and was killed with 9 entries, of which one is damaged since."""
    folder = tmp_path / "data"
    store = filled(folder, 9)
    store.write([LogWrite(10, HardState(3, CANDIDATE), None, must_sync=True)])
    store.close()
    with closing(sqlite3.connect(folder / "raft.db")) as connection, connection:
        connection.execute("UPDATE entries SET data = x'0178' WHERE idx = 5")
    (folder / "state-7-0123456789abcdef0123456789abcdef.db").write_bytes(b"state")
    return folder


def test_it_begins_anew_and_keeps_its_word(damaged: Path) -> None:
    before = fingerprint(damaged)
    with pytest.raises(DamagedError, match="--refill"):
        LogStore.open(damaged, NAME)
    assert forget_log(damaged, NAME) == 9
    kept = fingerprint(damaged / KEPT)
    assert kept == {name: before[name] for name in before if name.startswith(("raft.db", "state-"))}
    assert not list(damaged.glob("state-*"))
    store = LogStore.open(damaged, NAME)
    recovered = store.recover()
    assert (recovered.promised, recovered.tail.last) == (9, 0)
    assert (recovered.hard_state.term, recovered.hard_state.vote) == (3, CANDIDATE)
    store.write([append(1, 1, ["e1"], term=3)])
    store.close()
    store = LogStore.open(damaged, NAME)
    assert store.recover().promised == 9  # until it is kept
    store.close()


def test_what_was_kept_last_time_goes(damaged: Path) -> None:
    forget_log(damaged, NAME)
    LogStore.open(damaged, NAME).close()
    forget_log(damaged, NAME)
    assert not list((damaged / KEPT).glob("state-*"))
    assert (damaged / KEPT / "raft.db").exists()


@pytest.mark.parametrize("survived", ["create", "sync_folder"])
def test_killed_in_the_middle_it_is_done_again(damaged: Path, monkeypatch: pytest.MonkeyPatch, survived: str) -> None:
    original = (damaged / "raft.db").read_bytes()

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(refill, survived, killed)
        with pytest.raises(KeyboardInterrupt):
            forget_log(damaged, NAME)
    with pytest.raises(DamagedError, match=r"missing.*--refill"):
        LogStore.open(damaged, NAME)
    assert forget_log(damaged, NAME) == 9
    assert (damaged / KEPT / "raft.db").read_bytes() == original
    LogStore.open(damaged, NAME).close()


@pytest.mark.parametrize("offset", [20, 4096 + 20])
def test_with_a_damaged_slot_of_the_mark_it_is_refused(damaged: Path, offset: int) -> None:
    scribble(damaged / "high_water", offset)
    before = fingerprint(damaged)
    with pytest.raises(DamagedError, match="remove the server from its cluster"):
        forget_log(damaged, NAME)
    assert fingerprint(damaged) == before


@pytest.mark.parametrize("offset", [0, 4096])
def test_a_slot_of_zeros_is_a_damaged_one(damaged: Path, offset: int) -> None:
    """Some disks give zeros for what they have lost; the newer promise may have stood there."""
    with (damaged / "high_water").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(512))
    with pytest.raises(DamagedError, match="remove the server from its cluster"):
        forget_log(damaged, NAME)


def test_without_a_mark_it_is_refused(damaged: Path) -> None:
    (damaged / "high_water").unlink()
    with pytest.raises(DamagedError, match="add it anew"):
        forget_log(damaged, NAME)


def test_a_mark_with_one_slot_that_was_never_used_is_certain(damaged: Path) -> None:
    HighWater.create(damaged / "high_water", Mark(last=4, term=2))
    assert forget_log(damaged, NAME) == 4


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path / "data", 1)
    with pytest.raises(InUseError):
        forget_log(tmp_path / "data", NAME)
    store.close()


def test_an_unused_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="never used"):
        forget_log(tmp_path / "data", NAME)
