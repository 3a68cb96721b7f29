"""Waiting: one place where a loop sleeps until a socket, a file descriptor or another thread has something for it.

`Poller.poll(timeout)` returns the registered things that are ready, as they were registered. A `Wakeup` lets any thread
(or a signal handler) end that sleep: put the work where the loop will find it, *then* `wake()`; the loop first calls
`clear()` and *then* looks for work. In that order no wake-up is lost, however many are folded into one.
"""

import math
import os
from typing import Protocol, TypeAlias, runtime_checkable

import zmq

from coordd.transport.sockets import Socket

__all__ = ["Pollable", "Poller", "Wakeup"]


@runtime_checkable
class Pollable(Protocol):
    """What has a ZeroMQ socket or a file descriptor to wait on."""

    @property
    def poll_target(self) -> Socket | int: ...


Thing: TypeAlias = Pollable | int
"""An int is a file descriptor."""


class Wakeup:
    """Ends another thread's sleep. Only `wake` may be called from elsewhere than the loop's own thread."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pending = False

    @property
    def poll_target(self) -> int:
        return self._fd

    def wake(self) -> None:
        """Thread-safe, also in a signal handler: it takes no lock. After `close` it does nothing."""
        if not self._pending and self._fd >= 0:
            self._pending = True
            os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Call before looking for work: the flag must fall last, or a wake-up between the two lines would be lost."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
        self._pending = False

    def close(self) -> None:
        """Call when no other thread will wake any more."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class Poller:
    """Belongs to one thread."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._things: dict[Socket | int, Thing] = {}

    def register(self, thing: Thing) -> None:
        """Wait for input from it too. Registering twice changes nothing."""
        target = _target(thing)
        self._things[target] = thing
        self._poller.register(target, zmq.POLLIN)

    def unregister(self, thing: Thing) -> None:
        """Stop waiting for it; without effect if it is not registered. Must come before the thing is closed."""
        target = _target(thing)
        if self._things.pop(target, None) is not None:
            self._poller.unregister(target)

    def poll(self, timeout: float | None) -> set[Thing]:
        """Sleep until something is ready, at most `timeout` seconds (None: for ever; 0: only look).

        Rounded up to whole milliseconds, so that a loop waiting for a deadline does not spin just before it.
        """
        milliseconds = None if timeout is None else max(0, math.ceil(timeout * 1000))
        return {self._things[target] for target, _ in self._poller.poll(milliseconds)}


def _target(thing: Thing) -> Socket | int:
    return thing if isinstance(thing, int) else thing.poll_target
