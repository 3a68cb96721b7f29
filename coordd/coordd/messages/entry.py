"""What one log entry holds: a kind byte, then a body that only the reader of that kind understands.

The consensus core looks at the kind byte alone; it decodes configurations and nothing else. A command's header is packed
once, where the client's request enters the leader, and the bytes are then logged, sent and stored unchanged.
"""

import struct
from typing import NamedTuple

import msgspec

from coordd.types import Configuration

__all__ = [
    "COMMAND",
    "CONFIGURATION",
    "NOOP",
    "NOOP_ENTRY",
    "UNREADABLE",
    "CommandHeader",
    "decode_command",
    "decode_configuration",
    "encode_command",
    "encode_configuration",
]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)
"""What decoding raises on bytes that are no such message; a text that is no UTF-8 is not among msgspec's own errors."""

NOOP = 0
COMMAND = 1
CONFIGURATION = 2

NOOP_ENTRY = bytes([NOOP])

_HEADER = struct.Struct(">BqQQQ")
_configuration_decoder = msgspec.msgpack.Decoder(Configuration)


class CommandHeader(NamedTuple):
    """Who asked, and when by the replicated clock.

    `client` is 0 for a command without registration; then `number` and `lowest` are 0 too.
    """

    state_time: int
    """Replicated time in nanoseconds, stamped by the leader; never decreases along the log."""
    client: int
    """Identity of the registered client, drawn by itself when it registered (`command.RegisterClient`)."""
    number: int
    """The client's number of this write, from 1."""
    lowest: int
    """The client's lowest outstanding number: replies below it may be forgotten."""


def encode_command(header: CommandHeader, command: bytes) -> bytes:
    """One entry: the header and the command as the client encoded it (see `command.py`)."""
    return _HEADER.pack(COMMAND, *header) + command


def decode_command(entry: bytes) -> tuple[CommandHeader, memoryview]:
    """Split an entry of kind COMMAND. Raises: struct.error if it is too short."""
    fields = _HEADER.unpack_from(entry)
    return CommandHeader(*fields[1:]), memoryview(entry)[_HEADER.size :]


def encode_configuration(configuration: Configuration) -> bytes:
    return bytes([CONFIGURATION]) + msgspec.msgpack.encode(configuration)


def decode_configuration(entry: bytes) -> Configuration:
    """Raises: msgspec.DecodeError or ValidationError if the body is no configuration."""
    return _configuration_decoder.decode(memoryview(entry)[1:])
