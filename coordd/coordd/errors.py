"""The one tree of errors. Each says what its reader can do; anything outside this tree is a bug.

CoorddError
├── ConfigError            a setting or a configuration file is wrong            (daemon exit 2)
├── StorageError           the data folder can't be used                         (daemon exit 3)
│   ├── DamagedError       what is on disk is not what was promised
│   └── DiskFullError      no space: writes are refused until there is some
├── UnsupportedError       log or state need a newer version of coordd          (daemon exit 5)
├── InUseError             address or data folder belongs to another process     (daemon exit 4)
├── TransportError         a message can't be read or a socket can't be used
├── RequestError           what a client gets as an answer; `code` travels on the wire
│   ├── NotLeaderError     certainly no effect; try the server named in the hint
│   ├── NoLeaderError      certainly no effect; the cluster has no leader now
│   ├── BusyError          certainly no effect; try again after a pause
│   ├── DeniedError        the token does not allow it
│   ├── NotFoundError      the named thing does not exist
│   ├── InvalidError       the request itself is wrong and will stay so
│   ├── ConflictError      a precondition (compare-and-set, fence, session) did not hold; no effect
│   ├── TimedOutError      certainly no effect; the deadline passed before anything was proposed
│   ├── OutcomeUnknownError   it may or may not have taken effect (rule 44)
│   ├── UnknownClientError    the numbered-write registration has expired (rule 92)
│   └── LockLostError      the lock is no longer held, or may soon not be
└── InvariantError         the program contradicts itself: stop, never go on
"""

from typing import ClassVar

__all__ = [
    "BusyError",
    "ConfigError",
    "ConflictError",
    "CoorddError",
    "DamagedError",
    "DeniedError",
    "DiskFullError",
    "InUseError",
    "InvalidError",
    "InvariantError",
    "LockLostError",
    "NoLeaderError",
    "NotFoundError",
    "NotLeaderError",
    "OutcomeUnknownError",
    "RequestError",
    "StorageError",
    "TimedOutError",
    "TransportError",
    "UnknownClientError",
    "UnsupportedError",
    "invariant",
    "request_error",
]


class CoorddError(Exception):
    """Root of every error that coordd raises on purpose."""


class ConfigError(CoorddError):
    """A setting is wrong; the text names file, key and the allowed values."""


class StorageError(CoorddError):
    """The data folder can't be used; the text names the path."""


class DamagedError(StorageError):
    """Data on disk is not what was promised. Files are left untouched as evidence."""


class DiskFullError(StorageError):
    """No space left. The transaction was rolled back; writes work again once there is space."""


class UnsupportedError(CoorddError):
    """Log or state were written at a feature level, or in a form, that this version does not know. Nothing was changed."""


class InUseError(CoorddError):
    """An address or a data folder belongs to another process."""


class TransportError(CoorddError):
    """A message can't be read, or a socket can't be used."""


class RequestError(CoorddError):
    """An answer that is an error. `code` is the word on the wire and never changes its meaning."""

    code: ClassVar[str] = "error"

    def __init__(self, text: str = "", hint: str = "") -> None:
        super().__init__(text or self.code)
        self.text = text or self.code
        self.hint = hint
        """NotLeaderError: client address of the server believed to lead, or ""."""


class NotLeaderError(RequestError):
    """This server does not lead: the request certainly had no effect."""

    code = "not-leader"


class NoLeaderError(RequestError):
    """No server leads at the moment: the request certainly had no effect."""

    code = "no-leader"


class BusyError(RequestError):
    """A limit is reached: the request certainly had no effect; try again after a pause."""

    code = "busy"


class DeniedError(RequestError):
    """The token does not allow this request."""

    code = "denied"


class NotFoundError(RequestError):
    """The thing that the request names does not exist."""

    code = "not-found"


class InvalidError(RequestError):
    """The request itself is wrong; trying again will not help."""

    code = "invalid"


class ConflictError(RequestError):
    """A precondition did not hold (fence, session, name in use): nothing was changed."""

    code = "conflict"


class TimedOutError(RequestError):
    """The deadline passed before anything was proposed: the request certainly had no effect."""

    code = "timed-out"


class OutcomeUnknownError(RequestError):
    """The request may or may not have taken effect; read the state before trying again."""

    code = "outcome-unknown"


class UnknownClientError(RequestError):
    """The registration that numbers this client's writes has expired; outcomes of open writes are unknown."""

    code = "unknown-client"


class LockLostError(RequestError):
    """The lock is no longer held, or its session could run out before the next renewal."""

    code = "lock-lost"


_BY_CODE: dict[str, type[RequestError]] = {cls.code: cls for cls in RequestError.__subclasses__()}


def request_error(code: str, text: str, hint: str = "") -> RequestError:
    """Rebuild the error that a server sent. An unknown code (of a newer server) stays a plain RequestError."""
    return _BY_CODE.get(code, RequestError)(text, hint)


class InvariantError(CoorddError):
    """The program contradicts itself. Going on could spread the damage: the process must end."""


def invariant(condition: bool, text: str, **facts: object) -> None:
    """Stop if a condition that must hold does not. Unlike `assert` it is never compiled away.

    Raises: InvariantError with the facts in its text.
    """
    if not condition:
        shown = ", ".join(f"{key}={value!r}" for key, value in facts.items())
        raise InvariantError(f"{text} ({shown})" if shown else text)
