"""Long campaigns: no seed twice, nothing lost but one chunk, work in children that come to an end."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.sim import campaign
from tests.sim.campaign import Book
from tests.sim.summary import LONG, Summary

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: test runners have threads, and what forks must not."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_sitting_goes_on_where_the_last_one_ended_and_repeats_no_seed(tmp_path: Path) -> None:
    path = tmp_path / "book.tsv"
    common = ["-m", "tests.sim", "--seconds", "2", "--no-floors", "--results", str(path), "--chunk", "2"]
    for options in (["--next", "3", "--jobs", "2"], ["--seeds", "1002..1005"], ["--next", "1"]):
        done = python(*common, *options)
        assert done.returncode == 0, done.stdout + done.stderr
    chunks = Book(path).chunks
    assert [(c.first, c.last) for c in chunks] == [(1001, 1002), (1003, 1003), (1004, 1005), (1006, 1006)]
    assert all(c.commit and c.operations > 10 and c.runs == c.last - c.first + 1 for c in chunks)
    assert Book(path).next == 1007
    assert "6 seeds on all commits, 0 failures" in Book(path).total()


def test_seeds_are_told_by_ranges_without_gaps() -> None:
    assert list(campaign.pieces([1, 2, 3, 7, 8], 2)) == [[1, 2], [3], [7, 8]]
    assert list(campaign.pieces([], 2)) == []


def test_failures_are_written_down(tmp_path: Path) -> None:
    book = Book(tmp_path / "book.tsv")
    line = campaign.chunk([5, 6], 60.0, Summary(Counter({"reads stale": 3, "reads default": 4}), 2, 120.4, 3.9), [6])
    book.append(line)
    assert Book(tmp_path / "book.tsv").chunks == [line]
    assert (line.failed, line.reads, line.simulated, line.real) == ("6", 7, 120, 4)


@pytest.mark.parametrize(("jobs", "seconds"), [(1, 60.0), (3, 60.0), (2, 4.0)])
def test_children_work_fail_and_take_too_long(jobs: int, seconds: float) -> None:
    text = (
        "import os, time\n"
        "from tests.sim.children import in_children\n"
        "def work(n):\n"
        "    if n == 3: os._exit(7)\n"
        "    if n == 4: raise ValueError('four')\n"
        f"    if n == 5 and {seconds} < 60: time.sleep(3600)\n"
        "    return 'x' * 200_000 + str(n * n)\n"
        f"found = in_children(work, range(8), {jobs}, {seconds})\n"
        "print(sorted((n, result and int(result[200_000:])) for n, result in found))\n"
    )
    done = python("-W", "error", "-c", text)
    assert done.returncode == 0, done.stderr
    lost = {3, 4} | ({5} if seconds < 60 else set())
    assert done.stdout.strip() == str([(n, None if n in lost else n * n) for n in range(8)])
    assert "ValueError: four" in done.stderr


def test_whoever_leaves_early_leaves_no_child_behind() -> None:
    text = (
        "import os, time\n"
        "from tests.sim.children import in_children\n"
        "def work(n):\n"
        "    if n: time.sleep(3600)\n"
        "    return n\n"
        "for _ in in_children(work, range(3), 3): break\n"
        "try: os.wait()\n"
        "except ChildProcessError: print('none')\n"
    )
    assert python("-c", text).stdout.strip() == "none"


def test_what_never_happens_in_a_long_series_is_too_little() -> None:
    short = Summary(Counter({"fault zombie": 0}), 1, LONG / 2)
    long = Summary(Counter({"fault zombie": 0}), 1, LONG)
    assert "fault zombie: never" not in short.shortfalls()
    assert "fault zombie: never" in long.shortfalls()


def test_the_commit_is_named() -> None:
    assert len(campaign.commit().rstrip("+")) == 12
    assert os.fspath(campaign.ROOT) == os.fspath(ROOT)
