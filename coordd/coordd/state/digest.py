"""A hash of all rows that does not depend on their order, kept up to date by before and after images.

The digest of a set of rows is the sum, modulo 2**128, of one keyed hash for each row: adding a row adds its hash, deleting
it subtracts it. So it is known after every batch without reading anything, and two replicas with the same digest at the
same index hold the same rows.
"""

from collections.abc import Callable
from hashlib import blake2b

import msgspec

__all__ = ["MODULUS", "RowHash", "row_hash"]

MODULUS = 1 << 128
_encode = msgspec.msgpack.Encoder().encode

RowHash = Callable[[tuple[object, ...]], int]


def row_hash(table: str) -> RowHash:
    """The hash function of one table's rows; rows hold only text, integers and bytes."""
    start = blake2b(digest_size=16, person=table.encode()[:16])

    def of(row: tuple[object, ...]) -> int:
        hashed = start.copy()
        hashed.update(_encode(row))
        return int.from_bytes(hashed.digest(), "little")

    return of
