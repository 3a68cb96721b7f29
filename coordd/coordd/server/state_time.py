"""Replicated time, as the leader stamps it into commands (design: state time).

It goes on from the last applied time at the pace of the leader's own monotonic clock since it took office, slewed towards
its wall clock by at most one percent: one wrong clock can neither freeze nor hurry it. Nanoseconds; never decreases.
"""

__all__ = ["StateTime"]

_SLEW = 0.01


class StateTime:
    """Of one leadership. `since` and `now` are monotonic seconds, `wall` is seconds of the Unix epoch."""

    def __init__(self, applied: int, since: float, wall: float) -> None:
        self._last = applied or int(wall * 1e9)  # a new cluster begins with the wall clock of its first leader
        self._since = since

    def at(self, now: float, wall: float) -> int:
        """The time to stamp at this moment."""
        passed = max(0, int((now - self._since) * 1e9))
        self._since = max(self._since, now)
        behind = int(wall * 1e9) - (self._last + passed)
        most = int(passed * _SLEW)
        self._last += passed + max(-most, min(most, behind))
        return self._last
