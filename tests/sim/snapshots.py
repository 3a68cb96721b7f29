"""Snapshots on their way: the image of a state travels in chunks that the receiver asks for, over links that lose them.

Both sides repeat what is not answered and give up after a while; the core is told `SnapshotSent` when the receiver has
everything, `SnapshotFailed` when it is given up.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from coordd.messages.peer import InstallSnapshot, SnapshotChunk, SnapshotCredit
from coordd.raft.events import SnapshotFailed, SnapshotReceived, SnapshotSent
from coordd.raft.output import SendSnapshot
from coordd.state.machine import Machine
from coordd.storage.writer import ChainFound, FindChain
from coordd.types import Index, ServerId, SnapshotMeta, Term
from tests.sim.machine import Image, WatchedMachine

if TYPE_CHECKING:
    from tests.sim.server import Server

__all__ = ["Snapshots"]

REPEAT = 0.1
"""Seconds without an answer until a word is said again."""
PATIENCE = 20
"""Repetitions without progress until a transfer is given up."""


@dataclass
class _Sending:
    peer: ServerId
    session: int
    term: Term
    snapshot: SnapshotMeta
    content: bytes
    silence: int = 0
    started: bool = False
    """The receiver has asked for a chunk."""


@dataclass
class _Receiving:
    leader: ServerId
    session: int
    term: Term
    snapshot: SnapshotMeta
    content: bytearray
    silence: int = 0


class Snapshots:
    """All transfers of one life of a server."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._sending: dict[ServerId, _Sending] = {}
        self._receiving: _Receiving | None = None
        self._wanted: dict[Index, list[_Sending]] = {}
        """Built, but for the checksum of the log there."""
        self._adopted = ""

    @property
    def busy(self) -> bool:
        """Something is being sent: the log behind it must stay."""
        return bool(self._sending or self._wanted)

    # --- sender ------------------------------------------------------------------------------------------------------

    def send(self, order: SendSnapshot, now: float) -> None:
        """Build it from the state as it is; its chained checksum comes from the log."""
        server = self._server
        machine = server.node.machine
        assert isinstance(machine, WatchedMachine)
        if machine.applied < order.at_least or machine.configuration is None:
            self._outcome(server.node.snapshot_sent, SnapshotFailed(order.peer, order.session))
            return
        content = machine.image().content
        digest = hashlib.sha256(content).hexdigest()
        at, configuration = machine.configuration_index, machine.configuration
        meta = SnapshotMeta(machine.applied, machine.applied_term, 0, configuration, at, len(content), digest)
        self._wanted.setdefault(machine.applied, []).append(
            _Sending(order.peer, order.session, order.term, meta, content)
        )
        server.writer.submit(FindChain(machine.applied))

    def _outcome(self, tell: Callable[..., None], event: object) -> None:
        """Not in the middle of the step that asked."""
        server = self._server
        server.act(server.life, lambda: tell(event, server.now()))

    def chain_found(self, found: ChainFound) -> None:
        for sending in self._wanted.pop(found.index, []):
            if found.chain is None:
                self._outcome(self._server.node.snapshot_sent, SnapshotFailed(sending.peer, sending.session))
                continue
            sending.snapshot = msgspec.structs.replace(sending.snapshot, chain=found.chain)
            self._sending[sending.peer] = sending
            self._server.around.counts["snapshots sent"] += 1
            self._announce(sending)

    def stop(self, peer: ServerId) -> None:
        self._sending.pop(peer, None)

    def _announce(self, sending: _Sending) -> None:
        """Say it until the receiver asks for more, or seems to be gone."""
        server = self._server
        if self._sending.get(sending.peer) is not sending:
            return
        sending.silence += 1
        if sending.silence > PATIENCE:
            del self._sending[sending.peer]
            self._outcome(server.node.snapshot_sent, SnapshotFailed(sending.peer, sending.session))
            return
        if not sending.started:
            server.send(InstallSnapshot(sending.term, server.id, sending.peer, sending.session, sending.snapshot))
        server.later(REPEAT, self._announce, sending)

    def credited(self, credit: SnapshotCredit) -> None:
        sending = self._sending.get(credit.sender)
        if sending is None or (credit.session, credit.digest) != (sending.session, sending.snapshot.digest):
            return
        sending.silence, sending.started = 0, True
        server = self._server
        if credit.offset >= sending.snapshot.size:
            del self._sending[credit.sender]
            sent = SnapshotSent(credit.sender, sending.session, sending.snapshot.index)
            self._outcome(server.node.snapshot_sent, sent)
            return
        data = sending.content[credit.offset : credit.offset + credit.window]
        server.send(
            SnapshotChunk(
                sending.term, server.id, credit.sender, sending.session, sending.snapshot, credit.offset, data
            )
        )

    # --- receiver ----------------------------------------------------------------------------------------------------

    def expect(self, leader: ServerId, session: int, term: Term, snapshot: SnapshotMeta, now: float) -> None:
        known = self._receiving
        if known is not None and (known.session, known.snapshot.digest) == (session, snapshot.digest):
            return
        self._receiving = _Receiving(leader, session, term, snapshot, bytearray())
        self._ask(self._receiving, 0)

    def _ask(self, receiving: _Receiving, length: int) -> None:
        """Ask for what comes next, again and again while nothing comes."""
        if self._receiving is not receiving:
            return
        if len(receiving.content) != length:
            receiving.silence = 0
        receiving.silence += 1
        if receiving.silence > PATIENCE:
            self._receiving = None
            return
        self._credit(receiving)
        self._server.later(REPEAT, self._ask, receiving, len(receiving.content))

    def _credit(self, receiving: _Receiving) -> None:
        server = self._server
        server.send(
            SnapshotCredit(
                receiving.term,
                server.id,
                receiving.leader,
                receiving.session,
                receiving.snapshot.digest,
                len(receiving.content),
                server.around.tuning.chunk_bytes,
            )
        )

    def chunk(self, chunk: SnapshotChunk) -> None:
        receiving = self._receiving
        if receiving is None or (chunk.session, chunk.snapshot) != (receiving.session, receiving.snapshot):
            return
        if chunk.offset != len(receiving.content):
            return
        receiving.content += chunk.data
        self._credit(receiving)
        if len(receiving.content) < receiving.snapshot.size:
            return
        self._receiving = None
        content = bytes(receiving.content)
        assert hashlib.sha256(content).hexdigest() == receiving.snapshot.digest
        server = self._server
        self._adopted = f"snapshot-{receiving.snapshot.index}-{server.life}-{server.around.schedule.events}"
        server.images[self._adopted] = Image(receiving.snapshot.index, receiving.snapshot.term, content)
        received = SnapshotReceived(receiving.term, receiving.leader, receiving.session, receiving.snapshot)
        self._outcome(server.node.snapshot_received, received)

    def adopt(self, snapshot: SnapshotMeta) -> str:
        """The file lies on the disk already; the log will name it."""
        return self._adopted

    def set_aside(self, state_file: str) -> None:
        self._server.images.pop(state_file, None)

    def open(self, state_file: str) -> Machine:
        """The files of the state before go."""
        images = self._server.images
        for name in [name for name in images if name != state_file]:
            del images[name]
        return self._server.machine_from(images[state_file])
