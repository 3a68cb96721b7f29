"""One call: what is asked, until when, how it may be repeated, and which of its attempts are still open."""

import enum
from dataclasses import dataclass, field

from coordd.errors import RequestError
from coordd.messages.client import (
    AgentBeat,
    Body,
    InfoRequest,
    Keepalive,
    LogRequest,
    Read,
    RenewSession,
    ServersRequest,
    Write,
)

__all__ = ["Call", "Policy", "any_server_will_do", "policy_of"]


class Policy(enum.Enum):
    """How a request may be sent again when its answer is lost."""

    REPEAT = "repeat"
    """Freely: it changes nothing, or doing it twice is the same as once."""
    NUMBER = "number"
    """Under the same number, which the core gives it."""
    NUMBERED = "numbered"
    """Unchanged: it carries the number of another client, for whom it is passed on."""
    ONCE = "once"
    """Never once a server may have taken it: twice is not the same as once."""

    @property
    def has_effect(self) -> bool:
        """Whether a lost answer leaves the caller in doubt."""
        return self is not Policy.REPEAT


def policy_of(body: Body) -> Policy:
    """How a request may be repeated as it stands."""
    match body:
        case Write(client=0):
            return Policy.ONCE
        case Write():
            return Policy.NUMBERED
        case Read() | RenewSession() | Keepalive() | AgentBeat() | ServersRequest() | InfoRequest() | LogRequest():
            return Policy.REPEAT
        case _:
            return Policy.ONCE


def any_server_will_do(body: Body) -> bool:
    """Whether a server that does not lead can answer it. What else, it answers with not-leader."""
    match body:
        case Read(consistency="stale"):
            return True
        case AgentBeat() | ServersRequest() | InfoRequest() | LogRequest():
            return True
        case _:
            return False


@dataclass(eq=False, slots=True)
class Call:
    """State of one call. Changed by the core alone; `context` belongs to the shell."""

    body: Body
    policy: Policy
    token: str
    deadline: float
    patience: float
    """Seconds that an attempt may stay unanswered before another server is tried; doubles each time."""
    server: str = ""
    """The only server to ask, or ""."""
    context: object = None
    client: int = 0
    number: int = 0
    attempts: dict[int, str] = field(default_factory=dict)
    """Open ones: request id → server's address. A late answer to an old attempt is as good as any."""
    tries: int = 0
    doubtful: bool = False
    """An attempt was lost that a server may have taken."""
    refusals: int = 0
    refusal: RequestError | None = None
    """The last answer that said: certainly no effect, try on."""
    followed: set[str] = field(default_factory=set)
    """Servers that were named as leader and asked at once."""
    avoid: str = ""
    """The server that failed last."""
    waiting: bool = False
    """A retry is planned, or it waits for a connection: not to be planned twice."""
    finished: bool = False

    @property
    def may_have_taken_effect(self) -> bool:
        return self.policy.has_effect and (self.doubtful or bool(self.attempts))
