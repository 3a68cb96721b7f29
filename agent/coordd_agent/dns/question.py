"""Datagram to question: a strict reader in front of everything else, because anyone may send anything.

`read_question(packet)` gives a `Question`, or raises `Unreadable` with the reply to send, which is None for what gets
no reply (responses and bytes that are no DNS message). It never raises anything else. As measured on Consul: an opcode
other than QUERY and NOTIFY gets NOTIMP, a message without exactly one question FORMERR, both as a bare header.
"""

from struct import Struct
from struct import error as _StructError  # noqa: N812
from typing import NamedTuple

__all__ = ["CLIENT_SUBNET", "Edns", "Question", "Unreadable", "read_question"]

FORMERR, NOTIMP = 1, 4
QUERY, NOTIFY = 0, 4
OPT = 41
CLIENT_SUBNET = 8

_HEADER = Struct("!HHHHHH")
_TYPE_CLASS = Struct("!HH")
_FIXED = Struct("!HHIH")
"""Type, class, TTL and length of a record, behind its name."""
_OPTION = Struct("!HH")


class Unreadable(Exception):  # noqa: N818  a fact about the packet, not about this program
    """No question came out of the packet; `reply` goes back, if there is one."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__("unreadable DNS message")
        self.reply = reply


class Edns(NamedTuple):
    size: int
    """UDP payload size as asked; below 512 it counts as 512 but is echoed as it was."""
    subnet: bytes
    """Value of the client subnet option, b"" without one."""


class Question(NamedTuple):
    opcode: int
    flags: int
    name: tuple[bytes, ...]
    """Labels in the case they were asked in."""
    qtype: int
    section: bytes
    """The question section as it came, to be echoed."""
    edns: Edns | None
    key: bytes
    """What an equal question has in common, whatever its id and its EDNS options; b"" if its answer is only for it."""


def read_question(packet: bytes) -> Question:
    """Raises: Unreadable."""
    if len(packet) < 12:
        raise Unreadable(None)
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & 0x8000:
        raise Unreadable(None)
    opcode = flags >> 11 & 15
    if opcode not in (QUERY, NOTIFY):
        raise Unreadable(_bare_header(packet, opcode, NOTIMP))
    if questions != 1 or answers > 1 or authorities > 1 or additionals > 2:
        raise Unreadable(_bare_header(packet, QUERY, FORMERR))
    try:
        name, offset = _name(packet)
        qtype, _ = _TYPE_CLASS.unpack_from(packet, offset)
        section = packet[12 : offset + 4]
        edns, canonical = _edns(packet, offset + 4, answers + authorities + additionals)
    except (IndexError, ValueError, OverflowError, _StructError) as error:
        raise Unreadable(None) from error
    key = b""
    if canonical is not None and not answers and not authorities and not (edns and edns.subnet):
        key = packet[2:12] + section + canonical
    return Question(opcode, flags, name, qtype, section, edns, key)


def _name(packet: bytes) -> tuple[tuple[bytes, ...], int]:
    """The labels at offset 12, where no compression can be, and the offset behind them."""
    labels = []
    offset = 12
    while length := packet[offset]:
        if length > 63 or offset + length >= len(packet):
            raise ValueError("not a label")
        labels.append(packet[offset + 1 : offset + 1 + length])
        offset += length + 1
        if offset - 12 > 254:
            raise ValueError("name longer than 255 bytes")
    return tuple(labels), offset + 1


def _edns(packet: bytes, offset: int, records: int) -> tuple[Edns | None, bytes | None]:
    """What the OPT record says, and its bytes without options; (None, None) if other records stand there."""
    edns, canonical = None, b""
    for _ in range(records):
        at_root = packet[offset] == 0
        offset = _behind_name(packet, offset)
        kind, size, _, length = _FIXED.unpack_from(packet, offset)
        data = packet[offset + 10 : offset + 10 + length]
        if len(data) != length:
            raise ValueError("record goes on behind the end")
        if kind == OPT and at_root and edns is None:
            edns = Edns(size, _subnet(data))
            canonical = b"\0" + packet[offset : offset + 8] + b"\0\0"
        offset += 10 + length
    return edns, canonical if records == (edns is not None) else None


def _behind_name(packet: bytes, offset: int) -> int:
    while length := packet[offset]:
        if length >= 0xC0:
            return offset + 2
        if length > 63:
            raise ValueError("not a label")
        offset += length + 1
    return offset + 1


def _subnet(options: bytes) -> bytes:
    offset = 0
    while offset < len(options):
        code, length = _OPTION.unpack_from(options, offset)
        value = options[offset + 4 : offset + 4 + length]
        if len(value) != length:
            raise ValueError("option goes on behind the end")
        if code == CLIENT_SUBNET:
            return _checked_subnet(value)
        offset += 4 + length
    return b""


def _checked_subnet(value: bytes) -> bytes:
    """Family, prefix length, scope and as many bytes of address as the prefix needs, with zeroes behind it."""
    family, prefix = int.from_bytes(value[:2], "big"), value[2]
    used = (prefix + 7) // 8
    if prefix > {0: 0, 1: 32, 2: 128}.get(family, 0) or len(value) != 4 + used:
        raise ValueError("not a subnet")
    if prefix % 8 and value[-1] & 0xFF >> prefix % 8:
        raise ValueError("address goes on behind its prefix")
    return value


def _bare_header(packet: bytes, opcode: int, rcode: int) -> bytes:
    recursion_desired = packet[2] & 1
    return packet[:2] + bytes([0x80 | opcode << 3 | recursion_desired, rcode]) + bytes(8)
