"""What the replicated state refuses to hold, and the words it refuses with.

The checks raise `Refused`, which the machine turns into a `Failure`; a check changes nothing. Limits are the same on every
server of a cluster: they decide what a command does, so changing one needs a feature level.
"""

import re

import msgspec

from coordd.messages.codec import MAX_VALUE_BYTES
from coordd.messages.command import Failure
from coordd.types import Index

__all__ = ["MAX_FAILURE_TEXT", "MAX_TIME", "Limits", "Refused", "check_name", "check_text", "later", "lock_delay_end"]

MAX_TIME = (1 << 63) - 1
"""Times saturate here, at what SQLite can hold."""
MAX_FAILURE_TEXT = 400
"""Characters: with the number of kept replies it bounds the bytes kept for a client."""
_LONGEST_LOCK_DELAY_MS = 60_000
_NAME_LENGTH = 128
_TEXT_LENGTH = 8 * 1024
_STRICT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the replicated state."""

    value_bytes: int = MAX_VALUE_BYTES
    key_bytes: int = 512
    rows_for_one_command: int = 10_000
    topics: int = 65_536
    """Topic rows kept, tombstones of keys among them; beyond, the oldest are folded into a floor."""
    clients: int = 65_536
    replies_for_one_client: int = 1_024
    waiters_for_one_lock: int = 1_024
    held_by_one_session: int = 1_024
    """Keys, and as many places at locks (held or waited for)."""
    sessions: int = 65_536
    policies_for_one_token: int = 64


class Refused(Exception):  # noqa: N818  # no error of the program: a normal outcome, never seen outside the state
    """A command is semantically wrong. Raised before anything was changed.

    The text is kept as a reply, hence replicated: it shows what came from outside by `!a`, because what `!r` escapes
    depends on Python's version, and it never repeats what a library said.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def failure(self, index: Index) -> Failure:
        return Failure(index, self.code, self.text[:MAX_FAILURE_TEXT])


def check_name(what: str, name: str, strict: bool = False, length: int = _NAME_LENGTH) -> None:
    """1 to `length` characters without control characters; `strict`: only letters, digits and - . _ ."""
    if not name:
        raise Refused("invalid", f"missing {what}")
    if len(name) > length:
        raise Refused("invalid", f"{what} is longer than {length} characters")
    if strict and not _STRICT.fullmatch(name):
        raise Refused("invalid", f"{what} {name!a} may hold only letters, digits and - . _")
    if _CONTROL.search(name):
        raise Refused("invalid", f"{what} {name!a} holds control characters")


def check_text(what: str, text: str, limit: int = _TEXT_LENGTH) -> None:
    """Free text for display, bounded."""
    if len(text) > limit:
        raise Refused("invalid", f"{what} is longer than {limit} characters")


def later(time: int, milliseconds: int) -> int:
    """A time so much later, within what can be stored."""
    return max(-MAX_TIME, min(MAX_TIME, time + milliseconds * 1_000_000))


def lock_delay_end(now: int, lock_delay_ms: int) -> int:
    """When the lock delay of a session that ends now is over; 0: it has none. More than a minute counts as a minute."""
    return later(now, min(lock_delay_ms, _LONGEST_LOCK_DELAY_MS)) if lock_delay_ms > 0 else 0
