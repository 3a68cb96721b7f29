"""Who waits for an answer, and the way an answer takes back to them."""

from typing import NamedTuple, Protocol

from coordd.errors import RequestError
from coordd.messages.client import Error, ReplyBody

__all__ = ["Answers", "Waiter", "error_body"]


class Waiter(NamedTuple):
    """One request of one client."""

    connection: bytes
    request: int
    deadline: float
    """Monotonic seconds; after it nobody listens any more."""


class Answers(Protocol):
    """Where answers go: the client socket, or a list in a test."""

    def answer(self, waiter: Waiter, body: ReplyBody) -> bool:
        """False: the client is gone or reads too slowly, and the answer was dropped."""
        ...


def error_body(error: RequestError) -> Error:
    return Error(error.code, error.text, error.hint)
