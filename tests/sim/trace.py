"""What happened, in words: the newest part is kept for a failure's report, all of it is written if a file is given.

Lines are made only when somebody reads them. A line shows virtual times, names, numbers and lengths, never a memory
address or a set, so that one seed gives the same bytes in every process.
"""

from collections import deque
from collections.abc import Iterator
from typing import TextIO

import msgspec

from coordd.types import Base, Configuration, LogSlice, ServerId, SnapshotMeta, server_name

__all__ = ["Trace", "describe"]

KEPT = 3000
"""Lines that a failure's report can go back."""


class Trace:
    """`say` costs next to nothing while no file is written."""

    def __init__(self, file: TextIO | None = None, folder: str = "") -> None:
        """`folder`: is not shown, as it has another name each time."""
        self._file = file
        self._folder = folder
        self._kept: deque[tuple[float, str, str, object]] = deque(maxlen=KEPT)

    def say(self, time: float, who: str, what: str, subject: object = None) -> None:
        moment = (time, who, what, subject)
        self._kept.append(moment)
        if self._file is not None:
            self._file.write(self._line(moment) + "\n")

    def newest(self, count: int) -> Iterator[str]:
        skipped = max(0, len(self._kept) - count)
        for number, moment in enumerate(self._kept):
            if number >= skipped:
                yield self._line(moment)

    def _line(self, moment: tuple[float, str, str, object]) -> str:
        line = _line(moment)
        return line.replace(self._folder, "") if self._folder else line


def _line(moment: tuple[float, str, str, object]) -> str:
    time, who, what, subject = moment
    return f"{time:11.6f} {who:<4} {what}" + ("" if subject is None else f" {describe(subject)}")


def describe(subject: object) -> str:
    """One line for any fact, message or value; what is long or holds bytes is told by its size."""
    match subject:
        case LogSlice():
            runs = " ".join(f"{first}@{term}" for first, term in subject.runs)
            return f"[{subject.first}..{subject.last}: {runs}]" if subject.entries else f"[{subject.first}..]"
        case Base():
            return f"base({subject.index}@{subject.term})"
        case SnapshotMeta():
            return f"snapshot({subject.index}@{subject.term})"
        case Configuration():
            return _configuration(subject)
        case msgspec.Struct():
            values = ((name, getattr(subject, name)) for name in type(subject).__struct_fields__)
            shown = " ".join(
                f"{name}={describe(value)}" for name, value in values if value not in (None, False, [], ())
            )
            return f"{type(subject).__name__}({shown})"
        case bytes() | memoryview():
            return f"<{len(subject)} bytes>"
        case str():
            return server_name(ServerId(subject)) if len(subject) < 64 else f"{subject[:60]}…"
        case tuple() | list():
            return "[" + ", ".join(describe(item) for item in subject) + "]"
        case dict():
            return "{" + ", ".join(f"{describe(key)}: {describe(value)}" for key, value in subject.items()) + "}"
        case float():
            return f"{subject:.6f}"
        case _:
            return str(subject)


def _configuration(configuration: Configuration) -> str:
    members = " ".join(m.name + ("" if m.voter else "?" if m.promote else "-") for m in configuration.members)
    joint = f" outgoing {' '.join(map(server_name, configuration.outgoing))}" if configuration.outgoing else ""
    return f"({members}{joint})"
