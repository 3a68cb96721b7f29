"""Clients: what they do next, one thing after the other, with one or two hands.

Half of them number their writes and repeat them under the same number until they know the outcome; the others send a
write once, and take what is not answered for unknown. What they do is in `keys`, `locking` and `instances`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.asking import Asker
from tests.sim.chance import Chance
from tests.sim.history import History
from tests.sim.instances import InstanceWork
from tests.sim.keys import KeyWork
from tests.sim.locking import LockWork
from tests.sim.oracle import Oracle
from tests.sim.server import Answered
from tests.sim.surroundings import Surroundings

__all__ = ["Client", "Mix"]

WEIGHTS = {
    "put": 3.0,
    "cas": 1.5,
    "chain": 1.0,
    "delete": 0.7,
    "get": 2.5,
    "consistent": 2.0,
    "stale": 1.5,
    "block": 0.7,
    "add": 1.0,
    "remove": 0.6,
    "members": 0.8,
    "register": 0.6,
    "deregister": 0.3,
    "instances": 0.5,
    "acquire": 2.0,
    "wait": 1.5,
    "cancel": 0.4,
    "look": 1.0,
    "release": 1.5,
    "fenced": 1.0,
    "elect": 0.6,
    "renew": 2.0,
    "destroy": 0.15,
    "vanish": 0.15,
}


@dataclass(frozen=True)
class Mix:
    """How a run's clients behave: drawn from the seed."""

    keys: int
    locks: int
    sets: int
    think: float
    session_ttl: float
    lock_delay: float
    """Of those sessions that queue."""
    patience: float
    """Seconds until an unanswered request is given up or repeated."""
    hands: int
    """Things that a client with numbers does at a time."""
    weights: dict[str, float]

    @classmethod
    def drawn(cls, chance: Chance) -> "Mix":
        return cls(
            keys=chance.choice([1, 3, 8]),
            locks=chance.choice([1, 2]),
            sets=chance.choice([1, 2]),
            think=chance.uniform(0.08, 0.27),
            session_ttl=chance.choice([1.0, 2.0, 4.0, 3600.0]),
            lock_delay=chance.choice([0.0, 0.0, 0.3, 1.5]),
            patience=chance.uniform(0.3, 1.0),
            hands=chance.choice([1, 1, 2]),
            weights={kind: weight * (0.2 + chance.random()) for kind, weight in WEIGHTS.items()},
        )


class Client:
    """Does things until it is told to finish; `idle` when all of them are done."""

    def __init__(
        self,
        around: Surroundings,
        name: str,
        servers: Callable[[], list[str]],
        mix: Mix,
        history: History,
        oracle: Oracle,
        numbered: bool,
    ) -> None:
        self.around = around
        self.name = name
        self.mix = mix
        self.history = history
        self.oracle = oracle
        self.chance = around.chance.branch(name)
        self.asker = Asker(around, name, servers, mix.patience, oracle, self.chance.branch("asker"))
        self._numbered = numbered
        self.keys = KeyWork(self, numbered)
        self._locking = LockWork(self)
        instances = InstanceWork(self)
        self._work = {**self.keys.kinds, **instances.kinds, **(self._locking.kinds if numbered else {})}
        self._busy = 0
        """Hands that do something."""
        self._last_words = [self.keys.get, self.keys.put]
        self._stopping = False
        self.idle = False

    def begin(self) -> None:
        for _ in range(self.mix.hands if self._numbered else 1):
            self._busy += 1
            self.around.schedule.after(self.chance.random() * 0.5, self._next)

    def finish(self, servers: list[str]) -> None:
        """Bring what is under way to its end, write and read once more, ask only these servers, and be idle."""
        self.asker.servers = lambda: servers
        self._stopping = True

    def done(self, kind: str = "") -> None:
        """One hand is free again; a completed operation is counted under its kind."""
        if kind:
            self.around.counts["operations"] += 1
            self.around.counts[f"completed {kind}"] += 1
        self.around.schedule.after(self.chance.expovariate(1.0) * self.mix.think, self._next)

    def _next(self) -> None:
        quiet = self.around.quiet_until
        if self._stopping:
            self._conclude()
        elif quiet > self.around.schedule.now:
            self.around.schedule.at(quiet + self.chance.random() * self.mix.think, self._next)
        elif self._numbered and not self.asker.registered:
            self.asker.register(self.done)
        elif self._numbered and not self._locking.session:
            self._locking.open_session()
        else:
            weights = self.mix.weights
            (kind,) = self.chance.choices(list(self._work), [weights[kind] for kind in self._work])
            self._work[kind]()

    def _conclude(self) -> None:
        if self._last_words:
            self._last_words.pop()()
            return
        self._busy -= 1
        self.idle = self._busy == 0

    def deliver(self, reply: Answered) -> None:
        self.asker.deliver(reply)
