"""One thread for work that would hold up the loop: it runs in C with the GIL released, or gives it up every few milliseconds,
and its result comes back to the loop."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["Helper"]


class Helper:
    """`run` from the loop; `turn` on the loop, after the `wake` given at construction was called."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._wake = wake
        self._done: deque[tuple[Callable[[Any], None], Future[Any]]] = deque()

    def run(self, work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        """Do `work` on the thread; afterwards call one of the others on the loop."""

        def finished(future: "Future[Any]") -> None:
            self._done.append((lambda done: _hand_over(done, then, failed), future))
            self._wake()

        self._executor.submit(work).add_done_callback(finished)

    def turn(self) -> None:
        while self._done:
            deliver, future = self._done.popleft()
            deliver(future)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _hand_over(future: "Future[Any]", then: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
    if future.cancelled():
        return
    error = future.exception()
    if error is None:
        then(future.result())
    elif isinstance(error, Exception):
        failed(error)
    else:
        raise error
