"""A client that clings to one server and reads from it again and again, whatever else happens and whatever it is told.

The others leave a leader that does not answer, or are told where to go; who stays with it sees when it answers without
being entitled to. What it reads is judged where it is answered (`Invariants.read_answered`, `read_asked`).
"""

from coordd.messages.client import PROTOCOL_VERSION, Consistency, Read, Request
from coordd.messages.query import KvGet
from tests.sim.server import Answered, Asked
from tests.sim.surroundings import Surroundings

__all__ = ["Attached"]

NAME = "a0"
PACE = 0.016
"""Mean seconds between two reads."""


class Attached:
    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._chance = around.chance.branch(NAME)
        self._requests = 0
        self._staying = 0
        self.over = False

    def stay(self, server: str, seconds: float) -> None:
        """With this server and no other, for so long."""
        self._staying += 1
        self._ask(server, self._around.schedule.now + seconds, self._staying)

    def _ask(self, server: str, until: float, staying: int) -> None:
        around = self._around
        if self.over or staying != self._staying or around.schedule.now > until:
            return
        self._requests += 1
        consistency: Consistency = self._chance.choice(["default", "default", "consistent"])
        body = Read(KvGet("k0"), consistency)
        asked = Asked(NAME, Request(PROTOCOL_VERSION, self._requests, "", 2000, body), around.invariants.ledger.commit)
        around.network.send(NAME, server, asked, once=True)
        around.schedule.after(self._chance.expovariate(1.0) * PACE, self._ask, server, until, staying)

    def deliver(self, reply: Answered) -> None:
        self._around.counts["attached reads answered"] += type(reply.body).__name__ == "ReadResult"
