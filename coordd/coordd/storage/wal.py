"""SQLite's write-ahead log, read without SQLite: how far is it valid, and which pages does that part hold?

Format: https://www.sqlite.org/fileformat2.html section 4. A header of 32 bytes (magic, version, page size, checkpoint
number, two salts, checksum), then frames: page number, database size after a commit or 0, the salts, a checksum that
continues the one before, and the page. The valid part ends with the last commit frame before the first frame whose
salts or checksum do not fit: behind it lie frames of an earlier round, a torn write or damage, and the file can't tell.
"""

import struct
from enum import StrEnum
from pathlib import Path

import msgspec

from coordd.storage.failures import storing

__all__ = ["Wal", "WalHeader", "read_wal"]

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
_MAGIC_BIG_ENDIAN = 0x377F0683
_VERSION = 3007000
_MASK = 0xFFFFFFFF


class WalHeader(StrEnum):
    ABSENT = "absent"
    """No file, or one too short for a header, as after a clean stop."""
    DAMAGED = "damaged"
    VALID = "valid"


class Wal(msgspec.Struct, frozen=True):
    """What the valid part of a WAL holds."""

    header: WalHeader
    page_size: int = 0
    pages: dict[int, int] = {}
    """Page number → offset in the file of its newest committed content."""
    database_pages: int = 0
    """Size of the database after the last commit; 0 without any."""
    end: int = 0
    """Offset behind the last commit frame."""
    size: int = 0
    """Bytes of the file."""


def read_wal(path: Path) -> Wal:
    """Raises: StorageError if the file exists and can't be read."""
    with storing(path):
        if not path.exists():
            return Wal(WalHeader.ABSENT)
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return Wal(WalHeader.ABSENT, size=size)
            magic, version, page_size, _, salt1, salt2, sum1, sum2 = _HEADER.unpack(head)
            order = ">" if magic == _MAGIC_BIG_ENDIAN else "<"
            fits = magic in (_MAGIC, _MAGIC_BIG_ENDIAN) and version == _VERSION and _is_page_size(page_size)
            if not fits or _checksum(order, head[:24], (0, 0)) != (sum1, sum2):
                return Wal(WalHeader.DAMAGED, size=size)
            pages: dict[int, int] = {}
            pending: dict[int, int] = {}
            database_pages = 0
            end = offset = _HEADER.size
            running = (sum1, sum2)
            while len(frame := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
                page, after_commit, frame_salt1, frame_salt2, sum1, sum2 = _FRAME.unpack_from(frame)
                if (frame_salt1, frame_salt2) != (salt1, salt2) or page == 0:
                    break
                running = _checksum(order, frame[_FRAME.size :], _checksum(order, frame[:8], running))
                if running != (sum1, sum2):
                    break
                pending[page] = offset + _FRAME.size
                offset += len(frame)
                if after_commit:
                    pages.update(pending)
                    pending.clear()
                    database_pages, end = after_commit, offset
    return Wal(WalHeader.VALID, page_size, pages, database_pages, end, size)


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


def _checksum(order: str, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second
