"""Short ways to say what the tests of the server room say often."""

from typing import Any

import msgspec

from coordd.messages.client import Write
from coordd.messages.command import Command, KvPut, encode
from coordd.messages.entry import CommandHeader, encode_command
from coordd.messages.peer import Hello
from coordd.types import ServerId, make_server_id, server_name


def key(name: str) -> str:
    """A public key for a name: 40 characters of Z85, different for each of s1 to s9."""
    return (name + "0" * 40)[:40]


def sid(name: str, life: int = 1) -> ServerId:
    return make_server_id(name, f"{life:032x}")


def hello(server: ServerId, *, cluster: str = "", cluster_name: str = "test", last: int = 0, name: str = "") -> Hello:
    return Hello(name or server_name(server), server, 1, cluster_name, cluster, last)


def write(command: Command, **numbers: Any) -> Write:
    """`client`, `number` and `lowest` as in the message."""
    return Write(msgspec.Raw(encode(command)), **numbers)


def put(key: str, value: bytes = b"v") -> bytes:
    """The entry of an unnumbered put."""
    return encode_command(CommandHeader(1, 0, 0, 0), encode(KvPut(key, value)))
