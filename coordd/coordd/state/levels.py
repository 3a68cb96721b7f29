"""The active feature level, in the state: raised by a command, never lowered (rule 95); and what this version can't read."""

from coordd.errors import UnsupportedError
from coordd.messages import levels
from coordd.messages.command import Done, RaiseFeatureLevel
from coordd.state.rows import Rows
from coordd.state.schema import SCHEMA_VERSION

__all__ = ["raise_level", "require_format", "require_supported"]


def raise_level(rows: Rows, command: RaiseFeatureLevel) -> Done:
    """Nothing under another term than the proposer's, and nothing that is no rise. Raises: UnsupportedError."""
    if command.term != rows.term or command.level <= rows.feature_level:
        return Done(rows.index, ok=False)
    require_supported(f"entry {rows.index} of the log", command.level)
    rows.feature_level = command.level
    return Done(rows.index)


def require_format(path: str, version: int) -> None:
    """Raises: UnsupportedError if this version does not read state files of this format."""
    if version != SCHEMA_VERSION:
        raise UnsupportedError(f"{path} has state format {version}; this version of coordd reads {SCHEMA_VERSION}")


def require_supported(what: str, level: int) -> None:
    """Raises: UnsupportedError if this version can't know what is at this level."""
    if level > levels.SUPPORTED:
        raise UnsupportedError(
            f"{what} is of feature level {level}, this version of coordd supports level {levels.SUPPORTED}:"
            " install the version that the other servers run"
        )
