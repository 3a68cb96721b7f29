"""A lock for asyncio: `async with client.lock("name") as lock:`; see `locks` for what it promises."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from coordd.client import asks, locks
from coordd.client.asks import Ask
from coordd.client.locks import Hold, LockSettings, Steps
from coordd.client.settings import clock
from coordd.errors import CoorddError, InvalidError, LockLostError, NotFoundError
from coordd.types import Index

__all__ = ["AsyncLock"]

T = TypeVar("T")

_RETRY_SECONDS = 0.2
_LONGEST_NAP_SECONDS = 1.0
"""The loop's sleep does not count the time that the host was suspended; the guard does."""


class _Asker(Protocol):
    async def ask(self, ask: Ask[T]) -> T: ...

    async def follow(self, steps: Steps[T]) -> T: ...


class AsyncLock:
    """As `lock.Lock`; `on_lost` is called on the loop."""

    def __init__(self, client: _Asker, settings: LockSettings, on_lost: Callable[[], None] | None = None) -> None:
        self.lost = asyncio.Event()
        self._client = client
        self._settings = settings
        self._on_lost = on_lost
        self._hold: Hold | None = None
        self._renewals: asyncio.Task[None] | None = None

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

    async def acquire(self) -> None:
        """Raises: ConflictError (not free, and not to wait), TimedOutError (waited in vain), or what the cluster
        says."""
        if self._hold is not None:
            raise InvalidError(f"lock {self.name!r}: one AsyncLock is taken once; make another")
        hold = self._hold = locks.new_hold(self._settings, clock)
        await self._client.follow(locks.create(hold, clock))
        self._renewals = asyncio.get_running_loop().create_task(self._renew(hold))
        try:
            await self._client.follow(locks.acquire(hold, clock))
        except BaseException:
            await self._end_renewals()
            with suppress(CoorddError):
                await self._client.follow(locks.give_up(hold))
            raise

    async def release(self) -> None:
        """Give it back. Raises: what the cluster says; then the TTL gives it back."""
        if self._hold is not None:
            await self._end_renewals()
            await self._client.follow(locks.release(self._hold))

    async def __aenter__(self) -> "AsyncLock":
        await self.acquire()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        lost = self._hold is None or self._hold.guard.lost
        with suppress(CoorddError):
            await self.release()
        if lost and kind is None:
            raise LockLostError(f"lock {self.name!r} was lost before the work was done")

    async def _end_renewals(self) -> None:
        if self._renewals is not None and self._renewals is not asyncio.current_task():
            self._renewals.cancel()
            await asyncio.gather(self._renewals, return_exceptions=True)

    async def _renew(self, hold: Hold) -> None:
        guard = hold.guard
        while not guard.lost:
            await asyncio.sleep(min(guard.until_renewal, guard.left, _LONGEST_NAP_SECONDS))
            if guard.until_renewal > 0 or guard.lost:
                continue
            sent_at = clock()
            try:
                await self._client.ask(asks.renew_session(hold.session, timeout=guard.left))
            except NotFoundError:
                guard.lose()
            except CoorddError:
                await asyncio.sleep(min(_RETRY_SECONDS, guard.left))
            else:
                guard.renewed(sent_at)
        self.lost.set()
        if self._on_lost is not None:
            self._on_lost()
