"""What a power cut leaves of bytes that were written and not synced: any part of them, old content, zeros or noise."""

from tests.sim.chance import Chance

__all__ = ["SECTOR", "mixed", "torn"]

SECTOR = 512
"""Bytes that a disk writes as one."""


def torn(before: bytes, after: bytes, chance: Chance) -> bytes:
    """`after` was being written over `before`: a part of what differs arrived. What was not written stays as it was, also
    in a sector that was (SQLite's "powersafe overwrite")."""
    old = before.ljust(len(after), b"\0")
    sector = next((place for place in range(0, len(after), SECTOR) if not _same(old, after, place)), None)
    if sector is None:
        return after
    changed = next(place for place in range(sector, len(after)) if old[place] != after[place])
    kind = chance.choice(["cut", "sectors", "noise"])
    if kind == "sectors":
        return mixed(before, after, chance)
    cut = chance.randint(changed, len(after))
    rest = before[cut:] if kind == "cut" else chance.randbytes(min(4096, len(after) - cut))
    return after[:cut] + rest


def mixed(before: bytes, after: bytes, chance: Chance) -> bytes:
    """Of each sector that differs, either content."""
    old, result = before.ljust(len(after), b"\0"), bytearray(after)
    for place in range(0, len(after), SECTOR):
        if not _same(old, after, place) and chance.happens(0.5):
            result[place : place + SECTOR] = old[place : min(place + SECTOR, len(after))]
    return bytes(result)


def _same(one: bytes, other: bytes, place: int) -> bool:
    return one[place : place + SECTOR] == other[place : place + SECTOR]
