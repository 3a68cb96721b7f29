"""The virtual network: every message between two names takes its time, or is lost, doubled or overtaken.

Links behave as TCP connections that break: in order unless the run reorders, and what is cut off is lost, at the moment
of sending as well as at the moment of arriving.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.sim.chance import Chance
from tests.sim.clock import Schedule

__all__ = ["PERFECT", "Conditions", "Link", "Network"]

Link = tuple[str, str]
"""(sender, receiver): the way back is another link."""


class Conditions(NamedTuple):
    """How a link treats messages. Times in seconds, the others are probabilities."""

    least_delay: float = 0.0003
    mean_delay: float = 0.0005
    """On top of the least, exponentially distributed."""
    loss: float = 0.0
    doubling: float = 0.0
    reordering: float = 0.0


PERFECT = Conditions()

Deliver = Callable[[str, object], None]


class Network:
    """`deliver(receiver, message)` is called in virtual time, by the schedule."""

    def __init__(self, schedule: Schedule, chance: Chance, deliver: Deliver, conditions: Conditions = PERFECT) -> None:
        self._schedule = schedule
        self._chance = chance
        self._deliver = deliver
        self.usual = conditions
        self._unusual: dict[Link, Conditions] = {}
        self._cut: Counter[Link] = Counter()
        self._newest: dict[Link, float] = {}
        self.fates: Counter[str] = Counter()

    def send(self, sender: str, receiver: str, message: object, *, once: bool = False, surely: bool = False) -> bool:
        """False: dropped before it left, as a socket notices that has no connection. `once`: it may get lost, but is
        never doubled, as on one connection. `surely`: nor lost nor overtaken, as on one whose end is noticed."""
        link = (sender, receiver)
        if self._cut[link]:
            self.fates["cut"] += 1
            return False
        conditions = PERFECT if surely else self._unusual.get(link, self.usual)
        if self._chance.happens(conditions.loss):
            self.fates["lost"] += 1
            return True
        self._start(link, message, conditions)
        if not once and self._chance.happens(conditions.doubling):
            self.fates["doubled"] += 1
            self._start(link, message, conditions)
        return True

    def _start(self, link: Link, message: object, conditions: Conditions) -> None:
        delay = conditions.least_delay + self._chance.expovariate(1.0) * conditions.mean_delay
        arrival = self._schedule.now + delay
        if self._chance.happens(conditions.reordering):
            self.fates["reordered"] += 1
            arrival += delay * self._chance.randint(1, 20)
        else:
            arrival = max(arrival, self._newest.get(link, 0.0))
            self._newest[link] = arrival
        self._schedule.at(arrival, self._arrive, link, message)

    def _arrive(self, link: Link, message: object) -> None:
        if self._cut[link]:
            self.fates["cut"] += 1
            return
        self.fates["delivered"] += 1
        self._deliver(link[1], message)

    def cut(self, links: Iterable[Link]) -> None:
        """Cuts add up: a link works again when each of them was mended."""
        self._cut.update(links)

    def mend(self, links: Iterable[Link]) -> None:
        self._cut.subtract(links)

    def connected(self, one: str, other: str) -> bool:
        """Both ways."""
        return not self._cut[one, other] and not self._cut[other, one]

    def change(self, links: Iterable[Link], conditions: Conditions) -> None:
        self._unusual.update(dict.fromkeys(links, conditions))

    def restore(self, links: Iterable[Link]) -> None:
        for link in links:
            self._unusual.pop(link, None)

    def heal(self) -> None:
        """Every link works again, perfectly."""
        self._cut.clear()
        self._unusual.clear()
        self.usual = PERFECT
