"""Snapshots on their way: the image of a state travels in chunks that the receiver asks for, over links that lose them.

Both sides repeat what is not answered and give up after a while; the core is told `SnapshotSent` when the receiver has
everything, `SnapshotFailed` when it is given up.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordd.messages.peer import InstallSnapshot, SnapshotChunk, SnapshotCredit
from coordd.raft.events import SnapshotFailed, SnapshotReceived, SnapshotSent
from coordd.raft.output import SendSnapshot
from coordd.types import ServerId, SnapshotMeta, Term
from tests.sim.state import image_of

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
        self._received: tuple[SnapshotMeta, bytes] | None = None

    # --- sender ------------------------------------------------------------------------------------------------------

    def send(self, wanted: SendSnapshot) -> None:
        server = self._server
        machine = server.machine
        if machine.applied < wanted.at_least or machine.configuration is None:
            server.step(SnapshotFailed(wanted.peer, wanted.session))
            return
        image = image_of(machine)
        chain = server.disk.chain(machine.applied)
        if chain is None:  # not in the log yet, or no more
            server.step(SnapshotFailed(wanted.peer, wanted.session))
            return
        snapshot = SnapshotMeta(
            machine.applied,
            machine.applied_term,
            chain,
            machine.configuration,
            machine.configuration_index,
            len(image.content),
            hashlib.sha256(image.content).hexdigest(),
        )
        server.around.counts["snapshots sent"] += 1
        sending = _Sending(wanted.peer, wanted.session, wanted.term, snapshot, image.content)
        self._sending[wanted.peer] = sending
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
            server.step(SnapshotFailed(sending.peer, sending.session))
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
            server.step(SnapshotSent(credit.sender, sending.session, sending.snapshot.index))
            return
        data = sending.content[credit.offset : credit.offset + credit.window]
        server.send(
            SnapshotChunk(
                sending.term, server.id, credit.sender, sending.session, sending.snapshot, credit.offset, data
            )
        )

    # --- receiver ----------------------------------------------------------------------------------------------------

    def expect(self, leader: ServerId, session: int, term: Term, snapshot: SnapshotMeta) -> None:
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
        self._received = (receiving.snapshot, content)
        self._server.step(SnapshotReceived(receiving.term, receiving.leader, receiving.session, receiving.snapshot))

    def content(self, snapshot: SnapshotMeta) -> bytes:
        """The received file that is to be installed."""
        assert self._received is not None
        assert self._received[0] == snapshot
        return self._received[1]
