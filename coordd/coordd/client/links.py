"""Connections of a client: they follow what the core wants, and carry what it says. No waiting, no thread of its own.

Both shells call `turn` when something may have happened: a descriptor woke, a deadline came, a call was made. It
returns only when nothing more can be done now, so that waiting for edge-triggered descriptors is safe.
"""

from collections.abc import Callable
from pathlib import Path

from coordd.client.core import ClientCore
from coordd.client.settings import IPC
from coordd.errors import ConfigError
from coordd.transport.clients import Connection, Context
from coordd.transport.security import KeyPair

__all__ = ["Links"]

_SLICE = 256
_ROUNDS = 64
_REOPEN_SECONDS = 0.1
_UNUSABLE_SECONDS = 30.0


class _Link:
    def __init__(self, connection: Connection, key: str) -> None:
        self.connection = connection
        self.key = key
        self.up = False


class Links:
    """`watch(connection)` and `unwatch(connection)` tell the shell whose descriptors to wait for."""

    def __init__(
        self,
        core: ClientCore,
        context: Context,
        pair: KeyPair,
        watch: Callable[[Connection], None],
        unwatch: Callable[[Connection], None],
    ) -> None:
        self._core = core
        self._context = context
        self._pair = pair
        self._watch = watch
        self._unwatch = unwatch
        self._links: dict[str, _Link] = {}
        self._reopen_at: dict[str, float] = {}

    def turn(self, now: float) -> bool:
        """Do all that can be done now. True: there is more, come again without waiting."""
        self._note_rejections()
        self._core.tick(now)
        for _ in range(_ROUNDS):
            self._follow(now)
            busy = False
            for address, link in list(self._links.items()):
                busy |= self._look(address, link, now)
            for send in self._core.take_sends(now):
                busy = True
                found = self._links.get(send.server)
                if found is None or not found.connection.send(send.frame):
                    self._core.not_sent(send.request, now)
            if not busy:
                return False
        return True

    @property
    def next_deadline(self) -> float | None:
        """When `turn` is needed if nothing happens before; None: never."""
        times = list(self._reopen_at.values())
        if (core := self._core.next_deadline) is not None:
            times.append(core)
        return min(times, default=None)

    def close(self) -> None:
        for address in list(self._links):
            self._drop(address)

    def _note_rejections(self) -> None:
        """Before the core says what a deadline means: nothing else tells of a handshake that failed."""
        for address, link in self._links.items():
            if not link.up and not link.connection.up and link.connection.rejected:
                self._core.rejected(address)

    def _look(self, address: str, link: _Link, now: float) -> bool:
        """Take in what came, then notice whether the connection came up or was lost. True: something happened."""
        frames = link.connection.receive(_SLICE)
        for frame in frames:
            self._core.received(address, frame, now)
        up = link.connection.up
        if link.connection.lost:
            self._drop(address)
            self._reopen_at[address] = now + _REOPEN_SECONDS
            self._core.lost(address, now)
            return True
        if up and not link.up:
            link.up = True
            self._core.connected(address, now)
            return True
        return bool(frames)

    def _follow(self, now: float) -> None:
        targets = self._core.targets
        for address in [each for each, link in self._links.items() if targets.get(each) != link.key]:
            self._drop(address)
            self._core.lost(address, now)
        for address, key in targets.items():
            if address not in self._links and self._reopen_at.get(address, now) <= now:
                self._open(address, key, now)
        for address in [each for each in self._reopen_at if each not in targets]:
            del self._reopen_at[address]

    def _open(self, address: str, key: str, now: float) -> None:
        self._reopen_at.pop(address, None)
        try:
            if address.startswith(IPC):
                connection = Connection.to_path(self._context, Path(address.removeprefix(IPC)))
            else:
                connection = Connection.to_server(self._context, address, key, self._pair)
        except ConfigError:
            # A list may name a server that we can't use: that must not keep us from the others.
            self._reopen_at[address] = now + _UNUSABLE_SECONDS
            return
        self._links[address] = _Link(connection, key)
        self._watch(connection)

    def _drop(self, address: str) -> None:
        connection = self._links.pop(address).connection
        self._unwatch(connection)
        connection.close()
