"""How old a server's state may be (rule 63), pure.

Under load the state always lags a little: what counts is when the server had been told of all that its state now holds.
"""

from coordd.types import Index

__all__ = ["Currency"]


class Currency:
    """Mutable; one per server. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._current_at: float | None = None
        self._mark: tuple[Index, float] | None = None
        """(commit index, when the leader had told it): at that time the state was the newest, once it is applied."""

    def note(self, applied: Index, commit: Index, leader_contact: float) -> None:
        """To be called when something was applied, and before `age` is asked."""
        if self._mark is not None and applied >= self._mark[0]:
            self._current_at, self._mark = self._mark[1], None
        if self._mark is None and leader_contact > float("-inf"):
            if applied >= commit:
                self._current_at = leader_contact
            else:
                self._mark = (commit, leader_contact)

    def age(self, now: float) -> float | None:
        """Seconds since the state was certainly the newest; None: it never was."""
        return None if self._current_at is None else max(0.0, now - self._current_at)
