"""Queries kept in view: where each subscription lives, and whether it has missed something. Pure.

A subscription lives on one connection. When that is lost, or a view does not follow on the one before, it is made anew
under a fresh request id; views under the old id are ignored from then on, so that what comes is always a whole view
followed by its successors, never a guess.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coordd.messages.client import View
from coordd.messages.query import Query
from coordd.types import Index

__all__ = ["CREDIT", "Subscription", "Subscriptions"]

CREDIT = 8
"""Views that may be on their way or unread. Half of them are given back at a time."""


@dataclass(eq=False, slots=True)
class Subscription:
    """State of one subscription. Changed by the core alone; `context` belongs to the shell."""

    number: int
    query: Query
    token: str
    context: object = None
    server: str = ""
    """Where it lives; "" while it waits for a connection or for a pause to end."""
    request: int = 0
    index: Index = 0
    """Index of the last view; 0: the next one is the first."""
    taken: int = 0
    """Views that were consumed since credit was last given back."""
    refusals: int = 0
    retry_at: float = 0.0
    ended: bool = False


class Subscriptions:
    def __init__(self, next_request: Callable[[], int]) -> None:
        self._next_request = next_request
        self._by_number: dict[int, Subscription] = {}
        self._by_request: dict[int, Subscription] = {}
        self._last = 0
        self.unplaced: dict[int, Subscription] = {}
        """Those that wait for a server or for a pause to end."""

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, query: Query, token: str) -> Subscription:
        self._last += 1
        subscription = Subscription(self._last, query, token)
        self._by_number[self._last] = self.unplaced[self._last] = subscription
        return subscription

    def end(self, subscription: Subscription) -> None:
        subscription.ended = True
        self._by_number.pop(subscription.number, None)
        self.unplaced.pop(subscription.number, None)
        self._by_request.pop(subscription.request, None)

    def place(self, subscription: Subscription, server: str) -> int:
        """It is asked for at `server` now, under the request id given back."""
        self._by_request.pop(subscription.request, None)
        self.unplaced.pop(subscription.number, None)
        subscription.server, subscription.request = server, self._next_request()
        subscription.index = subscription.taken = 0
        self._by_request[subscription.request] = subscription
        return subscription.request

    def unplace(self, subscription: Subscription, retry_at: float = 0.0) -> None:
        self._by_request.pop(subscription.request, None)
        subscription.server, subscription.request, subscription.retry_at = "", 0, retry_at
        self.unplaced[subscription.number] = subscription

    def of_request(self, request: int) -> Subscription | None:
        return self._by_request.get(request)

    def at(self, server: str) -> list[Subscription]:
        """Those that live there."""
        return [each for each in self._by_number.values() if each.server == server]

    def placed(self) -> list[Subscription]:
        return [each for each in self._by_number.values() if each.server]

    def follows(self, subscription: Subscription, view: View) -> bool:
        """Whether the view is the successor of the last one; then it is the last one."""
        if view.subscription != subscription.number or view.previous != subscription.index:
            return False
        subscription.index, subscription.refusals = view.index, 0
        return True

    def credit_due(self, subscription: Subscription) -> int:
        """One more view was consumed. Gives the credit to send back now, or 0."""
        subscription.taken += 1
        if subscription.ended or not subscription.server or subscription.taken < CREDIT // 2:
            return 0
        credit, subscription.taken = subscription.taken, 0
        return credit
