"""One run: a cluster, its clients and everything that goes wrong, from one seed.

Phase one: anything may be down. Phase two: a core of servers that can decide is healed, the rest stays broken or alone;
then the cluster must have one leader, finish all that clients asked and take a new write, within bounded time.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import msgspec

from coordd.acl.authorizer import Authorizer
from coordd.errors import CoorddError
from coordd.messages.query import KvList, KvPairs
from coordd.raft.membership import begin_promotion
from coordd.raft.settings import RaftSettings
from coordd.types import Configuration
from tests.sim.attached import Attached
from tests.sim.chance import Chance
from tests.sim.clock import Schedule
from tests.sim.faults import Faults
from tests.sim.history import History
from tests.sim.invariants import Invariants
from tests.sim.ledger import majorities
from tests.sim.membership import Operator, member
from tests.sim.network import Conditions, Network
from tests.sim.oracle import Oracle
from tests.sim.partitions import between
from tests.sim.server import Answered, Server
from tests.sim.surroundings import Options, Surroundings, Tuning
from tests.sim.trace import Trace
from tests.sim.violation import Violation
from tests.sim.watcher import Watcher
from tests.sim.workload import Client, Mix

__all__ = ["World", "memory_folder"]

NEVER = 3600
"""Seconds between two scrubs that no run comes to."""
PATIENCE = 20.0
"""Seconds within which a healed cluster must have finished everything (invariant 17)."""
EVERYTHING = Authorizer(management=True)
SAMPLE = 0.05
"""Seconds between two looks at whether there is a leader."""


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory-backed storage, or the usual temporary one; gone afterwards."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="coordd-sim-", dir=shared if shared.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class World:
    """Everything of one run. `run` raises Violation, or the servers' own InvariantError."""

    def __init__(self, options: Options, folder: Path, trace_file: TextIO | None = None) -> None:
        chance = Chance(f"coordd/{options.seed}")
        schedule = Schedule()
        network = Network(schedule, chance.branch("network"), self._deliver, _conditions(chance.branch("links")))
        judge = Invariants(options.paranoid)
        self.around = Surroundings(
            options,
            _tuning(chance.branch("tuning")),
            chance,
            schedule,
            network,
            judge,
            Oracle(judge.ledger, lambda: schedule.now),
            Trace(trace_file, str(folder)),
            folder,
        )
        names = [f"s{number}" for number in range(1, options.servers + 3)]
        self.servers = {name: Server(self.around, name, chance.branch(name)) for name in names}
        self._founders = names[: options.servers]
        self.history = History()
        mix = Mix.drawn(chance.branch("mix"))
        count = chance.branch("clients").randint(4, 8)
        self.clients = {
            f"c{n}": Client(self.around, f"c{n}", self._targets, mix, self.history, self.around.oracle, n % 2 == 0)
            for n in range(count)
        }
        watchers = chance.branch("watchers").choice([0, 1])
        self.watchers = {
            f"w{n}": Watcher(self.around, f"w{n}", self._targets, lambda name: self.servers[name].life, self.history)
            for n in range(watchers)
        }
        self.attached = Attached(self.around)
        self.operator = Operator(self, chance.branch("operator"))
        self.faults = Faults(self, chance.branch("faults"))
        self._choose_minority(chance.branch("minority"))
        self._led = self._sampled = 0
        self._core: set[str] = set()

    def _choose_minority(self, chance: Chance) -> None:
        """Whose disks may fail and forget: so few that every configuration has a majority without them."""
        voters = len(self._founders)
        most = (voters - 1) // 2
        hosts = self._founders
        if self.operator.changes:
            most, hosts = min(1, most), list(self.servers)
        for name in chance.sample(hosts, min(most, chance.choice([0, 1, 2, 2]))):
            self.servers[name].disk.condition.faulty = True
        for server in self.servers.values():
            server.on_death, server.on_office = self.faults.died, self._elected

    def _elected(self, server: Server) -> None:
        for other in self.servers.values():
            if other is not server and other.leads and other.node.raft.lease_valid(other.now()):
                self.around.invariants.lease_holds(other.id, other.term, server.id, server.term)

    # --- who is who --------------------------------------------------------------------------------------------------

    def configuration(self) -> Configuration:
        """The newest committed one."""
        ledger = self.around.invariants.ledger
        found = [(index, c) for (index, term), c in ledger.configurations.items() if self._committed(index, term)]
        return max(found, key=lambda pair: pair[0])[1] if found else self._founding

    def configurations(self) -> list[Configuration]:
        """The newest committed one, and all behind it that some server still holds."""
        ledger = self.around.invariants.ledger
        committed = max((i for (i, t) in ledger.configurations if self._committed(i, t)), default=1)
        logs = [log for record in ledger.records.values() for log in (record.durable, record.submitted)]
        return [
            configuration
            for (index, term), configuration in ledger.configurations.items()
            if (index == committed and (index == 1 or self._committed(index, term)))
            or (index > committed and any(log.term(index) == term for log in logs))
        ]

    def _committed(self, index: int, term: int) -> bool:
        ledger = self.around.invariants.ledger
        return index == 1 or (index <= ledger.commit and ledger.committed[index] == term)

    def members(self) -> list[Server]:
        ids = {m.id for m in self.configuration().members}
        return [server for server in self.servers.values() if server.id in ids]

    def founding(self, server: Server) -> bool:
        return server.name in self._founders and self.around.invariants.ledger.commit == 0

    def _targets(self) -> list[str]:
        return [server.name for server in self.members()]

    def leader(self) -> Server | None:
        leaders = [server for server in self.servers.values() if server.leads]
        return max(leaders, key=lambda server: server.term, default=None)

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._found()
        schedule = self.around.schedule
        for client in self.clients.values():
            client.begin()
        for watcher in self.watchers.values():
            watcher.begin()
        self.faults.begin()
        self.operator.begin()
        schedule.after(SAMPLE, self._sample)
        schedule.run(self.around.options.seconds)
        self.around.counts["leader permille"] = 1000 * self._led // max(1, self._sampled)
        self._heal()
        if not schedule.run(schedule.now + PATIENCE, self._finished):
            raise Violation(17, "not everything was finished after healing", open=self._unfinished())
        self._converge()
        self.history.judge(self.around.oracle.written_at)
        self.around.counts["histories judged"] += len(self.history.operations) - self.history.undecided
        if self.history.undecided:
            self.around.counts["histories undecided"] += self.history.undecided
        self.around.counts["events"] = schedule.events
        for fate, count in self.around.network.fates.items():
            self.around.counts[f"messages {fate}"] += count

    def close(self) -> None:
        for server in self.servers.values():
            if server.up:
                with contextlib.suppress(CoorddError):
                    server.discard()

    def _found(self) -> None:
        ids = {name: server.format() for name, server in self.servers.items()}
        members = [member(ids[name], name, voter=True) for name in self._founders]
        members.sort(key=lambda m: m.id)
        self._founding = Configuration("c" * 32, "sim", tuple(members))
        for name in self._founders:
            self.servers[name].start()
        self.servers[self._founders[0]].found(self._founding)

    def _deliver(self, receiver: str, message: object) -> None:
        server = self.servers.get(receiver)
        if server is not None:
            server.deliver(message)
        else:
            assert isinstance(message, Answered)
            (self.clients.get(receiver) or self.watchers.get(receiver) or self.attached).deliver(message)

    def _sample(self) -> None:
        self._sampled += 1
        leader = self.leader()
        terms = [server.term for server in self.servers.values() if server.up]
        if leader is not None and not leader.paused and leader.term >= max(terms):
            self._led += 1
        self.around.schedule.after(SAMPLE, self._sample)

    # --- phase two ---------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Mend a set of servers that can decide; the others stay cut off from everybody, or down."""
        self.faults.over = self.operator.over = self.attached.over = True
        chance = self.around.chance.branch("heal")
        self._core = self._choose_core(chance)
        names = list(self.servers)
        outside = [name for name in names if name not in self._core]
        network = self.around.network
        network.heal()
        network.cut(between(outside, names))
        self.around.say("all", "heal", sorted(self._core))
        for server in self.servers.values():
            if server.name in self._core:
                server.disk.condition.heal()
                server.set_full(False)
                if not server.up:
                    server.start()
                elif server.paused:
                    server.resume()
        self._core = {name for name in self._core if not self.servers[name].refused}
        for client in self.clients.values():
            client.finish(sorted(self._core))
        for watcher in self.watchers.values():
            watcher.finish(sorted(self._core))

    def _choose_core(self, chance: Chance) -> set[str]:
        """Who may be in force keeps a majority of sound disks: leave out one after the other while that holds."""
        configurations = [after for configuration in self.configurations() for after in _promoted(configuration)]
        core = {m.id for configuration in configurations for m in configuration.members}
        faulty = {server.id for server in self.servers.values() if server.disk.condition.faulty}
        core -= {server.id for server in self.servers.values() if server.refused}
        for server in chance.sample(sorted(core), len(core)):
            rest = core - {server}
            if chance.happens(0.7) and all(
                majorities(configuration, rest - faulty) for configuration in configurations
            ):
                core = rest
        return {server.name for server in self.servers.values() if server.id in core}

    def _finished(self) -> bool:
        return not self._unfinished()

    def _unfinished(self) -> list[str]:
        return [client.name for client in self.clients.values() if not client.idle]

    def _converge(self) -> None:
        """All of the core that belong to the cluster apply everything, and agree."""
        ledger = self.around.invariants.ledger
        wanted = ledger.commit
        schedule = self.around.schedule

        def behind() -> list[str]:
            core = [s for s in self.members() if s.name in self._core and not s.refused]
            return [s.name for s in core if not s.up or s.node.machine.applied < wanted]

        if not schedule.run(schedule.now + PATIENCE, lambda: not behind()):
            raise Violation(17, "a healed server does not catch up", behind=behind(), wanted=wanted)
        if self.leader() is None:
            raise Violation(17, "a healed cluster has no leader")
        if not schedule.run(schedule.now + PATIENCE, lambda: all(map(self._shows, self.watchers.values()))):
            raise Violation(15, "a watcher does not see the state", index=[w.index for w in self.watchers.values()])
        self._scrub()

    def _scrub(self) -> None:
        """What is wrong with a state in use is found in time."""
        schedule, interval = self.around.schedule, self.around.tuning.scrub_seconds
        core = [server for server in self.servers.values() if server.name in self._core]
        if interval >= NEVER or not any(server.damage() for server in core):
            return

        def damaged() -> list[str]:
            return [server.name for server in core if server.damage()]

        schedule.run(schedule.now + 1.1 * interval + 1.0)
        if damaged():
            raise Violation(4, "a damaged state stays in use", servers=damaged())

    def _shows(self, watcher: Watcher) -> bool:
        """What the watcher was shown last is what there is."""
        server = self.servers[watcher.server]
        if not server.up or not watcher.index:
            return False
        return server.node.machine.query(KvList("k"), EVERYTHING).value == KvPairs(watcher.shown)


def _promoted(configuration: Configuration) -> list[Configuration]:
    """This one, and all that follow from it when learners are promoted, which a leader does by itself."""
    found = [configuration]
    for learner in configuration.members:
        if learner.promote:
            found += [begin_promotion(before, learner.id) for before in found]
    return found


def _conditions(chance: Chance) -> Conditions:
    """The usual network of this run."""
    if chance.happens(0.3):
        return Conditions()
    return Conditions(
        chance.choice([0.0002, 0.001]),
        chance.choice([0.0002, 0.001, 0.005]),
        chance.choice([0.0, 0.0, 0.01, 0.05]),
        chance.choice([0.0, 0.01, 0.05]),
        chance.choice([0.0, 0.01, 0.1]),
    )


def _tuning(chance: Chance) -> Tuning:
    election = chance.choice([0.3, 0.5])
    raft = RaftSettings(
        heartbeat_interval=election / chance.choice([3, 5]),
        election_timeout=election,
        max_election_timeout=election * chance.choice([1, 2, 10]),
        lease_duration=election * 0.8,
        max_append_entries=chance.choice([1, 4, 1024]),
        max_append_bytes=chance.choice([256, 4096, 1 << 20]),
        min_inflight_messages=chance.choice([1, 2, 64]),
        max_inflight_messages=chance.choice([1, 4, 64]),
        max_inflight_bytes=chance.choice([1024, 1 << 24]),
        max_uncommitted_bytes=chance.choice([4096, 1 << 26]),
        memory_tail_bytes=chance.choice([512, 4096, 1 << 25]),
        departing_timeout=chance.choice([1.0, 5.0]),
    )
    differ = chance.branch("differ")
    return Tuning(
        msgspec.structs.replace(raft, priority_hold=differ.choice([0.5, 3.0])),
        floors=differ.choice([(1.0,), (1.0, 1.5)]),
        priorities=differ.choice([(0,), (0, 1), (0, 1, 2, 3)]),
        write_latency=chance.choice([0.0005, 0.002, 0.008]),
        apply_latency=chance.choice([0.0, 0.001, 0.01]),
        loop_latency=chance.choice([0.0, 0.0002, 0.001]),
        apply_entries=chance.choice([1, 16, 1000]),
        checkpoint_ms=chance.choice([500, 2000, 10_000]),
        checkpoint_entries=chance.choice([15, 50, 200]),
        scrub_seconds=chance.choice([5, 20, NEVER]),
        compare_entries=chance.choice([16, 64]),
        compact_after_entries=chance.choice([20, 60]),
        trailing_entries=chance.choice([0, 5, 30]),
        chunk_bytes=chance.choice([16384, 65536, 1 << 20]),
        credits=chance.choice([1, 2, 8]),
        receivers=chance.choice([1, 2]),
        idle_seconds=chance.choice([1.0, 30.0]),
        keep_seconds=chance.choice([0.5, 60.0]),
        wal_limit=chance.choice([1 << 15, 1 << 18, 1 << 21]),
        tail_bytes=chance.choice([1024, 1 << 20]),
    )
