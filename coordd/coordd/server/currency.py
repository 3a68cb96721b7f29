"""How old a server's state may be (rule 63), pure.

The core says since when it knows what is committed (`Raft.vouched`); the state is as young as that once it has applied so
far. Under load it always lags a little: then what counts is when that of which the state now holds all was the newest.
"""

from coordd.types import Index

__all__ = ["Currency"]


class Currency:
    """Mutable; one per server. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._current_at: float | None = None
        self._mark: tuple[Index, float] | None = None
        """(commit index, time): at that time the state was the newest, once it is applied."""

    def note(self, applied: Index, commit: Index, at: float) -> None:
        """To be called when something was applied, and before `age` is asked. What was committed before `at` is not above
        `commit`."""
        if self._mark is not None and applied >= self._mark[0]:
            self._current_at, self._mark = self._mark[1], None
        if self._mark is None and at > float("-inf"):
            if applied >= commit:
                self._current_at = at if self._current_at is None else max(at, self._current_at)
            else:
                self._mark = (commit, at)

    def age(self, now: float) -> float | None:
        """Seconds since the state was certainly the newest; None: it never was."""
        return None if self._current_at is None else max(0.0, now - self._current_at)
