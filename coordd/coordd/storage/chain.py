"""The chained checksum of the log: each entry's covers the entry and, through the one before, everything up to it.

It depends on nothing but the entries, so two servers' logs are equal up to an index if their chains are equal there.
"""

import struct

from crc32c import crc32c

from coordd.types import Index, Term

__all__ = ["chain_of"]

_PLACE = struct.Struct(">QQ")


def chain_of(previous: int, index: Index, term: Term, data: bytes) -> int:
    """Chain at `index`, given the chain of the entry before (0 before the first entry)."""
    return crc32c(data, crc32c(_PLACE.pack(index, term), previous))
