"""The book of long campaigns: which seeds were run, on which commit, and what came of it.

A text file with one line for each chunk of seeds, appended when the chunk is done: whoever is killed loses that one chunk.
A seed is run once, ever: what it does depends on the code, so another commit is better served with a new one.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.sim.summary import Summary

__all__ = ["Book", "Chunk", "commit"]

ROOT = Path(__file__).parents[2]
FIRST = 1001
"""Seeds below are for tests and for finding planted bugs."""
SOURCES = ("coordd", "tests/sim")


class Chunk(NamedTuple):
    """A line of the book. Counts are sums over the chunk's runs."""

    commit: str
    first: int
    last: int
    seconds: float
    """Simulated, of each run."""
    runs: int
    failures: int
    operations: int
    faults: int
    elections: int
    snapshots: int
    changes: int
    reads: int
    simulated: int
    """Seconds, all runs together, with the time it took to finish after healing."""
    real: int
    failed: str
    """Seeds, or "-"."""


class Book:
    """The file may be missing: a new book."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.chunks = [_parsed(line) for line in lines if line and not line.startswith(("#", "commit\t"))]

    def unused(self, first: int, last: int) -> list[int]:
        """Those of these seeds that were never run."""
        used = {seed for chunk in self.chunks for seed in range(chunk.first, chunk.last + 1)}
        return [seed for seed in range(first, last + 1) if seed not in used]

    @property
    def next(self) -> int:
        """The first seed behind all that were run."""
        return max((chunk.last + 1 for chunk in self.chunks), default=FIRST)

    def append(self, chunk: Chunk) -> None:
        new = not self._path.exists()
        with self._path.open("a", encoding="utf-8") as file:
            if new:
                file.write("\t".join(Chunk._fields) + "\n")
            file.write("\t".join(f"{value:g}" if isinstance(value, float) else str(value) for value in chunk) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.chunks.append(chunk)

    def total(self, of_commit: str | None = None) -> str:
        """In one line."""
        chunks = [chunk for chunk in self.chunks if of_commit in (None, chunk.commit)]
        runs, failures = sum(chunk.runs for chunk in chunks), sum(chunk.failures for chunk in chunks)
        return f"{runs} seeds on {of_commit or 'all commits'}, {failures} failures"


def pieces(seeds: list[int], size: int) -> Iterator[list[int]]:
    """In order, without gaps inside a piece: a line of the book names only its first and last seed."""
    piece: list[int] = []
    for seed in seeds:
        if piece and (len(piece) == size or seed != piece[-1] + 1):
            yield piece
            piece = []
        piece.append(seed)
    if piece:
        yield piece


def chunk(seeds: list[int], seconds: float, summary: Summary, failed: list[int]) -> Chunk:
    counts = summary.counts
    return Chunk(
        commit(),
        seeds[0],
        seeds[-1],
        seconds,
        summary.runs,
        len(failed),
        counts["operations"],
        counts["faults"],
        counts["fact leader"],
        counts["snapshots installed"],
        counts["membership changes"],
        sum(count for name, count in counts.items() if name.startswith("reads ")),
        round(summary.simulated),
        round(summary.real),
        " ".join(map(str, sorted(failed))) or "-",
    )


def commit() -> str:
    """Of what is run; with a plus if product or simulator differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD")
    return name + ("+" if _git("status", "--porcelain", "--", *SOURCES) else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def _parsed(line: str) -> Chunk:
    kinds = Chunk.__annotations__
    return Chunk(*(kinds[name](text) for name, text in zip(Chunk._fields, line.split("\t"), strict=True)))
