"""What the transport's tests share: a context with a gate, and waiting for a condition."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from coordd.transport.security import Gate
from coordd.transport.sockets import Context, close_context, open_context

T = TypeVar("T")


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Fail if the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.005)


def collect(receive: Callable[[], list[T]], count: int = 1) -> list[T]:
    """Receive again and again until there are `count` items."""
    got: list[T] = []

    def complete() -> bool:
        got.extend(receive())
        return len(got) >= count

    wait_until(complete)
    return got


def stays_false(condition: Callable[[], bool], seconds: float = 0.5) -> bool:
    """True if it never held during that time: for what must *not* happen, where there is nothing to wait for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return False
        time.sleep(0.005)
    return True


@contextmanager
def zmq_context() -> Iterator[Context]:
    context = open_context()
    try:
        yield context
    finally:
        close_context(context)


@contextmanager
def gated_context(refused: Callable[[str, str], None] | None = None) -> Iterator[tuple[Context, Gate]]:
    with zmq_context() as context:
        gate = Gate(context, refused)
        try:
            yield context, gate
        finally:
            gate.close()
