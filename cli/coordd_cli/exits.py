"""Exit codes, as scripts see them, and the error each belongs to."""

from enum import IntEnum

from coordd.errors import (
    ConfigError,
    CoorddError,
    DeniedError,
    LockLostError,
    NoLeaderError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    TimedOutError,
    UnknownClientError,
)

__all__ = ["ExitCode", "exit_code"]


class ExitCode(IntEnum):
    """What a script may rely on."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    NO_LEADER = 5
    LOCK_LOST = 6
    OUTCOME_UNKNOWN = 7
    TIMED_OUT = 124


_BY_ERROR: dict[type[CoorddError], ExitCode] = {
    ConfigError: ExitCode.USAGE,
    NotFoundError: ExitCode.NOT_FOUND,
    DeniedError: ExitCode.DENIED,
    NoLeaderError: ExitCode.NO_LEADER,
    NotLeaderError: ExitCode.NO_LEADER,
    LockLostError: ExitCode.LOCK_LOST,
    OutcomeUnknownError: ExitCode.OUTCOME_UNKNOWN,
    UnknownClientError: ExitCode.OUTCOME_UNKNOWN,
    TimedOutError: ExitCode.TIMED_OUT,
}


def exit_code(error: CoorddError) -> ExitCode:
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), ExitCode.ERROR)
