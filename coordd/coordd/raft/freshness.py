"""Since when a follower knows what is committed (rule 63), pure.

A heartbeat may be old when it is read: it was on a slow way, or lay in a buffer while this process slept. So nothing is
taken from when it came. It names the newest of this follower's answers that the leader had when it sent it, and the
follower remembers when it gave that answer: the heartbeat is certainly younger than that. A leader that could not prove at
that time that it was the only one says since when it could not, and that counts too.

Invariants: `at` never falls; what was committed anywhere before `at` is not above `commit`.
"""

from collections import deque

from coordd.messages.peer import Heartbeat
from coordd.types import Index, Term

__all__ = ["Freshness"]

_ANSWERS_KEPT = 64
"""Rounds that are under way at once are few: a new one begins when a quorum has answered, or with the heartbeat interval."""


class Freshness:
    """Mutable; one per server."""

    def __init__(self) -> None:
        self.commit: Index = 0
        self.at = float("-inf")
        """Monotonic seconds of this server."""
        self._stretch: tuple[Term, int] = (0, 0)
        """Term and session whose rounds are remembered."""
        self._answers: deque[tuple[int, float]] = deque(maxlen=_ANSWERS_KEPT)
        """(round, when it was answered), rising."""

    def heard(self, message: Heartbeat, now: float) -> None:
        """A heartbeat of the current term's leader, which is answered in this step."""
        if self._stretch != (message.term, message.session):
            self._stretch = (message.term, message.session)
            self._answers.clear()
        answers = self._answers
        while answers and answers[0][0] < message.heard:
            answers.popleft()
        if message.leader_commit and answers and answers[0][0] == message.heard:
            vouched = answers[0][1] - message.unsure
            if vouched > self.at:
                self.at, self.commit = vouched, max(self.commit, message.leader_commit)
        if not answers or answers[-1][0] < message.round:
            answers.append((message.round, now))
