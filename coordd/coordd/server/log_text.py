"""Log entries for human eyes, with secrets and long values left out."""

from coordd.errors import InvariantError
from coordd.messages.client import LogRecord
from coordd.messages.command import command_decoder
from coordd.messages.entry import COMMAND, CONFIGURATION, UNREADABLE, decode_command, decode_configuration
from coordd.types import Index, Term

__all__ = ["log_record"]

_LONGEST = 60
_SECRET = ("secret_hash",)
_CONTENT = ("value",)
"""Who may read the log need not be allowed to read keys: of these only the length is told."""


def log_record(index: Index, term: Term, entry: bytes) -> LogRecord:
    """One row of `coordctl operator raft log`."""
    kind, text = _describe(entry)
    return LogRecord(index, term, kind, text)


def _describe(entry: bytes) -> tuple[str, str]:
    if entry[0] == CONFIGURATION:
        configuration = decode_configuration(entry)
        members = [f"{m.name}{'' if m.voter else ' (learner)'}" for m in configuration.members]
        return "configuration", ", ".join(members) + (" joint" if configuration.joint else "")
    if entry[0] != COMMAND:
        return "noop", ""
    header, body = decode_command(entry)
    try:
        command = command_decoder.decode(body)
    except UNREADABLE as error:
        raise InvariantError(f"an entry of the log can't be read: {error}") from error
    fields = [
        f"{name}={_shown(name, getattr(command, name))}"
        for name in command.__struct_fields__
        if name not in _SECRET and getattr(command, name) not in (None, "", (), {})
    ]
    who = [f"client={header.client}#{header.number}"] if header.client else []
    return type(command).__name__, " ".join(who + fields)


def _shown(name: str, value: object) -> str:
    text = f"<{len(value)} bytes>" if name in _CONTENT and isinstance(value, bytes) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
