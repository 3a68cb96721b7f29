"""The operator of the virtual cluster: adds, removes and replaces servers, and hands leadership over.

It asks whoever leads and forgets a request that comes to nothing. Servers that are out of every configuration are stopped
and wait, with a new disk, to be added as somebody else.
"""

from typing import TYPE_CHECKING

from coordd.raft.events import AddServer, ChangeRequested, PromoteServer, RemoveServer
from coordd.raft.output import Accepted
from coordd.types import Member, ServerId
from tests.sim.chance import Chance
from tests.sim.server import Server

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["Operator", "member"]

LEAST, MOST = 3, 7
GLANCE = 0.004
"""Seconds between two looks of an eager operator at who leads."""


def member(server: ServerId, name: str, *, voter: bool, promote: bool = False) -> Member:
    return Member(server, f"{name}:1", f"{name}:2", f"key of {server[:30]}", voter, promote)


class Operator:
    def __init__(self, world: "World", chance: Chance) -> None:
        self._world = world
        self._around = world.around
        self._chance = chance
        self._interval = chance.choice([0.0, 1.5, 3.0, 8.0])
        """Mean seconds between membership changes; 0: this run has none, but for what replaces broken servers."""
        self._eager = chance.happens(0.4)
        """Asks whoever has just been elected at once, before it can have committed anything."""
        self._last_term = 0
        self.over = False
        self._joining: dict[str, float] = {}
        """Hosts that were asked to be added, and when."""
        self._replaced: dict[ServerId, float] = {}
        """Servers that do not start any more, and when another one was last asked to take their place."""

    @property
    def changes(self) -> bool:
        return self._interval > 0

    def begin(self) -> None:
        if self._interval:
            self._around.schedule.after(self._chance.expovariate(1.0) * self._interval + 1.0, self._next)
        self._around.schedule.after(0.5, self._look_around)
        if self._interval and self._eager:
            self._around.schedule.after(GLANCE, self._glance)

    def _glance(self) -> None:
        """A new leader? Not the first one: it has nothing to be confused about."""
        leader = self._world.leader()
        if leader is not None and leader.term != self._last_term:
            if self._last_term and not leader.paused and not self.over:
                self._change(leader)
            self._last_term = leader.term
        self._around.schedule.after(GLANCE, self._glance)

    def _next(self) -> None:
        if self.over:
            return
        leader = self._world.leader()
        if leader is not None and not leader.paused:
            self._change(leader)
        self._around.schedule.after(self._chance.expovariate(1.0) * self._interval, self._next)

    def _change(self, leader: Server) -> None:
        configuration = self._world.configuration()
        spares = [server for server in self._world.servers.values() if not self._mentioned(server)]
        voters = len(configuration.voters)
        learners = [m for m in configuration.members if not m.voter and m.id not in configuration.leaving]
        kinds = [
            *(["add", "replace"] if spares and len(configuration.members) < MOST else []),
            *(["remove"] if voters > LEAST else []),
            *(["promote", "drop"] if learners else []),
        ]
        if not kinds:
            return
        kind = self._chance.choice(kinds)
        change: AddServer | RemoveServer | PromoteServer
        if kind in ("add", "replace"):
            replaced = self._chance.choice(configuration.voters) if kind == "replace" else None
            change = self._addition(self._chance.choice(spares), replaced, promote=self._chance.happens(0.8))
        elif kind == "remove":
            change = RemoveServer(self._chance.choice(configuration.voters))
        else:
            learner = self._chance.choice(learners).id
            change = PromoteServer(learner) if kind == "promote" else RemoveServer(learner)
        if self._ask(leader, kind, ChangeRequested(change, force=self._chance.happens(0.1))) and self._chance.happens(
            0.25
        ):
            self._world.faults.isolate(leader)

    def _ask(self, leader: Server, kind: str, request: ChangeRequested) -> bool:
        answer = leader.node.change(request, leader.now())
        self._around.say("op", kind, answer)
        if not isinstance(answer, Accepted):
            return False
        self._around.counts["membership changes"] += 1
        self._around.counts[f"membership {kind}"] += 1
        return True

    def _addition(self, spare: Server, replaced: ServerId | None, *, promote: bool) -> AddServer:
        if not spare.up:
            spare.start()
        self._joining[spare.name] = self._around.schedule.now
        return AddServer(member(spare.id, spare.name, voter=False, promote=promote), replaced)

    def _mentioned(self, server: Server) -> bool:
        """Whether some configuration that is or may yet be in force names this server."""
        return any(server.id in {m.id for m in configuration.members} for configuration in self._world.configurations())

    def _look_around(self) -> None:
        if self.over:
            return
        self._clean_up()
        leader = self._world.leader()
        if leader is not None and not leader.paused:
            self._replace_broken(leader)
        self._around.schedule.after(0.5, self._look_around)

    def _replace_broken(self, leader: Server) -> None:
        """Who refuses to start forgets its log and is refilled, or is replaced by a server on a new disk."""
        configuration, now = self._world.configuration(), self._around.schedule.now
        broken = [
            server for server in self._world.members() if server.refused and server.id not in configuration.leaving
        ]
        spares = [
            server for server in self._world.servers.values() if not self._mentioned(server) and not server.refused
        ]
        for server, spare in zip(broken, spares, strict=False):
            if server.id not in self._replaced and self._chance.happens(0.5) and server.disk.refill():
                self._around.counts["refills by order"] += 1
                self._around.say("op", "refill", server.name)
                server.start()
            elif now - self._replaced.get(server.id, -9.0) > 3.0:
                self._replaced[server.id] = now
                self._ask(leader, "repair", ChangeRequested(self._addition(spare, server.id, promote=True)))

    def _clean_up(self) -> None:
        """Stop who is out for good, and give the host a new disk."""
        for server in self._world.servers.values():
            recent = self._around.schedule.now - self._joining.get(server.name, -9.0) < 3.0
            if recent or self._mentioned(server) or self._world.founding(server) or not (server.up or server.refused):
                continue
            if server.up:
                server.stop()
            server.wipe()
            self._around.say(server.name, "wiped")

    def transfer(self) -> bool:
        leader = self._world.leader()
        if leader is None or leader.paused:
            return False
        others = [server.id for server in self._world.members() if server is not leader]
        target = self._chance.choice([None, *others])
        self._around.say("op", "transfer", leader.node.transfer(target, leader.now()))
        return True
