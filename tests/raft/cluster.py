"""A few cores, an in-memory network, disks that finish when told, and a clock that moves when told.

Nothing happens by itself: a message waits in the network until it is delivered or dropped, a write waits until it is
persisted, time stands until it is advanced. `settle` does all of that until nothing is left to do. After each step the
server is checked, and every pair of it and another, in both directions (see `checks.py`); so a test that forgets to assert
something still fails when the algorithm does something forbidden.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from coordd.messages.peer import InstallSnapshot, RaftMessage, RequestVote, VoteResponse
from coordd.raft import events
from coordd.raft.output import Output, Role
from coordd.raft.settings import RaftSettings
from coordd.types import (
    Base,
    HardState,
    Index,
    LogSlice,
    LogWrite,
    ServerId,
    SnapshotMeta,
    Term,
)
from tests.raft.checks import Checks
from tests.raft.server import Disk, Server, command, configuration, member, piece, runs_of, sid

__all__ = ["Cluster", "Disk", "Server", "command", "configuration", "member", "piece", "sid"]

M = TypeVar("M")
START = 100.0
MAX_STEPS = 20_000


class Cluster:
    """Servers are named by single letters; a log is given as the terms of its entries.

    `voters` and `learners` make the configuration at index 0, unless `base` says otherwise.
    """

    def __init__(
        self,
        voters: Sequence[str] = ("a", "b", "c"),
        learners: Sequence[str] = (),
        *,
        logs: Mapping[str, Sequence[Term]] | None = None,
        terms: Mapping[str, Term] | None = None,
        commits: Mapping[str, Index] | None = None,
        settings: RaftSettings | None = None,
        priorities: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.priorities = dict(priorities or {})
        self.settings = settings or RaftSettings(min_inflight_messages=64)  # windows that stay open
        self.seed = seed
        self.now = START
        self.network: list[RaftMessage] = []
        self.cut: set[tuple[ServerId, ServerId]] = set()
        self.checks = Checks()
        self.trace: list[tuple[ServerId, events.Event, Output]] = []
        """Everything that was stepped since the last `clear_trace`."""
        self.configuration = configuration(voters, learners)
        self.servers: dict[ServerId, Server] = {}
        for name in [*voters, *learners]:
            log = (logs or {}).get(name, ())
            term = (terms or {}).get(name, log[-1] if log else 0)
            self.add(name, log, term, (commits or {}).get(name, 0))

    # --- servers ------------------------------------------------------------------------------------------------------

    def add(
        self, name: str, log: Sequence[Term] = (), term: Term = 0, commit: Index = 0, *, empty: bool = False
    ) -> Server:
        """Put a server into the room; `empty`: with a folder that knows of no configuration."""
        base = Base() if empty else Base(configuration=self.configuration)
        given = piece(1, log)
        entries = list(zip(given.terms(), given.entries, strict=True)) if log else []
        disk = Disk(HardState(term, None, commit), base, entries, applied=0, promised=len(entries))
        server = self.servers[sid(name)] = Server(name, disk)
        self._boot(server)
        return server

    def __getitem__(self, name: str) -> Server:
        return self.servers[sid(name)]

    def role(self, name: str) -> Role:
        return self[name].raft.replica.role

    def _boot(self, server: Server, tail: int | None = None, promised: Index | None = None) -> Output:
        priority = self.priorities.get(str(server.id), 0)
        server.power_up(msgspec.structs.replace(self.settings, priority=priority), self.seed)
        disk = server.disk
        count = len(disk.entries) if tail is None else min(tail, len(disk.entries))
        first = disk.last - count + 1
        restarted = events.Restarted(
            me=server.id,
            boot=server.boot,
            hard_state=disk.hard_state,
            base=disk.base,
            tail=disk.slice(first, disk.last) if count else LogSlice(first, [], ()),
            tail_previous_term=disk.term(first - 1) or 0,
            earlier_runs=runs_of(disk.base.index + 1, [term for term, _ in disk.entries[: len(disk.entries) - count]]),
            configurations=tuple(sorted(disk.configurations.items())),
            applied=disk.applied,
            promised=disk.promised if promised is None else promised,
        )
        return self.step(server, restarted)

    def crash(self, name: str) -> None:
        """Power off: what was not persisted is gone, and so is what it had not sent."""
        self[name].up = False

    def restart(self, name: str, *, tail: int | None = None, promised: Index | None = None) -> Output:
        return self._boot(self[name], tail, promised)

    def forget(self, name: str, last: Index) -> None:
        """The disk of a server that is down loses what it had made durable behind `last`."""
        disk = self[name].disk
        del disk.entries[last - disk.base.index :]
        disk.configurations = {index: c for index, c in disk.configurations.items() if index <= last}
        self[name].trusted = False

    # --- one step -----------------------------------------------------------------------------------------------------

    def step(self, server: Server | str, event: events.Event) -> Output:
        """The only way into a core: step, do the driver's duties, check."""
        if isinstance(server, str):
            server = self[server]
        output = server.raft.step(event, self.now)
        self.trace.append((server.id, event, output))
        self._perform(server, output)
        self.checks.after_step(server)
        for other in self.servers.values():
            self.checks.pair(server, other)
            self.checks.pair(other, server)
        return output

    def _perform(self, server: Server, output: Output) -> None:
        job = output.install_snapshot or output.write
        if output.install_snapshot is not None and output.write is not None:
            server.jobs.append(output.write)
            server.handed += 1
        if job is not None:
            server.jobs.append(job)
            server.handed += 1
        for message in output.messages_now:
            self._send(server, message)
        server.held.extend((server.handed, server.replica.term, message) for message in output.messages_after_persist)
        self._release(server)
        server.to_apply = max(server.to_apply, output.committed)
        server.reads.update({ready.read: ready.index for ready in output.reads_ready})
        server.wanted_reads += output.read_entries
        server.wanted_snapshots = [w for w in server.wanted_snapshots if w.peer not in output.stop_snapshot]
        server.wanted_snapshots += output.send_snapshot
        server.expected = output.expect_snapshot or server.expected
        server.deadline = output.next_deadline
        server.facts += [fact.name for fact in output.facts]

    def _release(self, server: Server) -> None:
        while server.held and server.held[0][0] <= server.finished:
            _, term, message = server.held.popleft()
            if term == server.replica.term:
                self._send(server, message)

    def _send(self, server: Server, message: RaftMessage) -> None:
        assert message.sender == server.id, message
        self.checks.leaving(server, message)
        self._post(message)

    def _post(self, message: RaftMessage) -> None:
        """On its way."""
        self.network.append(message)

    def clear_trace(self) -> None:
        self.trace.clear()

    # --- network ------------------------------------------------------------------------------------------------------

    def pending(
        self, kind: type | tuple[type, ...] = object, sender: str | None = None, receiver: str | None = None
    ) -> list[RaftMessage]:
        """Messages on their way, oldest first."""
        return [
            message
            for message in self.network
            if isinstance(message, kind) and sender in (None, message.sender) and receiver in (None, message.receiver)
        ]

    def sent(self, kind: type[M], sender: str | None = None, receiver: str | None = None) -> list[M]:
        """Like `pending`, for one kind."""
        return [message for message in self.pending(kind, sender, receiver) if isinstance(message, kind)]

    def deliver(
        self,
        kind: type | tuple[type, ...] = object,
        sender: str | None = None,
        receiver: str | None = None,
        *,
        copies: bool = False,
    ) -> list[RaftMessage]:
        """Deliver what is on its way now, not what that brings about. `copies`: let duplicates go on travelling."""
        found = self.pending(kind, sender, receiver)
        for message in found:
            if not copies:
                self._remove(message)
            self.receive(message)
        return found

    def receive(self, message: RaftMessage) -> Output | None:
        """Hand one message over, whether it was ever sent or not. None: lost on the way."""
        receiver = self.servers.get(message.receiver)
        if receiver is None or not receiver.up or (message.sender, message.receiver) in self.cut:
            return None
        return self.step(receiver, events.Received(message))

    def drop(
        self, kind: type | tuple[type, ...] = object, sender: str | None = None, receiver: str | None = None
    ) -> list[RaftMessage]:
        found = self.pending(kind, sender, receiver)
        for message in found:
            self._remove(message)
        return found

    def _remove(self, message: RaftMessage) -> None:
        at = next(n for n, other in enumerate(self.network) if other is message)
        del self.network[at]

    def isolate(self, *names: str) -> None:
        """Cut these servers, as a group, from all others, in both directions."""
        group = {sid(name) for name in names}
        for one in group:
            for other in self.servers.keys() - group:
                self.cut |= {(one, other), (other, one)}

    def heal(self) -> None:
        self.cut.clear()

    # --- disk, state, snapshots ---------------------------------------------------------------------------------------

    def persist(self, name: str, count: int | None = None) -> None:
        """Let the oldest `count` jobs of a disk finish; all there are now, without a count."""
        server = self[name]
        for _ in range(len(server.jobs) if count is None else count):
            job = server.jobs.popleft()
            server.finished += 1
            if isinstance(job, LogWrite):
                server.disk.write(job)
                self._note_configurations(server)
                self.step(server, events.Persisted(job.sequence))
            else:
                server.disk.install(job)
                self._note_configurations(server)
                self.step(server, events.SnapshotInstalled(job))
            self._release(server)

    def _note_configurations(self, server: Server) -> None:
        known = {index: c for index, c in server.replica.configurations if index > server.disk.base.index}
        server.disk.configurations = {index: c for index, c in known.items() if index <= server.disk.last}

    def apply(self, name: str) -> bool:
        server = self[name]
        if server.to_apply <= server.disk.applied:
            return False
        server.disk.applied = server.to_apply
        self.step(server, events.Applied(server.to_apply))
        return True

    def read_entries(self, name: str, *, compacted: bool = False) -> bool:
        """Answer what the core asked of its log on disk."""
        server = self[name]
        wanted, server.wanted_reads = server.wanted_reads, []
        for ask in wanted:
            disk = server.disk
            gone = compacted or ask.first <= disk.base.index
            last, size = ask.first, 0
            while not gone and last < disk.last and size < ask.max_bytes:
                last += 1
                size += len(disk.entries[last - disk.base.index - 1][1])
            found = None if gone else disk.slice(ask.first, last)
            previous = 0 if gone else disk.term(ask.first - 1) or 0
            self.step(server, events.EntriesRead(ask.peer, ask.session, previous, found))
        return bool(wanted)

    def snapshot(self, name: str, index: Index | None = None) -> SnapshotMeta:
        """What a snapshot of this server's state would say of itself."""
        server = self[name]
        at = server.disk.applied if index is None else index
        in_force_at, in_force = server.replica.configuration_at(at)
        assert in_force is not None
        return SnapshotMeta(at, server.replica.log.term(at) or 0, 0, in_force, in_force_at, 1, f"digest-{at}")

    def announce_snapshots(self, name: str) -> bool:
        """Begin the transfers that a leader asked for: the first word goes through the network."""
        server = self[name]
        wanted, server.wanted_snapshots = server.wanted_snapshots, []
        for ask in wanted:
            self._post(InstallSnapshot(ask.term, server.id, ask.peer, ask.session, self.snapshot(name)))
        return bool(wanted)

    def finish_snapshot(self, name: str, *, tell_sender: bool = True) -> bool:
        """The file that a server expects has arrived: tell it, and its sender unless that answer is lost."""
        server = self[name]
        if server.expected is None:
            return False
        (leader, session, term, snapshot), server.expected = server.expected, None
        self.step(server, events.SnapshotReceived(term, leader, session, snapshot))
        if tell_sender and leader in self.servers and self.servers[leader].up:
            self.step(self.servers[leader], events.SnapshotSent(server.id, session, snapshot.index))
        return True

    def compact(self, name: str, index: Index) -> Index:
        """Drop a server's log up to `index` if the core allows; returns up to where it did."""
        server = self[name]
        allowed = self.step(server, events.CompactionAsked(index)).compact
        if allowed:
            at, in_force = server.replica.configuration_at(allowed)
            term = server.disk.term(allowed) or 0
            del server.disk.entries[: allowed - server.disk.base.index]
            server.disk.base = Base(allowed, term, 0, in_force, at, "state.db")
            self._note_configurations(server)
            self.step(server, events.Compacted(server.disk.base))
        return allowed

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, name: str, *, stalled: bool = False) -> Output:
        return self.step(name, events.Ticked(disk_stalled=stalled))

    def advance(self, seconds: float) -> None:
        """Let time pass without anybody noticing."""
        self.now += seconds

    def settle(self) -> None:
        """Persist, deliver, apply, copy snapshots, until nothing is left to do. Time stands."""
        for _ in range(MAX_STEPS):
            if not self._work():
                return
        raise AssertionError(f"never quiet: {self.network[:5]}")

    def _work(self) -> bool:
        busy = bool(self.deliver())
        for server in [server for server in self.servers.values() if server.up]:
            name = str(server.id)
            busy |= bool(server.jobs)
            self.persist(name)
            busy |= server.auto_apply and self.apply(name)
            busy |= self.read_entries(name)
            busy |= self.announce_snapshots(name)
            busy |= self.finish_snapshot(name)
        return busy

    def run(self, seconds: float) -> None:
        """Time passes, everybody ticks when due, and everything settles each time."""
        end = self.now + seconds
        while True:
            up = [server for server in self.servers.values() if server.up]
            due = min(server.deadline for server in up)
            if due > end:
                break
            self.now = max(self.now, due)
            for server in up:
                if server.deadline <= self.now:
                    self.step(server, events.Ticked())
            self.settle()
        self.now = end

    # --- what tests often begin with ----------------------------------------------------------------------------------

    def outwait(self, name: str) -> None:
        """Let so much time pass that this server is due, and that nobody is deaf to it any more."""
        quiet = self.settings.election_timeout
        heard = [max(s.replica.leader_contact, s.replica.deaf_until - quiet) for s in self.servers.values()]
        self.now = max(self.now, self[name].replica.election_due, *(at + quiet for at in heard))

    def campaign(self, name: str) -> None:
        """This server misses its leader; the others notice nothing. What it sends waits in the network."""
        self.outwait(name)
        self.tick(name)

    def elect(self, name: str) -> Server:
        """Let this server win an election, and tell everybody who can hear."""
        self.campaign(name)
        self.settle()
        server = self[name]
        assert server.role is Role.LEADER, f"{name} is {server.role}"
        return server

    def stand(self, name: str) -> Server:
        """Bring this server as far as asking for real votes: the others answer its pre-vote, and its own vote is durable."""
        self.campaign(name)
        asked = self.drop(RequestVote, sender=name)
        for message in asked:
            self.receive(VoteResponse(message.term, message.receiver, message.sender, True, True))
        self.persist(name)
        assert self[name].role in (Role.CANDIDATE, Role.LEADER)
        return self[name]

    def lead(self, name: str) -> Server:
        """Make this server leader by votes of peers that may not know of it: nothing of what it sent is delivered."""
        server = self.stand(name)
        for message in self.drop(RequestVote, sender=name):
            if server.role is not Role.LEADER:
                self.receive(VoteResponse(message.term, message.receiver, message.sender, True))
        assert server.role is Role.LEADER
        return server

    def propose(self, name: str, *texts: str) -> Output:
        return self.step(name, events.Proposed([command(text) for text in texts]))

    def beat(self, name: str) -> None:
        """One heartbeat interval passes at this leader; what it sends waits in the network."""
        self.advance(self.settings.heartbeat_interval)
        self.tick(name)

    def read(self, name: str, number: int) -> Output:
        return self.step(name, events.ReadRequested(number))
