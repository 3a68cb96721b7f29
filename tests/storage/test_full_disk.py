"""A disk without space: nothing is half done, and everything goes on by itself once there is some."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordd.errors import DiskFullError
from coordd.storage.high_water import read_mark
from coordd.storage.log_store import LogStore
from coordd.types import Base, HardState
from tests.storage.support import CANDIDATE, NAME, append, contents, entry, filled

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place)], check=True, timeout=30)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=30)


def fill(place: Path) -> Path:
    """Take all space that is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return ballast


def test_a_write_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "data", 10)
    mark = read_mark(tmp_path / "data" / "high_water")
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    write = append(11, 4, ["big"] * 100, term=2, vote=CANDIDATE, size=4000)
    with pytest.raises(DiskFullError):
        store.write([write])
    assert contents(store) == [entry(f"e{index}") for index in range(1, 11)]
    assert read_mark(tmp_path / "data" / "high_water") == mark
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.write([write])
    store.close()
    recovered = LogStore.open(tmp_path / "data", NAME).recover()
    assert recovered.tail.last == recovered.promised == 103
    assert recovered.hard_state == HardState(2, CANDIDATE)


def write_without_end(store: LogStore) -> None:
    for index in range(store.last + 1, 10_000):
        store.write([append(index, index, [f"e{index}"], size=3000)])


@pytest.mark.root
@needs_root
def test_a_full_disk_is_survived_and_restarted_on(small: Path) -> None:
    folder = small / "data"
    store = filled(folder, 20, size=3000)
    ballast = fill(small)
    with pytest.raises(DiskFullError, match=str(folder)):
        write_without_end(store)
    index = store.last + 1
    assert len(contents(store)) == store.last
    store.close()
    store = LogStore.open(folder, NAME)
    assert store.recover().promised == store.last == index - 1
    assert len(contents(store)) == index - 1
    with pytest.raises(DiskFullError):
        store.write([append(index, index, ["x"] * 100, size=3000)])
    ballast.unlink()
    store.write([append(index, index, [f"e{index}"], size=3000)])
    store.compact(Base(index - 5))
    store.close()
    again = LogStore.open(folder, NAME)
    assert again.recover().promised == again.last == index
    again.close()


@pytest.mark.root
@needs_root
def test_no_space_for_a_new_folder_is_said_so(small: Path) -> None:
    fill(small)
    with pytest.raises(DiskFullError, match="no space left"):
        LogStore.open(small / "data", NAME)
