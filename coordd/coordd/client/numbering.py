"""Numbers for writes, so that a repeated one takes effect once (rule 92). Pure.

All writers of a client share one registration. A number is outstanding from the moment it is given until its result is
known or nobody waits for it any more; the servers may then forget the stored result, and never apply it again. The
window from the lowest outstanding number to the last one is bounded, because the servers keep a bounded number of
results.
"""

from collections import deque

from coordd.client.calls import Call
from coordd.errors import invariant

__all__ = ["MAX_WINDOW", "Numbering"]

MAX_WINDOW = 768
"""Below the number of results that servers keep for one client (1024)."""


class Numbering:
    """`client` is 0 while there is no registration. `waiting`: writes that have no number yet, in order."""

    def __init__(self) -> None:
        self.client = 0
        self.waiting: deque[Call] = deque()
        self._last = 0
        self._outstanding: dict[int, Call] = {}

    @property
    def lowest(self) -> int:
        """The lowest outstanding number; with none, the next one. Insertion order is the order of numbers."""
        return next(iter(self._outstanding), self._last + 1)

    def drop_finished(self) -> None:
        while self.waiting and self.waiting[0].finished:
            self.waiting.popleft()

    def registered(self, client: int) -> None:
        invariant(self.client == 0 and not self._outstanding, "registered twice", client=client)
        self.client, self._last = client, 0

    def admit(self) -> list[Call]:
        """Give numbers to those that wait, as far as the window allows."""
        admitted = []
        while self.waiting and self._last + 1 - self.lowest < MAX_WINDOW:
            call = self.waiting.popleft()
            if call.finished:
                continue
            self._last += 1
            call.client, call.number = self.client, self._last
            self._outstanding[self._last] = call
            admitted.append(call)
        return admitted

    def finish(self, call: Call) -> None:
        if call.client == self.client:
            self._outstanding.pop(call.number, None)

    def expired(self) -> list[Call]:
        """The registration is gone. Gives back the writes that were sent under it: their outcome is unknown.

        Those never sent wait for the next registration.
        """
        outstanding = list(self._outstanding.values())
        self.client = 0
        self._outstanding = {}
        unsent = [call for call in outstanding if not call.tries]
        for call in reversed(unsent):
            call.client = call.number = 0
            self.waiting.appendleft(call)
        return [call for call in outstanding if call.tries]
