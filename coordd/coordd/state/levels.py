"""The active feature level, in the state: raised by a command, never lowered (raft.md rule 95)."""

from coordd.errors import UnsupportedError
from coordd.messages import levels
from coordd.messages.command import Done, RaiseFeatureLevel
from coordd.state.rows import Rows

__all__ = ["raise_level", "require_supported"]


def raise_level(rows: Rows, command: RaiseFeatureLevel) -> Done:
    """Nothing under another term than the proposer's, and nothing that is no rise. Raises: UnsupportedError."""
    if command.term != rows.term or command.level <= rows.feature_level:
        return Done(rows.index, ok=False)
    require_supported(f"entry {rows.index} of the log", command.level)
    rows.feature_level = command.level
    return Done(rows.index)


def require_supported(what: str, level: int) -> None:
    """Raises: UnsupportedError if this version can't know what is at this level."""
    if level > levels.SUPPORTED:
        raise UnsupportedError(
            f"{what} is of feature level {level}, this version of coordd supports level {levels.SUPPORTED}:"
            " install the version that the other servers run"
        )
