"""How long the last few disk waits took, as numbers for metrics and for the core's lower bound of its timeouts."""

import math
from collections import deque

__all__ = ["Latency"]

WINDOW = 512


class Latency:
    """Seconds of the last 512 waits. Filled by one thread, read by any."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=WINDOW)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def quantile(self, share: float) -> float:
        """The smallest duration that at least this share of the waits did not exceed; 0 without any."""
        ordered = sorted(self._seconds.copy())
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0

    @property
    def p99(self) -> float:
        return self.quantile(0.99)
