"""One server process: everything put together, and the loop that turns it.

One thread does all that decides; others only wait for disks (the log writer, a helper) or check keys (the gate). They tell the
loop over a wake-up, so that the poller is the only place that waits. A turn: peers, writer, clients, one proposal for all that
came, apply, answers, views; each slice is bounded, so that a heartbeat is never late because of a busy client.
"""

import os
import random
import time

import msgspec

from coordd.messages.client import Reply as WireReply
from coordd.messages.client import ReplyBody
from coordd.messages.codec import encode_reply
from coordd.messages.command import Command
from coordd.messages.peer import Beats, Hello, PeerMessage, SnapshotChunk, SnapshotCredit
from coordd.raft.core import Raft
from coordd.raft.events import SnapshotReceived
from coordd.raft.output import Fact
from coordd.raft.settings import RaftSettings as CoreSettings
from coordd.server.api import Api
from coordd.server.founding import Founding
from coordd.server.greetings import Greetings
from coordd.server.helper import Helper
from coordd.server.links import PeerLinks
from coordd.server.log_output import Log
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.operator import Operator
from coordd.server.proposals import Proposals
from coordd.server.reads import Reads
from coordd.server.roster import Contact, Roster
from coordd.server.settings import ServerSettings
from coordd.server.snapshots import Snapshots
from coordd.server.terms import LeaderDuties
from coordd.server.upkeep import Upkeep
from coordd.server.waiting import Waiter
from coordd.server.watches import Watches
from coordd.state.machine import Machine
from coordd.state.topics import Topic
from coordd.storage.log_store import LogStore
from coordd.storage.snapshot_store import SnapshotStore
from coordd.storage.writer import ChainFound, LogRead, LogWriter
from coordd.transport.clients import ClientSocket, Poller, Wakeup, close_context, open_context
from coordd.transport.peers import PeerSockets
from coordd.transport.security import Gate, load_key_file
from coordd.types import Member

__all__ = ["Daemon", "clock"]

_PEER_MESSAGES, _PEER_BYTES = 256, 4 * 1024 * 1024
_CLIENT_MESSAGES, _CLIENT_BYTES = 256, 1024 * 1024
_APPLY_ENTRIES = 512
_OFTEN_SECONDS = 0.1
_LONGEST_SLEEP = 0.1
_PUSH_SECONDS = 0.002
"""Pause between two looks at a snapshot connection that has no room."""
_HANDOVER_SECONDS = 1.5


def clock() -> float:
    """Monotonic seconds that count suspend: a lease must run out while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClientAnswers:
    """`server.waiting.Answers` over the client socket."""

    def __init__(self, socket: ClientSocket) -> None:
        self._socket = socket

    def answer(self, waiter: Waiter, body: ReplyBody) -> bool:
        return self._socket.send(waiter.connection, encode_reply(WireReply(waiter.request, body)))


class Daemon:
    """Made by the constructor, which opens everything in an order in which a refusal leaves no trace; then `run`.

    Raises: ConfigError, StorageError, InUseError, TransportError.
    """

    def __init__(self, settings: ServerSettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._pair = load_key_file(settings.key_file)
        self._context = open_context()
        try:
            self._gate = Gate(self._context, self._key_refused)
            self._gate.accept(contact.public_key for contact in _contacts(settings))
            self._peer_sockets = PeerSockets(self._context, self._pair, settings.raft_address, self._gate)
            self._client_socket = ClientSocket.on_network(
                self._context, self._pair, settings.client_address, self._gate
            )
            self._store = LogStore.open(
                settings.data_dir,
                settings.name,
                tail_bytes=settings.raft.memory_tail_bytes,
                wal_limit=settings.storage.wal_limit_bytes,
            )
        except BaseException:
            self._close_sockets()
            raise
        try:
            self._assemble()
        except BaseException:
            self._store.abandon()
            self._close_sockets()
            raise

    # --- putting it together ------------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        settings, store = self._settings, self._store
        identity = store.identity
        self._me = identity.server
        recovered = store.recover()
        self._files = SnapshotStore(settings.data_dir)
        if not recovered.base.state_file:
            named = msgspec.structs.replace(recovered.base, state_file=self._files.new_name(0))
            recovered = msgspec.structs.replace(recovered, base=store.set_base(named))
        state_file = recovered.base.state_file
        self._files.remove_all_but({state_file})
        machine = Machine.open(str(self._files.path(state_file)))

        self._observed = Observed()
        self._roster = Roster(self._pair.public, _contacts(settings))
        self._links = PeerLinks(self._peer_sockets, self._gate, self._roster, self._observed)
        self._links.cluster_id = identity.cluster_id
        self._wakeup = Wakeup()
        self._helper = Helper("helper", self._wakeup.wake)
        self._writer = LogWriter(store, self._wakeup.wake, clock)
        self._snapshots = Snapshots(
            me=self._me,
            store=self._files,
            helper=self._helper,
            links=self._links,
            submit=self._writer.submit,
            state_file=lambda: self._node.state_file,
            chunk_bytes=settings.raft.snapshot_chunk_bytes,
            credits=settings.raft.snapshot_credits,
            report=self._report,
        )
        self._node = Node(
            raft=Raft(_core_settings(settings), random.SystemRandom()),
            writer=self._writer,
            links=self._links,
            snapshots=self._snapshots,
            machine=machine,
            observed=self._observed,
            clock=clock,
        )
        self._assemble_clients(clock())
        self._node.on_reads = self._reads.told
        self._node.on_configuration = self._configuration_changed
        self._node.on_leadership = self._leadership_changed
        self._node.on_fact = self._fact
        self._node.on_machine = self._machine_replaced
        self._changes: set[Topic] = set()
        self._beats: set[str] = set()
        self._often_at = 0.0
        self._stopping_since: float | None = None
        self._strangers: set[str] = set()
        self._was_leading = False
        self._member = False
        self._node.start(self._me, identity.boot, recovered, clock())
        self._operator.founding_asked = settings.bootstrap and self._node.configuration is None
        self._links.follow_roster()

    def _assemble_clients(self, now: float) -> None:
        """What answers clients."""
        settings, node = self._settings, self._node
        answers = ClientAnswers(self._client_socket)
        hello = Hello(settings.name, self._me, self._store.identity.boot, settings.cluster_name, "", 0)
        founding = Founding(hello, self._pair.public)
        self._proposals = Proposals(answers, settings.limits.pending_writes)
        self._watches = Watches(
            settings.limits.watches, settings.limits.watch_idle_ms / 1000, lambda query: node.machine.topics(query)
        )
        self._reads = Reads(
            node=node,
            answers=answers,
            watches=self._watches,
            limit=settings.limits.pending_reads,
            longest_wait=settings.limits.watch_wait_ms / 1000,
        )
        self._duties = LeaderDuties(
            node=node,
            propose=self._propose_own,
            client_expiry=settings.clients.expiry_s,
            beat_interval=settings.clients.beat_interval_ms / 1000,
            beat_timeout=settings.clients.beat_timeout_ms / 1000,
            reap_after=settings.clients.reap_after_s,
        )
        self._operator = Operator(
            node=node,
            answers=answers,
            roster=self._roster,
            founding=founding,
            observed=self._observed,
            submit=self._writer.submit,
            roster_changed=self._links.follow_roster,
            cluster=lambda: (self._links.cluster_id, settings.cluster_name),
            figures=self._figures,
        )
        self._api = Api(
            node=node,
            answers=answers,
            proposals=self._proposals,
            reads=self._reads,
            watches=self._watches,
            duties=self._duties,
            operator=self._operator,
            beats=self._beat,
            wall=time.time,
        )
        self._greetings = Greetings(
            me=hello,
            node=node,
            links=self._links,
            roster=self._roster,
            founding=founding,
            operator=self._operator,
            join=settings.join,
            context=self._context,
            log=self._log,
        )
        self._upkeep = Upkeep(
            node=node,
            helper=self._helper,
            store=self._files,
            raft=settings.raft,
            storage=settings.storage,
            snapshots_busy=lambda: self._snapshots.busy,
            report=self._report,
            now=now,
        )

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop` was called and leadership is handed over. Raises: CoorddError if the process must end."""
        poller = Poller()
        for thing in (self._peer_sockets, self._client_socket, self._wakeup):
            poller.register(thing)
        self._log.info(
            "ready",
            server=self._me,
            raft=self._peer_sockets.address,
            client=self._client_socket.address,
            cluster=self._links.cluster_id,
            pid=os.getpid(),
        )
        if not self._node.machine.acl_enabled:
            self._log.warning("access control is off: everything is allowed until `coordctl acl bootstrap`")
        while not self._finished():
            poller.poll(self._sleep())
            self._wakeup.clear()
            self._turn()

    def stop(self) -> None:
        """Hand leadership over, then let `run` return. From a signal handler."""
        if self._stopping_since is None:
            self._stopping_since = clock()
        self._wakeup.wake()

    def close(self) -> None:
        """After `run`: make the state durable and close everything. Harmless when something failed before."""
        self._greetings.close()
        self._helper.close()
        if not self._writer.close():
            self._log.error("the log writer hangs: its disk does not answer")
        self._node.machine.checkpoint()
        self._node.machine.close()
        self._close_sockets()

    def _sleep(self) -> float:
        if self._node.behind or self._watches.due:
            return 0.0
        if self._snapshots.pushing:
            return _PUSH_SECONDS
        now = clock()
        return max(0.0, min(self._node.next_deadline, self._often_at, now + _LONGEST_SLEEP) - now)

    def _turn(self) -> None:
        now = clock()
        self._observed.tick_late_ms_max = max(
            self._observed.tick_late_ms_max, (now - min(now, self._node.next_deadline)) * 1000
        )
        for key, cluster, message in self._links.receive(_PEER_MESSAGES, _PEER_BYTES):
            self._peer_message(key, cluster, message, now)
        self._helper.turn()
        for completion in self._writer.completions():
            if isinstance(completion, ChainFound):
                self._snapshots.chain_found(completion)
            elif not (isinstance(completion, LogRead) and self._operator.log_read(completion)):
                self._node.completed(completion, now)
        if len(self._proposals) < self._settings.limits.pending_writes:
            for connection, frame in self._client_socket.receive(_CLIENT_MESSAGES, _CLIENT_BYTES):
                self._api.handle(connection, frame, now)
        self._propose(now)
        self._reads.turn(now)
        if now >= self._node.next_deadline:
            self._node.tick(now)
        self._apply(now)
        self._duties.turn(self._changes, now, time.time())
        self._watches.changed(self._changes)
        self._changes = set()
        self._reads.turn(now)
        self._snapshot_turn(now)
        if now >= self._often_at:
            self._often(now)

    def _propose(self, now: float) -> None:
        entries = self._proposals.take_batch(now)
        if entries:
            self._proposals.proposed(self._node.propose(entries, now), self._operator.leader_address())

    def _apply(self, now: float) -> None:
        batch = self._node.apply_some(_APPLY_ENTRIES, now)
        if batch is None:
            return
        self._observed.commands_applied += len(batch.applied)
        self._upkeep.applied(batch.size)
        self._changes |= self._node.machine.changes
        self._proposals.applied(batch)

    def _snapshot_turn(self, now: float) -> None:
        self._snapshots.turn(now)
        for outcome in self._snapshots.take_outcomes():
            if isinstance(outcome, SnapshotReceived):
                self._node.snapshot_received(outcome, now)
                self._snapshots.discard_unwanted(self._node.has_state)
            else:
                self._node.snapshot_sent(outcome, now)

    def _often(self, now: float) -> None:
        """What need not happen in every turn."""
        self._often_at = now + _OFTEN_SECONDS
        self._duties.tick(now, time.time())
        self._propose(now)
        self._operator.turn(now)
        self._greetings.turn(now)
        self._proposals.expire(now)
        self._reads.expire(now)
        self._watches.tick(now)
        self._upkeep.turn(now)
        replica = self._node.raft.replica
        others = [m.id for m in self._members() if m.id != self._me]
        self._node.look_at_links(self._links.connected(others), now)
        if self._beats and replica.leader is not None and replica.leader != self._me:
            self._links.send(Beats(self._me, replica.leader, tuple(sorted(self._beats))))
            self._beats.clear()

    def _finished(self) -> bool:
        """After `stop`: once another leads, or nobody can take over, or it has taken too long."""
        if self._stopping_since is None:
            return False
        now = clock()
        leading = self._node.raft.replica.leading
        if leading is None or not leading.peers or now - self._stopping_since > _HANDOVER_SECONDS:
            return True
        if leading.transfer is None:
            self._node.transfer(None, now)
        return False

    # --- what happens -------------------------------------------------------------------------------------------------

    def _peer_message(self, key: str, cluster: str, message: PeerMessage, now: float) -> None:
        if isinstance(message, Hello):
            self._greetings.heard(key, message)
            return
        if not self._links.cluster_id and not self._roster.configured:
            self._links.cluster_id = cluster  # of a server that our own configuration file vouches for
        if cluster != self._links.cluster_id or message.receiver != self._me:
            self._stranger(key, cluster)
            return
        match message:
            case SnapshotChunk():
                self._snapshots.chunk(message)
            case SnapshotCredit():
                self._snapshots.credited(message, now)
            case Beats():
                for node in message.nodes:
                    self._duties.beat(node, now)
            case _:
                self._node.receive(message, now)

    def _stranger(self, key: str, cluster: str) -> None:
        self._observed.dropped += 1
        if key not in self._strangers:
            self._strangers.add(key)
            self._log.warning("message of another cluster or life", server=self._roster.name_of(key), cluster=cluster)

    def _beat(self, node: str) -> None:
        if self._node.leading:
            self._duties.beat(node, clock())
        elif len(self._beats) < self._settings.limits.watches:
            self._beats.add(node)

    def _propose_own(self, command: Command, now: float) -> None:
        self._api.propose(command, now)

    def _members(self) -> tuple[Member, ...]:
        configuration = self._node.configuration
        return configuration.members if configuration else ()

    def _configuration_changed(self) -> None:
        replica = self._node.raft.replica
        committed, _ = replica.configuration_at(replica.log.commit)
        configurations = [configuration for at, configuration in replica.configurations if at >= committed]
        departing = [p.peer for p in replica.leading.peers.values()] if replica.leading else []
        self._roster.follow(configurations, departing)
        if configurations:
            self._links.cluster_id = configurations[-1].cluster_id
            self._store.join(self._links.cluster_id)
            member = configurations[-1].member(self._me) is not None
            if self._member and not member:
                self._log.warning("removed", cluster=self._links.cluster_id, advice="stop this server")
            self._member = member
        self._links.follow_roster()

    def _leadership_changed(self) -> None:
        leading = self._node.leading
        if self._was_leading and not leading:
            self._proposals.leadership_lost()
        self._was_leading = leading

    def _machine_replaced(self) -> None:
        self._watches.wake_all()
        self._changes.clear()

    def _fact(self, fact: Fact) -> None:
        quiet = fact.name in ("rejected", "pre-candidate")
        (self._log.debug if quiet else self._log.info)(fact.name, **fact.values)

    def _report(self, event: str, text: str) -> None:
        self._log.info(event, detail=text)

    def _key_refused(self, domain: str, key: str) -> None:
        self._log.warning("key refused", door=domain, key=key)

    def _figures(self) -> dict[str, str | int | float | bool]:
        return {
            "cluster_id": self._links.cluster_id,
            "cluster_name": self._settings.cluster_name,
            "fdatasyncs": self._writer.fdatasyncs,
            "log_batches": self._writer.batches,
            "fsync_p50_ms": self._writer.latency.quantile(0.5) * 1000,
            "fsync_p99_ms": self._writer.latency.quantile(0.99) * 1000,
            "pending_writes": len(self._proposals),
            "watches": len(self._watches),
            "checkpoints": self._upkeep.checkpoints,
            "snapshots_sent_files": self._snapshots.built,
        }

    def _close_sockets(self) -> None:
        for name in ("_peer_sockets", "_client_socket"):
            if hasattr(self, name):
                getattr(self, name).close()
        if hasattr(self, "_gate"):
            self._gate.close()
        close_context(self._context)


def _contacts(settings: ServerSettings) -> list[Contact]:
    return [Contact(s.name, s.raft_address, s.client_address, s.public_key) for s in settings.servers]


def _core_settings(settings: ServerSettings) -> CoreSettings:
    raft = settings.raft
    election = raft.election_ms / 1000
    return CoreSettings(
        heartbeat_interval=raft.heartbeat_ms / 1000,
        election_timeout=election,
        lease_duration=0.8 * election,
        max_append_bytes=raft.max_append_bytes,
        max_inflight_messages=raft.max_inflight_messages,
        max_inflight_bytes=raft.max_inflight_bytes,
        max_uncommitted_bytes=raft.max_uncommitted_bytes,
        memory_tail_bytes=raft.memory_tail_bytes,
    )
