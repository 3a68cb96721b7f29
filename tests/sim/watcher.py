"""A client that keeps a prefix in view by a subscription, and checks what it is shown (invariant 15).

Views of one subscription come in order, each naming the one before; a gap is answered by subscribing anew, never by a
guess. What a view shows is the state at its very index, each value written once. In the end the view is the state.
"""

from collections.abc import Callable

from coordd.messages.client import PROTOCOL_VERSION, Body, Credit, Error, Keepalive, Ok, Request, Subscribe, View
from coordd.messages.query import KvList, KvPair, KvPairs
from coordd.types import Index
from tests.sim.history import History
from tests.sim.oracle import shown
from tests.sim.server import Answered, Asked
from tests.sim.surroundings import Surroundings
from tests.sim.violation import Violation

__all__ = ["Watcher"]

KEEPALIVE = 0.7
"""Seconds between two signs of life; without an answer to one the server is taken for gone."""


class Watcher:
    """One subscription at a time, on one server at a time."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        servers: Callable[[], list[str]],
        life_of: Callable[[str], int],
        history: History,
    ) -> None:
        """`life_of` a server: another one means that the connection has ended, which a socket notices."""
        self.around = around
        self.name = name
        self.server = ""
        self.shown: tuple[KvPair, ...] = ()
        """The newest view's keys."""
        self.index: Index = 0
        """And its index; 0 before the first of this subscription."""
        self._servers = servers
        self._life_of = life_of
        self._life = 0
        self._history = history
        self._chance = around.chance.branch(name)
        self._leisure = self._chance.choice([0.0, 0.05, 0.5])
        """At most so many seconds until a view is dealt with."""
        self._subscription = 0
        self._requests = 0
        self._subscribed = 0
        """Number of the request that views answer."""
        self._heard = True

    def begin(self) -> None:
        self._subscribe()
        self._keep_alive()

    def finish(self, servers: list[str]) -> None:
        self._servers = lambda: servers
        if self.server not in servers:
            self._subscribe()

    def _send(self, body: Body) -> int:
        self._requests += 1
        request = Request(PROTOCOL_VERSION, self._requests, "", 60_000, body)
        self.around.network.send(self.name, self.server, Asked(self.name, request), surely=True)
        return self._requests

    def _subscribe(self) -> None:
        self.server = self._chance.choice(self._servers())
        self._life = self._life_of(self.server)
        self._subscription += 1
        self.index = 0
        self.around.counts["subscriptions"] += 1
        self._subscribed = self._send(Subscribe(self._subscription, KvList("k"), self._chance.choice([1, 2, 8])))

    def _keep_alive(self) -> None:
        if not self._heard or self._life != self._life_of(self.server):
            self._subscribe()
        self._heard = False
        self._send(Keepalive())
        self.around.schedule.after(KEEPALIVE, self._keep_alive)

    def deliver(self, reply: Answered) -> None:
        match reply.body:
            case View() if reply.request == self._subscribed:
                self._viewed(reply.body)
            case Error() if reply.request == self._subscribed:
                self.around.schedule.after(0.05, self._subscribe)
            case Ok():
                self._heard = True

    def _viewed(self, view: View) -> None:
        if view.previous != self.index:
            if view.index > self.index:  # one was lost on the way; an older one was merely overtaken
                self.around.counts["views missed"] += 1
                self._subscribe()
            return
        if view.index <= self.index:
            raise Violation(15, "a view that is not newer", index=view.index, previous=self.index)
        assert isinstance(view.value, KvPairs)
        for pair in view.value.pairs:
            if pair.modify_index > view.index:
                raise Violation(15, "a view shows what is newer than itself", key=pair.key, index=view.index)
            self._history.saw(pair.key, pair.value, pair.modify_index)
        self.around.oracle.saw(("tree", "k"), shown(view.value), view.index, view.index)
        self.around.counts["views"] += 1
        self.shown, self.index = view.value.pairs, view.index
        self.around.schedule.after(self._chance.random() * self._leisure, self._allow_more, self._subscription)

    def _allow_more(self, subscription: int) -> None:
        if subscription == self._subscription:
            self._send(Credit(subscription))
