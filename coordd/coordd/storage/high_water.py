"""What this server has promised to remember, outside the database that may forget it.

SQLite takes a damaged WAL for the end of the log, without a word. The mark turns that silence into a fact: it is synced
after each durable batch and before anything is acknowledged, and lowered before entries are replaced.

File: two slots of 512 bytes, at 0 and 4096, written in turns, so that a torn write leaves the other one. Each holds a
sequence number (the higher one counts), the mark and a CRC-32C over all of it.
"""

import os
import struct
from pathlib import Path

import msgspec
from crc32c import crc32c

from coordd.errors import StorageError, invariant
from coordd.storage.failures import storing, sync_file
from coordd.storage.files import write_durably
from coordd.types import Index, ServerId, Term

__all__ = ["HighWater", "Mark", "read_certain_mark", "read_mark"]

_MAGIC = b"coordHW1"
_HEAD = struct.Struct(">8sQQIQQ?H")
_CRC = struct.Struct(">I")
_SLOT_BYTES = 512
_SLOT_DISTANCE = 4096
_MAX_VOTE_BYTES = _SLOT_BYTES - _HEAD.size - _CRC.size


class Mark(msgspec.Struct, frozen=True):
    """The last durable index with the chain there, the hard state's term and vote, and the number of this start."""

    last: Index = 0
    chain: int = 0
    term: Term = 0
    vote: ServerId | None = None
    boot: int = 0
    refilling: bool = False
    """The log was found shorter than `last` and a leader is refilling it; `chain` says nothing about its entries."""


def read_mark(path: Path) -> Mark | None:
    """The mark in a file, which is not changed. None: the file is missing or no slot of it is valid."""
    try:
        with storing(path):
            content = path.read_bytes()[: _SLOT_DISTANCE + _SLOT_BYTES]
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    newest = _newest(content)
    return newest[1] if newest else None


def read_certain_mark(path: Path) -> Mark | None:
    """As `read_mark`, but None also if the other slot is damaged: it may have been the newer one. Empty it is only beside the
    first mark of all; else a disk has given zeros for it."""
    if read_mark(path) is None:
        return None
    with storing(path):
        content = path.read_bytes()[: _SLOT_DISTANCE + _SLOT_BYTES]
    slots = [found for start in (0, _SLOT_DISTANCE) if (found := _unpack(content[start : start + _SLOT_BYTES]))]
    sequence, mark = max(slots, key=lambda slot: slot[0])
    whole = len(slots) == 2 or (sequence == 0 and not any(content[_SLOT_DISTANCE:]))
    return mark if whole else None


class HighWater:
    """The open file. `mark` is what it says now. One thread uses it."""

    def __init__(self, path: Path) -> None:
        """Open an existing file. Raises: StorageError, also if no slot is valid."""
        self.path = path
        self.syncs = 0
        with storing(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            newest = _newest(os.pread(self._descriptor, _SLOT_DISTANCE + _SLOT_BYTES, 0))
        if newest is None:
            os.close(self._descriptor)
            raise StorageError(f"{path} holds no valid mark")
        self._sequence, self.mark = newest

    @staticmethod
    def create(path: Path, mark: Mark) -> None:
        """Make the file with a first mark, durably."""
        write_durably(path, _pack(0, mark).ljust(_SLOT_DISTANCE + _SLOT_BYTES, b"\0"))

    def write(self, mark: Mark) -> None:
        """Write and sync. Raises: DiskFullError (the old mark stands), StorageError (the process must end)."""
        slot = _pack(self._sequence + 1, mark)
        with storing(self.path):
            written = os.pwrite(self._descriptor, slot, (self._sequence + 1) % 2 * _SLOT_DISTANCE)
        if written != len(slot):
            raise StorageError(f"{self.path} can't be written: check the disk, then restart")
        sync_file(self._descriptor, self.path)
        self.syncs += 1
        self._sequence += 1
        self.mark = mark

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _pack(sequence: int, mark: Mark) -> bytes:
    vote = (mark.vote or "").encode()
    invariant(len(vote) <= _MAX_VOTE_BYTES, "a server's identity is longer than a high-water slot", vote=vote)
    head = _HEAD.pack(_MAGIC, sequence, mark.last, mark.chain, mark.term, mark.boot, mark.refilling, len(vote))
    body = (head + vote).ljust(_SLOT_BYTES - _CRC.size, b"\0")
    return body + _CRC.pack(crc32c(body))


def _newest(content: bytes) -> tuple[int, Mark] | None:
    slots = [_unpack(content[start : start + _SLOT_BYTES]) for start in (0, _SLOT_DISTANCE)]
    return max((slot for slot in slots if slot), key=lambda slot: slot[0], default=None)


def _unpack(slot: bytes) -> tuple[int, Mark] | None:
    if len(slot) != _SLOT_BYTES or _CRC.pack(crc32c(slot[: -_CRC.size])) != slot[-_CRC.size :]:
        return None
    magic, sequence, last, chain, term, boot, refilling, length = _HEAD.unpack_from(slot)
    if magic != _MAGIC:
        return None
    vote = slot[_HEAD.size : _HEAD.size + length].decode()
    return sequence, Mark(last, chain, term, ServerId(vote) if vote else None, boot, refilling)
