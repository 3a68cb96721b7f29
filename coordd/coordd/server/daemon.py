"""One server process: everything put together, and the loop that turns it.

One thread does all that decides; others only wait for disks (the log writer, a helper) or check keys (the gate). They tell the
loop over a wake-up, so that the poller is the only place that waits. A turn: peers, writer, clients, one proposal for all that
came, apply, answers, views; each slice is bounded, so that a heartbeat is never late because of a busy client.
"""

import os
import random
import time
from contextlib import suppress

import msgspec

from coordd.errors import DamagedError, DiskFullError
from coordd.log_output import Log
from coordd.messages import levels as features
from coordd.messages.peer import Hello
from coordd.raft.core import Raft
from coordd.raft.output import Fact
from coordd.raft.settings import RaftSettings as CoreSettings
from coordd.server.beats import BeatRelay
from coordd.server.belonging import require_listed_key, require_membership
from coordd.server.client_side import ClientAnswers, ClientSide
from coordd.server.founding import Founding
from coordd.server.greetings import Greetings
from coordd.server.helper import Helper
from coordd.server.levels import Levels
from coordd.server.links import PeerLinks
from coordd.server.log_reader import LogReader
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.operator import Operator
from coordd.server.peer_side import PeerSide
from coordd.server.refill import others_of
from coordd.server.roster import Contact, Roster
from coordd.server.settings import MIB, ServerSettings
from coordd.server.snapshots import Snapshots
from coordd.server.state_care import StateCare
from coordd.server.terms import LeaderDuties
from coordd.state.machine import Machine, examine
from coordd.storage.identity import Identity
from coordd.storage.log_store import LogStore
from coordd.storage.pace import Pace
from coordd.storage.recovery import Recovered
from coordd.storage.snapshot_store import SnapshotStore
from coordd.storage.writer import ChainFound, LogRead, LogWriter, WriterFailed
from coordd.transport.clients import ClientSocket, Poller, Wakeup, close_context, open_context
from coordd.transport.peers import PeerSockets
from coordd.transport.security import Gate, load_key_file

__all__ = ["Daemon", "clock"]

_APPLY_ENTRIES = 512
_OFTEN_SECONDS = 0.1
_LONGEST_SLEEP = 0.1
_PUSH_SECONDS = 0.002
"""Pause between two looks at a snapshot connection that has no room."""
_HANDOVER_SECONDS = 1.5


def clock() -> float:
    """Monotonic seconds that count suspend: a lease must run out while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Daemon:
    """Made by the constructor, which opens everything in an order in which a refusal leaves no trace; then `run`.

    Raises: ConfigError, StorageError, InUseError, TransportError, UnsupportedError.
    """

    def __init__(self, settings: ServerSettings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._state_damage = ""
        """What is wrong with the state file; it is then replaced."""
        self._pair = load_key_file(settings.key_file)
        require_listed_key(settings, self._pair.public)
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
                approve=self._approve,
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

    def _approve(self, identity: Identity, recovered: Recovered) -> None:
        """Before the first change to a used folder: it is ours, and its state is whole."""
        require_membership(self._settings, identity.server, self._pair.public, recovered.newest_configuration)
        if recovered.base.state_file:
            try:
                examine(str(self._settings.data_dir / recovered.base.state_file))
            except DamagedError as error:
                if not others_of(recovered.newest_configuration, identity.server):
                    raise
                self._state_damage = str(error)

    # --- putting it together ------------------------------------------------------------------------------------------

    def _assemble(self) -> None:
        settings, identity = self._settings, self._store.identity
        self._me = identity.server
        self._files = SnapshotStore(settings.data_dir, Pace(settings.raft.snapshot_mib_per_s * MIB))
        recovered = self._recover()
        if self._state_damage:
            self._log.error("state damaged", reason=self._state_damage, advice="it is fetched from another server")
            self._files.set_aside(recovered.base.state_file)
        self._files.remove_all_but({recovered.base.state_file})
        machine = self._open_state(self._files.state_path(recovered.base))
        self._observed = Observed()
        moved = {member.name: (member.raft_address, member.client_address) for member in settings.moved}
        for name, (raft, _) in moved.items():
            self._log.warning(
                "reached elsewhere", server=name, raft=raft, advice="move-peer, then remove it from [[moved]]"
            )
        self._roster = Roster(self._pair.public, _contacts(settings), moved)
        self._links = PeerLinks(self._peer_sockets, self._gate, self._roster, self._observed)
        self._links.cluster_id = identity.cluster_id
        self._wakeup = Wakeup()
        self._helper = Helper("helper", self._wakeup.wake)
        self._writer = LogWriter(self._store, self._wakeup.wake, clock)
        self._snapshots = self._make_snapshots()
        self._node = Node(
            raft=Raft(_core_settings(settings), random.SystemRandom()),
            writer=self._writer,
            links=self._links,
            snapshots=self._snapshots,
            machine=machine,
            observed=self._observed,
            clock=clock,
        )
        self._assemble_sides()
        self._node.on_reads = self._clients.reads.told
        self._node.on_configuration = self._peers.configuration_changed
        self._node.on_leadership = self._clients.leadership_changed
        self._node.on_fact = self._fact
        self._node.on_machine = self._clients.machine_replaced
        self._often_at = 0.0
        self._access_judged = False
        self._stopping_since: float | None = None
        self._node.start(self._me, identity.boot, recovered, clock())
        self._operator.founding_asked = settings.bootstrap and self._node.configuration is None
        self._links.follow_roster()

    def _recover(self) -> Recovered:
        """What the storage remembers; a new server's state file gets its name first."""
        recovered = self._store.recover()
        if recovered.base.state_file:
            return recovered
        named = msgspec.structs.replace(recovered.base, state_file=self._files.new_name(0))
        return msgspec.structs.replace(recovered, base=self._store.set_base(named))

    def _open_state(self, path: str) -> Machine:
        return Machine.open(path, examined=True, cache_mib=self._settings.storage.state_cache_mib)

    def _make_snapshots(self) -> Snapshots:
        return Snapshots(
            me=self._me,
            store=self._files,
            helper=self._helper,
            links=self._links,
            submit=self._writer.submit,
            state_file=lambda: self._node.state_file,
            doubt=lambda: self._care.scrubbing.now(),
            chunk_bytes=self._settings.raft.snapshot_chunk_bytes,
            credits=self._settings.raft.snapshot_credits,
            receivers=self._settings.raft.snapshot_receivers,
            report=self._report,
            clock=clock,
            open_state=self._open_state,
        )

    def _assemble_sides(self) -> None:
        settings, node = self._settings, self._node
        answers = ClientAnswers(self._client_socket)
        boot = self._store.identity.boot
        hello = Hello(settings.name, self._me, boot, settings.cluster_name, "", 0, level=features.SUPPORTED)
        self._levels = Levels(node)
        founding = Founding(hello)
        duties = self._make_duties()
        beats = BeatRelay(node, duties, self._links.send, clock)
        self._log_reader = LogReader(node=node, answers=answers, submit=self._writer.submit, wall=time.time)
        self._operator = Operator(
            node=node,
            answers=answers,
            roster=self._roster,
            founding=founding,
            levels=self._levels,
            observed=self._observed,
            log=self._log_reader,
            roster_changed=self._links.follow_roster,
            cluster=lambda: (self._links.cluster_id, settings.cluster_name),
            figures=self._figures,
        )
        self._clients = ClientSide(
            socket=self._client_socket,
            answers=answers,
            node=node,
            operator=self._operator,
            beats=beats,
            duties=duties,
            levels=self._levels,
            settings=settings,
        )
        self._greetings = self._make_greetings(hello, founding)
        self._care = self._make_care()
        self._peers = PeerSide(
            me=self._me,
            node=node,
            links=self._links,
            roster=self._roster,
            greetings=self._greetings,
            snapshots=self._snapshots,
            care=self._care,
            beats=beats,
            observed=self._observed,
            store=self._store,
            log=self._log,
        )

    def _make_duties(self) -> LeaderDuties:
        clients = self._settings.clients
        return LeaderDuties(
            node=self._node,
            levels=self._levels,
            propose=lambda command, now: self._clients.api.propose(command, now),
            client_expiry=clients.expiry_s,
            beat_interval=clients.beat_interval_ms / 1000,
            beat_timeout=clients.beat_timeout_ms / 1000,
            reap_after=clients.reap_after_s,
        )

    def _make_greetings(self, hello: Hello, founding: Founding) -> Greetings:
        return Greetings(
            me=hello,
            node=self._node,
            links=self._links,
            roster=self._roster,
            founding=founding,
            levels=self._levels,
            operator=self._operator,
            join=self._settings.join,
            context=self._context,
            log=self._log,
        )

    def _make_care(self) -> StateCare:
        return StateCare(
            me=self._me,
            node=self._node,
            helper=self._helper,
            store=self._files,
            settings=self._settings,
            snapshots_busy=lambda: self._snapshots.busy,
            send=self._links.send,
            observed=self._observed,
            log=self._log,
            clock=clock,
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
        while not self._finished():
            # What is not taken in must not wake the loop either.
            (poller.unregister if self._clients.full else poller.register)(self._client_socket)
            poller.poll(self._sleep())
            self._wakeup.clear()
            self._turn()

    def stop(self) -> None:
        """Hand leadership over, then let `run` return. From a signal handler."""
        if self._stopping_since is None:
            self._stopping_since = clock()
        self._wakeup.wake()

    def close(self) -> None:
        """After `run`: make the state durable and close everything. Raises: StorageError."""
        self._greetings.close()
        self._care.close()
        self._files.pace.stop()
        self._helper.close()
        try:
            if not self._writer.close():
                self._log.error("the log writer hangs: its disk does not answer")
            for completion in self._writer.completions():
                if isinstance(completion, WriterFailed):
                    raise completion.error
            with suppress(DiskFullError):  # the log has it all
                self._node.machine.checkpoint()
            self._node.machine.close()
            self._snapshots.close()
        finally:
            self._close_sockets()

    def _sleep(self) -> float:
        if self._node.behind or self._clients.watches.due:
            return 0.0
        now = clock()
        due = min(self._node.next_deadline, self._often_at, self._care.next_at, now + _LONGEST_SLEEP)
        if self._snapshots.pushing:
            due = min(due, now + max(_PUSH_SECONDS, self._snapshots.push_pause(now)))
        return max(0.0, due - now)

    def _turn(self) -> None:
        late = max(0.0, clock() - self._node.next_deadline)
        self._observed.tick_late_ms_max = max(self._observed.tick_late_ms_max, late * 1000)
        self._peers.take_in(clock)
        self._helper.turn()
        self._take_completions()
        self._clients.take_in(clock)
        now = clock()
        if now >= self._node.next_deadline:
            self._node.tick(now)
        self._apply(now)
        self._clients.publish(now)
        self._peers.pass_snapshots(now)
        self._care.turn(now)
        if now >= self._often_at:
            self._often_at = now + _OFTEN_SECONDS
            self._clients.tick(now)
            self._peers.tick(now)
            self._care.tick(now)
            if not self._access_judged:
                self._judge_access()

    def _judge_access(self) -> None:
        """One warning if everything is allowed; not before the state says so: a new server's is empty."""
        replica = self._node.raft.replica
        if replica.leader is None or self._node.machine.applied < max(1, replica.log.commit):
            return
        self._access_judged = True
        if not self._node.machine.acl_enabled:
            self._log.warning("access control is off: everything is allowed until `coordctl acl bootstrap`")

    def _take_completions(self) -> None:
        for completion in self._writer.completions():
            if isinstance(completion, ChainFound):
                self._snapshots.chain_found(completion)
            elif not (isinstance(completion, LogRead) and self._log_reader.taken(completion)):
                self._node.completed(completion, clock())

    def _apply(self, now: float) -> None:
        batch = self._node.apply_some(self._care.entries_at_once(_APPLY_ENTRIES), now)
        if batch is not None:
            self._observed.commands_applied += len(batch.applied)
            self._clients.applied(batch)
            self._care.applied(batch, now)

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

    # --- what is told ------------------------------------------------------------------------------------------------

    def _fact(self, fact: Fact) -> None:
        quiet = fact.name in ("rejected", "pre-candidate", "founded")  # the last is told with more, by who did it
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
            "election_timeout_ms": self._node.raft.replica.election_timeout * 1000,
            "pending_writes": len(self._clients.proposals),
            "watches": len(self._clients.watches),
            "checkpoints": self._care.checkpoints,
            "snapshots_built": self._snapshots.built,
            "snapshot_send_seconds": self._snapshots.send_seconds,
            "snapshot_receive_seconds": self._snapshots.receive_seconds,
            "snapshot_install_seconds": self._snapshots.install_seconds,
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
        max_election_timeout=raft.election_most_ms / 1000,
        lease_duration=0.8 * election,
        priority=raft.priority,
        priority_hold=raft.priority_hold_ms / 1000,
        max_append_bytes=raft.max_append_bytes,
        max_inflight_messages=raft.max_inflight_messages,
        max_inflight_bytes=raft.max_inflight_bytes,
        max_uncommitted_bytes=raft.max_uncommitted_bytes,
        memory_tail_bytes=raft.memory_tail_bytes,
    )
