"""What goes wrong, and when: each seed draws which kinds of faults it has, how often and how long (swarm testing).

A fault begins at once and ends after a while, by itself. When the run's first phase is over nothing new begins; `world`
then heals what must work.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.chance import Chance
from tests.sim.network import Conditions
from tests.sim.partitions import SHAPES, between
from tests.sim.server import Server

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["Faults"]

AMBUSH = 0.05
"""Seconds that a crash waits for its victim's disk to be busy."""


class Faults:
    """The fault scheduler of one run."""

    def __init__(self, world: "World", chance: Chance) -> None:
        self._world = world
        self._chance = chance
        self._around = world.around
        self.over = False
        kinds: dict[str, Callable[[], bool]] = {
            "crash": self._crash,
            "crash leader": self._crash_leader,
            "crash many": self._crash_many,
            "pause": self._pause,
            "suspend": self._suspend,
            "wall clock": self._wall_clock,
            "partition": self._partition,
            "bad links": self._bad_links,
            "late ears": self._late_ears,
            "stall": self._stall,
            "slow disk": self._slow_disk,
            "transfer": self._transfer,
            "zombie": self._zombie,
            "restart": self._restart,
            "flip": self._flip,
            "bad memory": self._bad_memory,
            "full disk": self._full_disk,
            "failing disk": self._failing_disk,
        }
        self._around.counts.update({f"fault {kind}": 0 for kind in kinds})  # one that is never used is to be noticed
        self._kinds = {kind: act for kind, act in kinds.items() if chance.happens(0.7)} or kinds
        self._weights = {kind: chance.expovariate(1.0) + 0.1 for kind in self._kinds}
        if "flip" in self._weights:
            self._weights["flip"] += 1.0
        self._weights["crash many"] = self._weights.get("crash many", 0.0) * 0.3
        self._interval = chance.uniform(0.45, 0.95)
        self._duration = chance.choice([0.1, 0.3, 0.6, 1.0])
        self.reckless = chance.happens(0.3)
        """More than a minority may be away at once."""
        self.mix = {kind: round(weight, 2) for kind, weight in self._weights.items() if kind in self._kinds}

    def begin(self) -> None:
        self._around.schedule.after(self._chance.expovariate(1.0) * self._interval + 0.5, self._next)

    def _next(self) -> None:
        if self.over:
            return
        kinds = list(self._kinds)
        (kind,) = self._chance.choices(kinds, [self._weights[kind] for kind in kinds])
        leader = self._world.leader()
        if self._kinds[kind]():
            if leader is not None and self._chance.happens(0.5):
                self._world.attached.stay(leader.name, self._around.tuning.raft.election_timeout * 5)
            self._around.counts["faults"] += 1
            self._around.counts[f"fault {kind}"] += 1
        self._around.schedule.after(self._chance.expovariate(1.0) * self._interval, self._next)

    def _lasting(self) -> float:
        return 0.02 + self._chance.expovariate(1.0) * self._duration

    def _later(self, end: Callable[[], object], delay: float | None = None) -> None:
        def unless_over() -> None:
            if not self.over:
                end()

        self._around.schedule.after(self._lasting() if delay is None else delay, unless_over)

    # --- processes ---------------------------------------------------------------------------------------------------

    def _someone(self) -> Server | None:
        """A running server; one that would leave less than a majority only in a reckless run."""
        running = [server for server in self._world.members() if server.up and not server.paused]
        if not running or (not self.reckless and len(running) * 2 <= len(self._world.members()) + 1):
            return None
        return self._chance.choice(running)

    def _crash(self, server: Server | None = None) -> bool:
        """At once; or, which breaks more, in the middle of what its disk does next."""
        victim = server or self._someone()
        if victim is None:
            return False
        if self._chance.happens(0.3):
            self._end(victim, victim.life)
            return True
        schedule, life = self._around.schedule, victim.life

        def ambush(begun: float, done: float) -> None:
            schedule.at(begun + self._chance.random() * (done - begun), self._end, victim, life)

        victim.disk.condition.ambush = ambush
        schedule.after(AMBUSH, self._end, victim, life)
        return True

    def _end(self, victim: Server, life: int) -> None:
        if victim.life != life or self.over:
            return
        victim.disk.condition.ambush = None
        fate = victim.crash()
        self._around.counts[f"disk at crash: {fate}"] += 1
        self._later(lambda: self._revive(victim))

    def _revive(self, server: Server) -> None:
        if not server.up and not server.refused:
            server.start()

    def _crash_leader(self) -> bool:
        leader = self._world.leader()
        return leader is not None and self._someone() is not None and self._crash(leader)

    def _crash_many(self) -> bool:
        victims = [server for server in self._world.members() if server.up and self._chance.happens(0.7)]
        at_once = self._chance.happens(0.5)
        for server in victims:
            if at_once:
                self._end(server, server.life)
            else:
                self._crash(server)
        return bool(victims)

    def _restart(self) -> bool:
        """A clean end, and back."""
        server = self._someone()
        if server is None:
            return False
        server.stop()
        self._later(lambda: self._revive(server))
        return True

    def _pause(self) -> bool:
        server = self._world.leader() if self._chance.happens(0.5) else self._someone()
        if server is None or server.paused:
            return False
        server.pause()
        life = server.life

        def resume() -> None:
            if server.life == life:
                server.resume()

        self._later(resume)
        return True

    def _suspend(self) -> bool:
        """The whole machine stands still, its disk too; only its clock that counts suspend goes on."""
        server = self._world.leader() if self._chance.happens(0.5) else self._someone()
        if server is None or server.paused:
            return False
        asleep = self._lasting() * self._chance.choice([1.0, 5.0])
        life, condition = server.life, server.disk.condition
        condition.stalled_until = max(condition.stalled_until, self._around.schedule.now + asleep)
        server.pause()

        def resume() -> None:
            if server.life == life:
                server.resume()

        self._later(resume, asleep)
        return True

    def _wall_clock(self) -> bool:
        """Somebody sets a wall clock, forward or back: nothing may rest on it."""
        change = self._chance.choice([1.0, -1.0]) * self._chance.choice([0.5, 30.0, 3600.0, 3e8])
        self._chance.choice(self._world.members()).clock.set_wall(change)
        return True

    def _zombie(self) -> bool:
        """The leader sleeps until another leads, and wakes up before it can hear of it."""
        leader = self._world.leader()
        if leader is None or leader.paused:
            return False
        network, life, chance = self._around.network, leader.life, self._chance
        links = between([leader.name], list(self._world.servers))
        election = self._around.tuning.raft.election_timeout

        def wake() -> None:
            if leader.life == life:
                leader.resume()

        network.cut(links)
        leader.pause()
        asleep = election * chance.uniform(1.0, 4.0)
        self._later(wake, asleep)
        self._later(lambda: network.mend(links), asleep + chance.uniform(0.0, election))
        return True

    # --- network -----------------------------------------------------------------------------------------------------

    def _partition(self) -> bool:
        names = [server.name for server in self._world.members()]
        if len(names) < 2:
            return False
        leader = self._world.leader()
        shape = self._chance.choice(sorted(SHAPES))
        links = SHAPES[shape](names, leader.name if leader else names[0], self._chance)
        network = self._around.network
        network.cut(links)
        self._around.say("net", f"cut {shape}", links)
        self._around.counts[f"partition {shape}"] += 1

        def mend() -> None:
            network.mend(links)
            self._around.say("net", f"mend {shape}")

        self._later(mend)
        return True

    def isolate(self, server: Server) -> None:
        """Nothing of what it has just said arrives, nor anything else for a while."""
        network, links = self._around.network, between([server.name], list(self._world.servers))
        network.cut(links)
        self._around.counts["faults"] += 1
        self._around.counts["fault isolation"] += 1
        self._later(lambda: network.mend(links), self._around.tuning.raft.election_timeout * self._chance.uniform(1, 5))

    def _bad_links(self) -> bool:
        """Everything around one server becomes slow and unreliable."""
        names = [server.name for server in self._world.members()]
        links = between([self._chance.choice(names)], names)
        chance = self._chance
        network = self._around.network
        network.change(
            links,
            Conditions(
                0.0005,
                chance.choice([0.001, 0.02, 0.2]),
                chance.uniform(0, 0.5),
                chance.uniform(0, 0.3),
                chance.uniform(0, 0.5),
            ),
        )
        self._later(lambda: network.restore(links))
        return True

    def _late_ears(self) -> bool:
        """The leader hears all others late, while clients reach it as ever: it does not know what is already decided.
        Meanwhile it may hand over, or cease to be heard by one or by all."""
        leader = self._world.leader()
        if leader is None or leader.paused:
            return False
        network, chance = self._around.network, self._chance
        others = [server.name for server in self._world.servers.values() if server is not leader]
        election = self._around.tuning.raft.election_timeout
        delay = election * chance.uniform(0.1, 1.2)
        to_leader = [(other, leader.name) for other in others]
        network.change(to_leader, Conditions(delay, 0.0))
        lasting = 2 * delay + election * chance.uniform(0.1, 2.5)
        self._later(lambda: network.restore(to_leader), lasting)
        more = chance.choice(["nothing", "transfer", "mute", "mute to one"])
        if chance.happens(0.4):
            self._around.quiet_until = self._around.schedule.now + lasting
        if more == "transfer":
            self._later(self._world.operator.transfer, delay * chance.uniform(0.5, 2))
        elif more != "nothing":
            unheard = others if more == "mute" else [chance.choice(others)]
            from_leader = [(leader.name, other) for other in unheard]
            self._later(lambda: network.cut(from_leader), delay * chance.uniform(0, 1.5))
            self._later(lambda: network.mend(from_leader), lasting + election * chance.uniform(1, 3))
        return True

    # --- disks -------------------------------------------------------------------------------------------------------

    def _stall(self) -> bool:
        server = self._world.leader() if self._chance.happens(0.5) else self._someone()
        if server is None:
            return False
        server.disk.condition.stalled_until = self._around.schedule.now + self._lasting()
        return True

    def _slow_disk(self) -> bool:
        server = self._someone()
        if server is None:
            return False
        disk = server.disk.condition
        disk.slowness = self._chance.uniform(2, 30)

        def recover() -> None:
            disk.slowness = 1.0

        self._later(recover)
        return True

    def _broken(self) -> Server | None:
        """One of the minority whose disks may do more than be slow. None while only one server knows of the cluster."""
        if not self._around.invariants.ledger.commit:
            return None
        members = self._world.members()
        servers = [server for server in members if server.disk.condition.faulty and not server.refused]
        return self._chance.choice(servers) if servers else None

    def _flip(self) -> bool:
        """A bit turns round. Sooner or later the server starts anew and sees it, if it did not before; a server that goes
        on must find by itself what it means to its state."""
        server = self._broken()
        kind = server.disk.flip() if server is not None else ""
        if server is None or not kind:
            return False
        self._around.counts[f"flip {kind}"] += 1
        self._around.say(server.name, "flip", kind)
        if server.up and not (kind.startswith("state") and self._chance.happens(0.5)):
            soon = self._chance.happens(0.7)
            self._around.schedule.after(0.0 if soon else 0.5 + self._lasting(), self._end, server, server.life)
        return True

    def _bad_memory(self) -> bool:
        """A state is not any more what others have, and only the comparison with them, or a scrub, can tell."""
        server = self._broken()
        if server is None or not server.spoil_digest():
            return False
        self._around.say(server.name, "bad memory")
        return True

    def _full_disk(self) -> bool:
        server = self._broken()
        if server is None or server.disk.condition.full:
            return False
        victim = server
        victim.set_full(True)
        self._later(lambda: victim.set_full(False), 0.3 + self._lasting())
        return True

    def _failing_disk(self) -> bool:
        """Until the process has ended of it, at the next write."""
        server = self._broken()
        if server is None or not server.up:
            return False
        server.disk.condition.writable = self._chance.choice([0, 512, 4096, self._chance.randint(0, 200_000)])
        return True

    def died(self, server: Server) -> None:
        """A process that ended by itself is started again, in both phases."""
        self._around.schedule.after(self._lasting(), self._revive, server)

    # --- leadership --------------------------------------------------------------------------------------------------

    def _transfer(self) -> bool:
        """Sometimes the old leader is cut off just when the new one campaigns."""
        leader = self._world.leader()
        done = self._world.operator.transfer()
        if done and leader is not None and self._chance.happens(0.5):
            network = self._around.network
            links = between([leader.name], list(self._world.servers))
            self._later(lambda: network.cut(links), self._chance.uniform(0.0005, 0.008))
            self._later(lambda: network.mend(links), 0.01 + self._lasting())
        return done
