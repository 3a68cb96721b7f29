"""The client for programs with threads. One thread owns the sockets and the core; callers hand over and wait.

Any number of threads may use one `Client`. A process that wants many requests under way without a thread for each uses
`start`, which gives a future, or `AsyncClient`.
"""

import logging
import os
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from coordd.client import settings
from coordd.client.asks import Ask
from coordd.client.calls import Call
from coordd.client.core import PATIENCE_SECONDS, ClientCore
from coordd.client.links import Links
from coordd.client.lock import Lock
from coordd.client.locks import LockSettings, Steps
from coordd.client.requests import BlockingRequests
from coordd.client.subscriptions import Subscription
from coordd.errors import CoorddError, RequestError, TransportError
from coordd.messages.client import View
from coordd.messages.query import Query
from coordd.transport.clients import Poller, Wakeup, close_context, open_context
from coordd.transport.security import generate

__all__ = ["Client", "Subscribed"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """What stands behind a call: the future that somebody waits for, and how its result is read."""

    future: "Future[Any]"
    ask: Ask[Any]


class Subscribed:
    """A query kept in view; see `Client.subscribe`."""

    def __init__(self, client: "Client", callback: Callable[[View | RequestError], None]) -> None:
        self._client = client
        self.callback = callback
        self.state: Subscription | None = None
        self.ended = False

    def end(self) -> None:
        """No callback begins after this returns, but one may still be running."""
        self.ended = True
        self._client._hand_over(self._end)

    def taken(self, now: float) -> None:
        """For the client's own thread: one view was consumed."""
        if self.state is not None:
            self._client._core.taken(self.state, now)

    def _end(self, now: float) -> None:
        if self.state is not None:
            self._client._core.unsubscribe(self.state, now)


class Client(BlockingRequests):
    """Connects by itself, in the background, and keeps on trying; each call has its deadline.

    `servers`: (address, public key) of any of the cluster's servers, or `agent`: `ipc:///path` of this host's agent.
    Raises: ConfigError if they are wrong.
    """

    def __init__(
        self,
        servers: Iterable[tuple[str, str]] = (),
        *,
        agent: str = "",
        token: str = "",
        timeout: float = 10.0,
        name: str = "",
    ) -> None:
        self.timeout = timeout
        self._core = ClientCore(
            settings.seeds(servers, agent), settings.clock(), rng=random.SystemRandom(), token=token, name=name
        )
        self._context = open_context()
        self._poller = Poller()
        self._links = Links(self._core, self._context, generate(), self._poller.register, self._poller.unregister)
        self._wakeup = Wakeup()
        self._poller.register(self._wakeup)
        self._inbox: deque[Callable[[float], None]] = deque()
        self._views: queue.SimpleQueue[tuple[Subscribed, View | RequestError] | None] = queue.SimpleQueue()
        self._views_thread: threading.Thread | None = None
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="coordd-client", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, *, timeout: float = 10.0) -> "Client":
        """Reads COORD_AGENT (`ipc:///path`) or COORD_SERVERS (`host:port@KEY,…`), and COORD_TOKEN."""
        servers, agent, token = settings.from_environment(environ)
        return cls(servers, agent=agent, token=token, timeout=timeout)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections. Calls still under way end with TransportError."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._wakeup.wake()
        self._thread.join()
        if self._views_thread is not None:
            self._views.put(None)
            if self._views_thread is not threading.current_thread():
                self._views_thread.join()

    def start(self, ask: Ask[T]) -> "Future[T]":
        """Begin a request. The future ends by the request's deadline; cancelling it gives up waiting, not the
        effect."""
        future: Future[T] = Future()

        def begin(now: float) -> None:
            timeout = (self.timeout if ask.timeout is None else ask.timeout) + ask.wait
            waiting = _Waiting(future, ask)
            try:
                call = self._core.submit(
                    ask.body,
                    now,
                    timeout=timeout,
                    patience=PATIENCE_SECONDS + ask.wait,
                    numbered=ask.numbered,
                    token=ask.token,
                    server=ask.server,
                    context=waiting,
                )
            except RequestError as error:
                future.set_exception(error)
            else:
                future.add_done_callback(lambda done: self._given_up(call) if done.cancelled() else None)

        self._hand_over(begin)
        return future

    def ask(self, ask: Ask[T]) -> T:
        """Raises: a RequestError, or TransportError if the client was closed or the answer makes no sense."""
        future = self.start(ask)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def follow(self, steps: Steps[T]) -> T:
        """Run a procedure of `locks`."""
        try:
            ask = next(steps)
            while True:
                try:
                    result = self.ask(ask)
                except CoorddError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def subscribe(
        self, query: Query, callback: Callable[[View | RequestError], None], *, token: str | None = None
    ) -> Subscribed:
        """Call `callback` with the query's present result and then with each change, on a thread of its own for all.

        After a lost connection it begins anew with a whole view. An error in place of a view is the end.
        """
        subscribed = Subscribed(self, callback)
        with self._lock:
            if self._views_thread is None:
                self._views_thread = threading.Thread(target=self._show, name="coordd-views", daemon=True)
                self._views_thread.start()

        def begin(now: float) -> None:
            try:
                subscribed.state = self._core.subscribe(query, now, token=token, context=subscribed)
            except RequestError as error:
                self._views.put((subscribed, error))

        self._hand_over(begin)
        return subscribed

    def lock(
        self,
        name: str,
        *,
        ttl: float = 15.0,
        wait: float | None = None,
        lock_delay: float = 0.0,
        node: str = "",
        on_lost: Callable[[], None] | None = None,
    ) -> Lock:
        """A lock to be held in a `with` block. `wait`: seconds, None: for ever. See `Lock`."""
        return Lock(self, LockSettings(name, ttl, wait, lock_delay, node), on_lost)

    # --- between threads ---------------------------------------------------------------------------------------------

    def _hand_over(self, work: Callable[[float], None]) -> None:
        with self._lock:
            if self._closing:
                raise TransportError("this client was closed")
            self._inbox.append(work)
            self._wakeup.wake()

    def _given_up(self, call: Call) -> None:
        with suppress(TransportError):
            self._hand_over(lambda now: self._core.cancel(call))

    def _run(self) -> None:
        failure = TransportError("this client was closed")
        try:
            while not self._closing:
                self._turn()
        except Exception as error:
            failure = TransportError(f"this client has failed: {error!r}")
            with self._lock:
                self._closing = True
            raise
        finally:
            self._shut_down(failure)

    def _shut_down(self, failure: TransportError) -> None:
        """Nothing is handed over any more: what still lies there is taken in, so that it ends like the rest."""
        while self._inbox:
            self._inbox.popleft()(settings.clock())
        for call in self._core.abandon():
            _end(call, failure)
        self._links.close()
        close_context(self._context)
        with self._lock:
            self._wakeup.close()

    def _turn(self) -> None:
        self._wakeup.clear()
        now = settings.clock()
        while self._inbox:
            self._inbox.popleft()(now)
        more = self._links.turn(now)
        self._deliver()
        if more:
            self._poller.poll(0)
            return
        deadline = self._links.next_deadline
        self._poller.poll(None if deadline is None else deadline - settings.clock())

    def _deliver(self) -> None:
        for call, result in self._core.take_completed():
            _end(call, result)
        for subscription, view in self._core.take_views():
            subscribed = subscription.context
            if isinstance(subscribed, Subscribed):
                self._views.put((subscribed, view))

    def _show(self) -> None:
        while (item := self._views.get()) is not None:
            subscribed, view = item
            if subscribed.ended:
                continue
            try:
                subscribed.callback(view)
            except Exception:
                # One subscriber's mistake must not end the views of the others, nor its own next ones.
                _log.exception("the callback of a subscription has failed")
            with suppress(TransportError):
                self._hand_over(subscribed.taken)


def _end(call: Call, result: object) -> None:
    """Give the result to whoever waits, unless he has given up."""
    waiting = call.context
    if not isinstance(waiting, _Waiting) or not waiting.future.set_running_or_notify_cancel():
        return
    if isinstance(result, CoorddError):
        waiting.future.set_exception(result)
        return
    try:
        waiting.future.set_result(waiting.ask.result(result))  # type: ignore[arg-type]
    except CoorddError as error:
        waiting.future.set_exception(error)
