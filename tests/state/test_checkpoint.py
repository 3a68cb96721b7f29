"""Moving the write-ahead log of a state file on a connection of its own."""

from pathlib import Path

import pytest

from coordd.errors import DamagedError, StorageError
from coordd.messages.command import KvPut, encode
from coordd.messages.entry import CommandHeader, encode_command
from coordd.state.checkpoint import checkpoint_file
from coordd.state.machine import Machine


def test_what_is_committed_is_moved_into_the_file_beside_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    machine = Machine.open(str(path))
    before = path.stat().st_size
    entry = encode_command(CommandHeader(1, 0, 0, 0), encode(KvPut("k", b"x" * 100_000)))
    machine.apply(1, [(1, entry)])
    assert path.stat().st_size == before, "a commit alone leaves the file as it is"
    checkpoint_file(path)
    assert path.stat().st_size > before
    assert machine.checkpoint(), "nothing is left to be moved"
    machine.close()


def test_a_file_that_was_replaced_meanwhile_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "gone.db"
    with pytest.raises(StorageError, match=r"gone\.db"):
        checkpoint_file(path)
    assert not path.exists()


def test_what_makes_no_sense_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Machine.open(str(path)).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8)
    with pytest.raises(DamagedError, match="is damaged"):
        checkpoint_file(path)
