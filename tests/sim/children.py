"""Work done in child processes, several at once, each item in a process of its own.

A child is forked for one item and ends by itself when it is done, also if its parent was killed meanwhile. What it leaves
behind in memory (planted bugs, threads, open files) goes with it. For commands only: fork from a process without threads.
"""

import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["in_children"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_PIECE = 1 << 16


@dataclass
class _Child(Generic[Item]):
    item: Item
    pid: int
    pipe: int
    ends_by: float
    told: bytearray = field(default_factory=bytearray)


def in_children(
    work: Callable[[Item], Result], items: Iterable[Item], jobs: int, seconds: float = float("inf")
) -> Iterator[tuple[Item, Result | None]]:
    """`work(item)` for each item, as they come to an end; None: it took longer than `seconds`, or the child died.

    Leaving the iteration ends the children that are under way.
    """
    waiting = iter(items)
    selector = selectors.DefaultSelector()
    running: dict[int, _Child[Item]] = {}
    try:
        while True:
            while len(running) < jobs and (begun := _begin_next(work, waiting, seconds)) is not None:
                running[begun.pipe] = begun
                selector.register(begun.pipe, selectors.EVENT_READ)
            if not running:
                return
            for child in _ended(selector, running):
                selector.unregister(child.pipe)
                del running[child.pipe]
                yield child.item, _result(child)
    finally:
        for child in running.values():
            _end(child)
        selector.close()


def _begin_next(work: Callable[[Item], Result], waiting: Iterator[Item], seconds: float) -> _Child[Item] | None:
    for item in waiting:
        ours, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _be_child(work, item, theirs)
        os.close(theirs)
        return _Child(item, pid, ours, time.monotonic() + seconds)
    return None


def _be_child(work: Callable[[Item], Result], item: Item, pipe: int) -> None:
    """The pipe stays open until the very end: whoever reads its end may end this process."""
    try:
        file = os.fdopen(pipe, "wb")
        pickle.dump(work(item), file)
        file.flush()
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _ended(selector: selectors.BaseSelector, running: dict[int, _Child[Item]]) -> list[_Child[Item]]:
    """Wait until some child has said everything, or has taken too long."""
    first = min(child.ends_by for child in running.values())
    timeout = None if first == float("inf") else max(0.0, first - time.monotonic())
    ended = []
    for key, _ in selector.select(timeout):
        child = running[key.fd]
        piece = os.read(child.pipe, _PIECE)
        child.told += piece
        if not piece:
            ended.append(child)
    now = time.monotonic()
    for child in running.values():
        if child.ends_by <= now and child not in ended:
            child.told.clear()
            ended.append(child)
    return ended


def _result(child: _Child[Item]) -> Result | None:
    _end(child)
    result: Result | None = pickle.loads(child.told) if child.told else None
    return result


def _end(child: _Child[Item]) -> None:
    """It has ended, or shall now; the process is ours to wait for either way."""
    os.close(child.pipe)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
