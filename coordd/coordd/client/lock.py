"""A lock for programs with threads: `with client.lock("name") as lock:`; see `locks` for what it promises."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from coordd.client import asks, locks
from coordd.client.asks import Ask
from coordd.client.locks import Hold, LockSettings, Steps
from coordd.client.settings import clock
from coordd.errors import CoorddError, InvalidError, LockLostError, NotFoundError
from coordd.types import Index

__all__ = ["Lock"]

T = TypeVar("T")

_RETRY_SECONDS = 0.2
_LONGEST_NAP_SECONDS = 1.0
"""A thread's sleep does not count the time that the host was suspended; the guard does."""


class _Asker(Protocol):
    def ask(self, ask: Ask[T]) -> T: ...

    def follow(self, steps: Steps[T]) -> T: ...


class Lock:
    """Taken at the beginning of a `with` block and given back at its end.

    `lost` is set, and `on_lost` called on a thread of its own, before anybody else can have the lock. Long work calls
    `check()` between its steps, and passes `token` to whatever it writes to, as a fence. The block ends with
    LockLostError if the lock was lost in it. That giving back failed is no error there: the session's TTL gives it
    back.
    """

    def __init__(self, client: _Asker, settings: LockSettings, on_lost: Callable[[], None] | None = None) -> None:
        self.lost = threading.Event()
        self._client = client
        self._settings = settings
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._hold: Hold | None = None
        self._renewals: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def token(self) -> Index:
        """Fencing token of the grant; 0 while not held."""
        return self._hold.token if self._hold is not None else 0

    @property
    def session(self) -> str:
        return self._hold.session if self._hold is not None else ""

    @property
    def left(self) -> float:
        """Seconds for which the lock is surely held, if no renewal came any more."""
        return self._hold.guard.left if self._hold is not None and self._hold.token else 0.0

    def check(self) -> None:
        """Raises: LockLostError unless the lock is surely held now."""
        if self._hold is None:
            raise LockLostError(f"lock {self.name!r} was not taken")
        self._hold.check()

    def acquire(self) -> None:
        """Raises: ConflictError (not free, and not to wait), TimedOutError (waited in vain), or what the cluster
        says."""
        if self._hold is not None:
            raise InvalidError(f"lock {self.name!r}: one Lock is taken once; make another")
        hold = self._hold = locks.new_hold(self._settings, clock)
        self._client.follow(locks.create(hold, clock))
        self._renewals = threading.Thread(target=self._renew, args=(hold,), name=f"lock-{self.name}", daemon=True)
        self._renewals.start()
        try:
            self._client.follow(locks.acquire(hold, clock))
        except BaseException:
            self._end_renewals()
            with suppress(CoorddError):
                self._client.follow(locks.give_up(hold))
            raise

    def release(self) -> None:
        """Give it back. Raises: what the cluster says; then the TTL gives it back."""
        if self._hold is not None:
            self._end_renewals()
            self._client.follow(locks.release(self._hold))

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        lost = self._hold is None or self._hold.guard.lost
        with suppress(CoorddError):
            self.release()
        if lost and kind is None:
            raise LockLostError(f"lock {self.name!r} was lost before the work was done")

    def _end_renewals(self) -> None:
        self._stop.set()
        if self._renewals is not None and self._renewals is not threading.current_thread():
            self._renewals.join()

    def _renew(self, hold: Hold) -> None:
        guard = hold.guard
        while not guard.lost:
            if self._stop.wait(min(guard.until_renewal, guard.left, _LONGEST_NAP_SECONDS)):
                return
            if guard.until_renewal > 0:
                continue
            sent_at = clock()
            try:
                self._client.ask(asks.renew_session(hold.session, timeout=guard.left))
            except NotFoundError:
                guard.lose()
            except CoorddError:
                if self._stop.wait(min(_RETRY_SECONDS, guard.left)):
                    return
            else:
                guard.renewed(sent_at)
        self.lost.set()
        if self._on_lost is not None:
            self._on_lost()
