"""Compaction and snapshots as the core sees them (thesis 5): positions only; the bytes are the driver's business.

Leader: a follower that needs what is compacted is sent a snapshot, and appends to it pause. Follower: a snapshot that
holds nothing new, or only what the log has anyhow, is acknowledged without being taken (rule 79). While one is being
installed nothing else touches the log (rule 80).
"""

from coordd.messages.peer import AppendResponse, InstallSnapshot
from coordd.raft.events import (
    Compacted,
    CompactionAsked,
    SnapshotFailed,
    SnapshotInstalled,
    SnapshotReceived,
    SnapshotSent,
)
from coordd.raft.output import SendSnapshot
from coordd.raft.progress import Progress, ProgressState
from coordd.raft.replica import Replica
from coordd.types import Index, ServerId, SnapshotMeta

__all__ = ["asked", "compacted", "failed", "handle_install", "installed", "received", "send", "sent"]


# --- leader -----------------------------------------------------------------------------------------------------------


def send(r: Replica, progress: Progress) -> None:
    progress.await_snapshot()
    r.out.send_snapshot.append(SendSnapshot(progress.peer, progress.session, r.term, r.log.base_index))
    r.fact("snapshot needed", peer=progress.peer, next=progress.next, base=r.log.base_index)


def _awaited(r: Replica, peer: ServerId, session: int) -> Progress | None:
    progress = r.leading.peers.get(peer) if r.leading else None
    if progress is None or progress.session != session or progress.state is not ProgressState.SNAPSHOT:
        return None
    return progress


def sent(r: Replica, event: SnapshotSent) -> None:
    """The follower has the file. Its acknowledgement may be lost, so a probe behind the snapshot asks for it."""
    progress = _awaited(r, event.peer, event.session)
    if progress is not None:
        progress.probe()
        progress.next = max(progress.match, min(event.index, r.log.last)) + 1
        progress.probe_sent = True


def failed(r: Replica, event: SnapshotFailed) -> None:
    """Try again when the follower shows life: with its next heartbeat answer (rule 82)."""
    progress = _awaited(r, event.peer, event.session)
    if progress is not None:
        progress.probe()
        progress.probe_sent = True


# --- follower ---------------------------------------------------------------------------------------------------------


def handle_install(r: Replica, message: InstallSnapshot, now: float) -> None:
    r.hear_leader(message.sender, now)
    if not r.installing and not _superfluous(r, message.snapshot, message.sender, message.session):
        r.out.expect_snapshot = (message.sender, message.session, message.term, message.snapshot)


def received(r: Replica, event: SnapshotReceived) -> None:
    """The file is complete. The log may have moved on meanwhile. The leader's term does not matter: what a snapshot
    holds is committed."""
    if r.installing or r.leading is not None or _superfluous(r, event.snapshot, event.leader, event.session):
        return
    r.installing = True
    r.install_for = (event.leader, event.session)
    r.out.install_snapshot = event.snapshot
    r.fact("snapshot", index=event.snapshot.index)


def _superfluous(r: Replica, snapshot: SnapshotMeta, leader: ServerId, session: int) -> bool:
    if snapshot.index > r.log.commit:
        if r.log.term(snapshot.index) != snapshot.term:
            return False
        r.log.commit = snapshot.index  # the log has it all: keep the entries behind it
    _acknowledge(r, leader, session, r.log.commit)
    return True


def installed(r: Replica, event: SnapshotInstalled) -> None:
    """Log and state start from the snapshot now; membership too, whatever the old log said (rule 73)."""
    snapshot = event.snapshot
    r.log.reset(snapshot.index, snapshot.term)
    r.reported = snapshot.index
    r.configurations = [(snapshot.configuration_index, snapshot.configuration)]
    r.configurations_moved()
    r.installing = r.stateless = False
    r.refilled()
    if r.install_for is not None:
        _acknowledge(r, *r.install_for, snapshot.index)
    r.install_for = None
    r.fact("snapshot installed", index=snapshot.index)


def _acknowledge(r: Replica, leader: ServerId, session: int, index: Index) -> None:
    """Only to the leader of this term: an answer under a newer term would depose another."""
    if leader == r.leader:
        r.send_after_persist(
            AppendResponse(r.term, r.me, leader, session, r.boot, index, refilling=r.log.last < r.promised)
        )


# --- compaction -------------------------------------------------------------------------------------------------------


def asked(r: Replica, event: CompactionAsked) -> None:
    """Only what is applied and durable may go (rule 10)."""
    safe = min(event.index, r.log.applied, r.log.durable)
    if safe > r.log.base_index and not r.installing:
        r.out.compact = safe


def compacted(r: Replica, event: Compacted) -> None:
    base = event.base
    if base.index <= r.log.base_index:
        return  # a snapshot was installed meanwhile
    at, _ = r.configuration_at(base.index)
    r.configurations = [pair for pair in r.configurations if pair[0] >= at]
    r.log.compacted(base.index, base.term)
