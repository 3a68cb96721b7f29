"""Which bytes of a server's files mean something: a bit that flips elsewhere proves nothing.

- A SQLite database: of the pages that belong to a table, an index or the schema, and that no frame of the write-ahead log
  replaces, the page header, the cell pointers and the cells; not the gap between those, free blocks, or pages of the free list.
  Overflow pages: what they carry. Of the file's header all but its reserved bytes.
- A write-ahead log: everything up to the end of its last commit; what follows was left over by an earlier round.
- `high_water`: both slots, of which the checksum is the end.
- Any other file: all of it.

`allocated` is given a folder that nobody changes meanwhile.
"""

import random
import shutil
import sqlite3
import struct
import tempfile
from contextlib import closing
from pathlib import Path

from coordd.storage.wal import read_wal

__all__ = ["allocated", "choose", "flip"]

Ranges = list[tuple[int, int]]
"""Half-open, in order."""

_HEADER = [(0, 72), (92, 100)]
_LEAVES = (0x0A, 0x0D)


def choose(ranges: Ranges, chance: random.Random) -> tuple[int, int]:
    """Offset and bit number of one bit, each as likely as any other."""
    at = chance.randrange(sum(end - start for start, end in ranges))
    for start, end in ranges:
        if at < end - start:
            return start + at, chance.randrange(8)
        at -= end - start
    raise AssertionError("no such byte")


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ 1 << bit]))


def allocated(path: Path) -> Ranges:
    """The bytes that mean something."""
    if path.name.endswith("-wal"):
        return [(0, read_wal(path).end)]
    if path.name.endswith(".db"):
        return _of_database(path)
    if path.name == "high_water":
        return [(start, start + 512) for start in (0, 4096)]
    return [(0, path.stat().st_size)]


def _of_database(path: Path) -> Ranges:
    wal = read_wal(path.with_name(path.name + "-wal"))
    kinds, page_size = _pages(path)
    content = path.read_bytes()
    ranges: Ranges = []
    for number, (kind, payload) in sorted(kinds.items()):
        start = (number - 1) * page_size
        if number in wal.pages or start + page_size > len(content):
            continue
        if kind == "overflow":
            ranges.append((start, start + 4 + payload))
            continue
        if number == 1:
            ranges += _HEADER
        page = content[start : start + page_size]
        ranges += [(start + first, start + end) for first, end in _of_page(page, 100 if number == 1 else 0)]
    return ranges


def _pages(path: Path) -> tuple[dict[int, tuple[str, int]], int]:
    """Page number → (kind, bytes of payload) of all pages in use, as of the last commit; and the size of a page."""
    with tempfile.TemporaryDirectory() as aside:
        copy = Path(aside) / path.name
        for suffix in ("", "-wal"):
            if (source := path.with_name(path.name + suffix)).exists():
                shutil.copyfile(source, copy.with_name(copy.name + suffix))
        with closing(sqlite3.connect(copy)) as database:
            rows = database.execute("SELECT pageno, pagetype, payload FROM dbstat").fetchall()
            [(page_size,)] = database.execute("PRAGMA page_size").fetchall()
    return {number: (kind, payload) for number, kind, payload in rows}, page_size


def _of_page(page: bytes, header: int) -> Ranges:
    """Of a b-tree page; https://www.sqlite.org/fileformat2.html section 1.6."""
    kind, free, cells, content = struct.unpack_from(">BHHH", page, header)
    length = 8 if kind in _LEAVES else 12
    ranges = [(header, header + length + 2 * cells)]
    at = content or 65536
    while free:
        following, size = struct.unpack_from(">HH", page, free)
        ranges.append((at, free))
        at, free = free + size, following
    ranges.append((at, len(page)))
    return [each for each in ranges if each[0] < each[1]]
