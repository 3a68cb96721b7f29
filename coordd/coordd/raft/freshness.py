"""Since when a follower knows what is committed (rule 63), pure.

A heartbeat may be old when it is read: it was on a slow way, or lay in a buffer while this process slept. So nothing is
taken from when it came. It names the newest of this follower's answers that the leader had when it sent it, and the
follower remembers when it gave that answer, or the one before it that it remembers: the heartbeat is certainly younger
than that. A leader that could not prove at that time that it was the only one says since when it could not, and that
counts too. Answers of an earlier life are not remembered, so a heartbeat that names one of those proves nothing.

Invariants: `at` never falls; what was committed anywhere before `at` is not above `commit`.
"""

from collections import deque

from coordd.messages.peer import Heartbeat
from coordd.types import Index, Term

__all__ = ["Freshness"]

_APART = 0.05
"""Seconds between answers that are remembered, besides the newest. Rounds for reads follow each other as fast as the nearest
quorum answers, so that hundreds may be under way to a follower far away."""
_ANSWERS_KEPT = 64
"""So a heartbeat and the answer that it names may have been on their way for three seconds together."""


class Freshness:
    """Mutable; one per server."""

    def __init__(self) -> None:
        self.commit: Index = 0
        self.at = float("-inf")
        """Monotonic seconds of this server."""
        self._term: Term = 0
        """Its rounds are remembered."""
        self._answers: deque[tuple[int, float]] = deque(maxlen=_ANSWERS_KEPT)
        """(round, when it was answered), rising; the newest round that was answered is always the last of them."""

    def heard(self, message: Heartbeat, boot: int, now: float) -> None:
        """A heartbeat of the current term's leader, which is answered in this step, in the life number `boot`."""
        answers = self._answers
        if message.term != self._term:
            self._term = message.term
            answers.clear()
        if message.heard_in == boot:
            while len(answers) > 1 and answers[1][0] <= message.heard:
                answers.popleft()
            if message.leader_commit and answers and answers[0][0] <= message.heard:
                vouched = answers[0][1] - message.unsure
                if vouched > self.at:
                    self.at, self.commit = vouched, max(self.commit, message.leader_commit)
        if not answers or answers[-1][0] < message.round:
            if len(answers) > 1 and answers[-1][1] - answers[-2][1] < _APART:
                answers.pop()
            answers.append((message.round, now))
