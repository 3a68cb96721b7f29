"""What options and arguments mean: durations, pairs, values from standard input."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import typer

from coordd.messages.command import Fence

__all__ = ["milliseconds", "pairs", "parse_fence", "read_bytes", "read_text"]

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def milliseconds(text: str | int) -> int:
    """`500ms`, `10s`, `1.5m`, `1h`, or a plain number of seconds. For typer's `parser`, which is given defaults, too."""
    if isinstance(text, int):
        return text
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; write for example 500ms, 10s, 5m or 1h")
    return round(float(found[1]) * _UNITS[found[2] or "s"])


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE` arguments."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE")
        result[key] = value
    return result


def parse_fence(text: str) -> Fence:
    """`NAME:TOKEN`; the name itself may hold colons. For typer's `parser`."""
    name, colon, token = text.rpartition(":")
    if not colon or not name or not token.isascii() or not token.isdigit():
        raise typer.BadParameter(f"{text!r} is not NAME:TOKEN, a lock's name and the number from COORD_LOCK_TOKEN")
    return Fence(name, int(token))


def read_bytes(value: str) -> bytes:
    """An argument's bytes as they were typed; `-` stands for standard input."""
    return sys.stdin.buffer.read() if value == "-" else value.encode("utf-8", "surrogateescape")


def read_text(value: str) -> str:
    """The argument itself, standard input for `-`, a file for `@PATH`."""
    if value == "-":
        return sys.stdin.read()
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{value[1:]} can't be read: {error}") from error
