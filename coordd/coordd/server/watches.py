"""What sleeps until its data change: blocking reads and subscriptions, found by topic.

A watch is woken when one of its query's topics changes (or all of them, after the state was replaced or an ACL changed);
what it then says is evaluated anew, never derived from the change. A blocking read is answered once. A subscription gets
the whole present result each time, with the index of the one before, as long as it has credit; changes without credit are
folded into the next view. So what waits for a slow reader is one flag, not a queue.

Bounded: at most `limit` watches; subscriptions end when their client is silent for `idle` seconds.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coordd.errors import BusyError
from coordd.messages.client import Read, Subscribe
from coordd.messages.query import Query
from coordd.server.waiting import Waiter
from coordd.state.topics import KV, KV_PREFIX, Topic
from coordd.types import Index

__all__ = ["BlockedRead", "Subscription", "Watches"]

_MOST_CREDIT = 64
"""Views on their way to one subscription."""


@dataclass(slots=True, eq=False)
class BlockedRead:
    """A read that waits for its topics to pass `read.index`, or for `until`."""

    waiter: Waiter
    token: str
    read: Read
    topics: tuple[Topic, ...]
    until: float
    """Monotonic seconds at which the present state is the answer."""


@dataclass(slots=True, eq=False)
class Subscription:
    """A standing query of one connection."""

    waiter: Waiter
    token: str
    request: Subscribe
    topics: tuple[Topic, ...]
    credit: int
    sent: Index = 0
    """Index of the last view; 0: none yet."""
    dirty: bool = True
    """A view is due as soon as there is credit."""


Watch = BlockedRead | Subscription


@dataclass(slots=True)
class _Client:
    heard: float
    subscriptions: dict[int, Subscription] = field(default_factory=dict)


class Watches:
    """Mutable; one per server."""

    def __init__(self, limit: int, idle: float, topics_of: Callable[[Query], tuple[Topic, ...]]) -> None:
        self._limit = limit
        self._idle = idle
        self._topics_of = topics_of
        self._by_topic: dict[Topic, dict[Watch, None]] = {}
        """In the order of arrival: who watches is woken fairly, and the same way each time."""
        self._prefix_lengths: dict[int, int] = {}
        """Length of each watched key prefix → number of watches, to find prefixes without trying all lengths."""
        self._blocked: dict[BlockedRead, None] = {}
        self._clients: dict[bytes, _Client] = {}
        self._count = 0
        self.due: dict[Watch, None] = {}
        """Watches to be evaluated, in the order in which they were woken."""

    def __len__(self) -> int:
        return self._count

    # --- coming and going ---------------------------------------------------------------------------------------------

    def block(self, waiter: Waiter, token: str, read: Read, until: float) -> None:
        """Raises: BusyError."""
        blocked = BlockedRead(waiter, token, read, self._topics_of(read.query), until)
        self._add(blocked)
        self._blocked[blocked] = None

    def subscribe(self, waiter: Waiter, token: str, request: Subscribe, now: float) -> None:
        """Begin, or begin anew under the same number. Raises: BusyError."""
        client = self._clients.setdefault(waiter.connection, _Client(now))
        client.heard = now
        old = client.subscriptions.pop(request.subscription, None)
        if old is not None:
            self._remove(old)
        credit = max(0, min(request.credit, _MOST_CREDIT))
        subscription = Subscription(waiter, token, request, self._topics_of(request.query), credit)
        self._add(subscription)
        client.subscriptions[request.subscription] = subscription
        self.due[subscription] = None

    def unsubscribe(self, connection: bytes, number: int) -> None:
        client = self._clients.get(connection)
        subscription = client.subscriptions.pop(number, None) if client else None
        if subscription is not None:
            self._remove(subscription)

    def credit(self, connection: bytes, number: int, credit: int, now: float) -> None:
        client = self._clients.get(connection)
        subscription = client.subscriptions.get(number) if client else None
        if client is None or subscription is None:
            return
        client.heard = now
        subscription.credit = min(subscription.credit + max(0, credit), _MOST_CREDIT)
        if subscription.dirty:
            self.due[subscription] = None

    def heard(self, connection: bytes, now: float) -> bool:
        """The client lives, and what could not be sent to it is due again. False: it has no subscriptions here."""
        client = self._clients.get(connection)
        if client is None:
            return False
        client.heard = now
        for subscription in client.subscriptions.values():
            if subscription.dirty and subscription.credit > 0:
                self.due[subscription] = None
        return bool(client.subscriptions)

    def end(self, watch: Watch) -> None:
        """Answered, or not worth keeping."""
        if isinstance(watch, Subscription):
            self.unsubscribe(watch.waiter.connection, watch.request.subscription)
        else:
            self._blocked.pop(watch, None)
            self._remove(watch)

    def forget(self, connection: bytes) -> None:
        """The client has been silent for too long. If it lives after all, its next keepalive tells it."""
        client = self._clients.pop(connection, None)
        for subscription in client.subscriptions.values() if client else ():
            self._remove(subscription)

    def _add(self, watch: Watch) -> None:
        if self._count >= self._limit:
            raise BusyError("too many blocking reads and subscriptions: try again")
        self._count += 1
        for topic in watch.topics:
            self._by_topic.setdefault(topic, {})[watch] = None
            if topic[0] == KV_PREFIX:
                length = len(topic[1])
                self._prefix_lengths[length] = self._prefix_lengths.get(length, 0) + 1

    def _remove(self, watch: Watch) -> None:
        self._count -= 1
        self.due.pop(watch, None)
        for topic in watch.topics:
            watches = self._by_topic[topic]
            watches.pop(watch, None)
            if not watches:
                del self._by_topic[topic]
            if topic[0] == KV_PREFIX:
                self._prefix_lengths[len(topic[1])] -= 1
                if not self._prefix_lengths[len(topic[1])]:
                    del self._prefix_lengths[len(topic[1])]

    # --- waking -------------------------------------------------------------------------------------------------------

    def changed(self, topics: Iterable[Topic]) -> None:
        """These topics changed: wake who watches them. An ACL change re-judges everyone."""
        if not self._count:
            return
        for topic in topics:
            if topic[0] == "acl":
                self.wake_all()
                return
            for watched in self._watched(topic):
                for watch in self._by_topic.get(watched, ()):
                    self._wake(watch)

    def _watched(self, topic: Topic) -> Iterator[Topic]:
        yield topic
        if topic[0] == KV:
            for length in self._prefix_lengths:
                if length <= len(topic[1]):
                    yield (KV_PREFIX, topic[1][:length])

    def wake_all(self) -> None:
        for watches in list(self._by_topic.values()):
            for watch in watches:
                self._wake(watch)

    def wake_blocked(self) -> None:
        """This server no longer leads: blocking reads are judged again, and many are sent to its successor."""
        for blocked in self._blocked:
            self.due[blocked] = None

    def _wake(self, watch: Watch) -> None:
        if isinstance(watch, Subscription):
            watch.dirty = True
            if watch.credit <= 0:
                return
        self.due[watch] = None

    def tick(self, now: float) -> None:
        """Blocking reads whose wait is over become due; clients that have been silent lose their subscriptions."""
        for blocked in self._blocked:
            if blocked.until <= now:
                self.due[blocked] = None
        for connection in [c for c, client in self._clients.items() if now - client.heard > self._idle]:
            self.forget(connection)

    def take_due(self, limit: int) -> list[Watch]:
        """The next watches to evaluate, in the order in which they were woken."""
        if not self.due:
            return []
        taken = list(self.due)[:limit]
        for watch in taken:
            del self.due[watch]
        return taken
