"""A rate of bytes on the loop, where nothing may wait: what has been spent, and when there is more. Pure."""

__all__ = ["Quota"]

_BURST_SECONDS = 0.05
"""What was not used is kept for so long."""


class Quota:
    """Mutable. Allows what comes at `bytes_per_second`, and always a piece of `least` bytes at a time."""

    def __init__(self, bytes_per_second: float, least: int) -> None:
        self._rate = bytes_per_second
        self._most = max(least, bytes_per_second * _BURST_SECONDS)
        self._left = self._most
        self._at = 0.0

    def spent(self, size: int) -> None:
        """To be asked for before, by `pause`; the last piece may overdraw."""
        self._left -= size

    def pause(self, now: float) -> float:
        """Seconds until something may be spent; 0: now. `now` is monotonic."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        return max(0.0, -self._left / self._rate)
