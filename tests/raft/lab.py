"""A cluster that lives: messages take time and may be lost, doubled and overtaken; disks take a while; one seed decides.

What the labs of MIT's 6.5840 call their tester, for cores in memory: servers are unplugged, crashed and started again,
and clients try until what they want is committed. All that `checks.py` demands holds after each step.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from coordd.messages.peer import AppendEntries, RaftMessage, RequestVote, VoteResponse
from coordd.raft import events
from coordd.raft.output import Accepted, Output, Role, SendSnapshot
from coordd.raft.progress import ProgressState
from coordd.raft.settings import RaftSettings
from coordd.types import Index, ServerId, Term
from tests.raft.cluster import Cluster, Server, command

__all__ = ["RELIABLE", "REORDERING", "UNRELIABLE", "Lab", "Wire"]

DISK_SECONDS = 0.002
REPEAT_SECONDS = 0.5


class Wire(NamedTuple):
    """How messages travel: chance of loss, of a second copy, and seconds, from quickest to slowest."""

    lost: float
    doubled: float
    quickest: float
    slowest: float


RELIABLE = Wire(0.0, 0.0, 0.001, 0.001)
UNRELIABLE = Wire(0.1, 0.05, 0.001, 0.027)
REORDERING = Wire(0.1, 0.1, 0.001, 0.25)


class Lab(Cluster):
    """`count` servers from `a` on. Time passes in `run` alone. `compact_every`: a server drops its log so often."""

    def __init__(self, count: int, seed: int, wire: Wire = RELIABLE, *, compact_every: int = 0) -> None:
        self.chance = random.Random(seed)
        self.wire = wire
        self.compact_every = compact_every
        self.travelling: list[tuple[float, int, bool, RaftMessage]] = []
        """When it arrives, in which order, whether it is lost, and what."""
        self.order = itertools.count()
        self.disk_due: dict[str, float] = {}
        self.announced: dict[tuple[ServerId, ServerId], float] = {}
        self.unplugged: set[str] = set()
        self.slow_voters: dict[str, float] = {}
        """Seconds by which requests for votes and votes from these servers are late."""
        self.sent_by_kind: Counter[str] = Counter()
        self.entry_bytes_sent = 0
        super().__init__("abcdefg"[:count], settings=RaftSettings(), seed=seed)

    # --- network and disks --------------------------------------------------------------------------------------------

    def _post(self, message: RaftMessage) -> None:
        self.sent_by_kind[type(message).__name__] += 1
        if isinstance(message, AppendEntries):
            self.entry_bytes_sent += sum(map(len, message.slice.entries))
        copies = 1 + (self.chance.random() < self.wire.doubled)
        for _ in range(copies):
            lost = self.chance.random() < self.wire.lost
            arrives = self.now + self.chance.uniform(self.wire.quickest, self.wire.slowest)
            if isinstance(message, RequestVote | VoteResponse):
                arrives += self.slow_voters.get(str(message.sender), 0.0)
            heapq.heappush(self.travelling, (arrives, next(self.order), lost, message))

    def _announce_again(self, server: Server) -> None:
        """What a driver does that hears nothing of a transfer: its first word may be lost, or the answer to it."""
        leading = server.replica.leading
        for progress in leading.peers.values() if leading else ():
            if progress.state is not ProgressState.SNAPSHOT:
                self.announced.pop((server.id, progress.peer), None)
            elif self.now >= self.announced.setdefault((server.id, progress.peer), self.now) + REPEAT_SECONDS:
                self.announced[server.id, progress.peer] = self.now
                base = server.replica.log.base_index
                server.wanted_snapshots.append(SendSnapshot(progress.peer, progress.session, server.replica.term, base))

    def _perform(self, server: Server, output: Output) -> None:
        super()._perform(server, output)
        if server.jobs:
            self.disk_due.setdefault(str(server.id), self.now + DISK_SECONDS)

    def _turn(self, server: Server) -> None:
        """What is due at one server by now."""
        name = str(server.id)
        if self.disk_due.get(name, self.now + 1) <= self.now:
            del self.disk_due[name]
            self.persist(name)
        if server.deadline <= self.now:
            self.step(server, events.Ticked())
        self.apply(name)
        if self.compact_every and server.disk.applied - server.disk.base.index >= self.compact_every:
            self.compact(name, server.disk.applied)
        self.read_entries(name)
        self._announce_again(server)
        self.announce_snapshots(name)
        self.finish_snapshot(name)

    def run(self, seconds: float) -> None:
        """Let everybody live so long."""
        end = self.now + seconds
        while True:
            up = [server for server in self.servers.values() if server.up]
            due = [server.deadline for server in up]
            due += [at for name, at in self.disk_due.items() if self[name].up]
            due += [self.travelling[0][0]] if self.travelling else []
            soonest = min(due, default=end)
            if soonest >= end:
                break
            self.now = max(self.now, soonest)
            while self.travelling and self.travelling[0][0] <= self.now:
                _, _, lost, message = heapq.heappop(self.travelling)
                if not lost and not {str(message.sender), str(message.receiver)} & self.unplugged:
                    self.receive(message)
            for server in up:
                self._turn(server)
            self.clear_trace()
        self.now = end

    # --- what is done to servers --------------------------------------------------------------------------------------

    def unplug(self, *names: str) -> None:
        """Nothing goes in or out; the server itself goes on."""
        self.unplugged |= set(names)

    def plug(self, *names: str) -> None:
        self.unplugged -= set(names)

    def crash(self, name: str) -> None:
        super().crash(name)
        self.disk_due.pop(name, None)

    def start(self, *names: str) -> None:
        for name in names:
            self.restart(name)

    # --- what is seen of them -----------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return [str(server) for server in self.servers]

    @property
    def reachable(self) -> list[str]:
        return [name for name in self.names if self[name].up and name not in self.unplugged]

    def leaders(self) -> list[str]:
        """Those that say they lead, of the servers that can be asked; the newest term first."""
        leading = [name for name in self.reachable if self.role(name) is Role.LEADER]
        return sorted(leading, key=lambda name: -self[name].replica.term)

    def leader(self, within: float = 5.0) -> str:
        """The one leader, as soon as everybody who can be asked knows no newer term."""
        end = self.now + within
        while self.now < end:
            self.run(0.05)
            found = self.leaders()
            newest = max(self[name].replica.term for name in self.reachable)
            if len(found) == 1 and self[found[0]].replica.term == newest:
                return found[0]
        raise AssertionError(f"seed {self.seed}: no single leader after {within} s: {self.leaders()}")

    def propose_at(self, name: str, text: str) -> tuple[Index, Term] | None:
        answer = self.propose(name, text).proposal
        return (answer.first, answer.term) if isinstance(answer, Accepted) else None

    def having(self, index: Index, text: str) -> int:
        """How many servers have applied this very command at this index."""
        if self.checks.committed.get(index, (0, b""))[1] != command(text):
            return 0
        return sum(server.disk.applied >= index for server in self.servers.values())

    def agree(self, text: str, having: int, within: float = 10.0) -> Index:
        """A client that tries until its command is applied by so many servers; returns where it stands."""
        end = self.now + within
        while self.now < end:
            for name in self.leaders():
                place = self.propose_at(name, text)
                while place is not None and self.now < end:
                    self.run(0.02)
                    if self.having(place[0], text) >= having:
                        return place[0]
                    known = self.checks.committed.get(place[0])
                    if known is not None and known != (place[1], command(text)):
                        break  # another entry took its place
                    if known is None and name not in self.leaders():
                        break  # its outcome is unknown: it may come twice
            self.run(0.02)
        raise AssertionError(f"seed {self.seed}: {text!r} is not applied by {having} servers after {within} s")

    def agree_on(self, texts: Sequence[str], having: int) -> list[Index]:
        return [self.agree(text, having) for text in texts]

    def committed_texts(self) -> list[bytes]:
        return [entry for _, (_, entry) in sorted(self.checks.committed.items())]

    def heal(self) -> None:
        """Everything works again."""
        super().heal()
        self.wire = RELIABLE
        self.plug(*self.names)
        self.start(*[name for name in self.names if not self[name].up])

    def all_equal(self, within: float = 5.0) -> None:
        """Soon after all is well there is one leader, and everybody has applied everything."""
        leader = self[self.leader(within)]
        end = self.now + within
        while any(server.disk.applied < leader.replica.log.last for server in self.servers.values()):
            assert self.now < end, f"seed {self.seed}: {[(n, self[n].disk.applied) for n in self.names]}"
            self.run(0.05)
        assert {server.replica.log.last for server in self.servers.values()} == {leader.replica.log.last}
