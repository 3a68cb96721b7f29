"""Snapshots on their way: built from the state file, sent in chunks with credits, received, verified, opened.

Sender: one file serves every follower that needs it. Its rows are compared with their digests, in slices, before anybody
hears of it: a page that has turned over on this disk must not travel. Index, term and configuration are read from the file
produced, the chain from the log. The receiver says how far it has come and how much more may come (a credit), so that a slow
one is never flooded and an interrupted transfer goes on where it stopped; one that has had all of a file and asks again gets
another file. Receiver: takes chunks only of the transfer that its core expects. Nothing here waits: building and
verifying run on a helper thread or in slices.

Limits: one build at a time, one transfer for each follower, to so many of them at once as the settings say, all together
no faster than the store's pace; one incoming transfer. A transfer without progress for `idle_seconds` is given up, sooner
if others wait for its place, and the next one begins; the core asks again when the follower shows life.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from coordd.errors import CoorddError, DamagedError, DiskFullError, StorageError, UnsupportedError
from coordd.messages.peer import InstallSnapshot, SnapshotChunk, SnapshotCredit
from coordd.raft.events import SnapshotFailed, SnapshotReceived, SnapshotSent
from coordd.raft.output import SendSnapshot
from coordd.server.helper import Helper
from coordd.server.links import PeerLinks
from coordd.server.quota import Quota
from coordd.state.machine import Machine
from coordd.state.position import Position, read_position
from coordd.state.scrub import Scrub
from coordd.storage.snapshot_store import Incoming, SnapshotFile, SnapshotStore
from coordd.storage.writer import ChainFound, FindChain, Job
from coordd.types import ServerId, SnapshotMeta, Term

__all__ = ["Snapshots"]

_IDLE_SECONDS = 30.0
_GIVE_WAY_SECONDS = 2.0
"""Likewise while others wait: one who is away must not keep a snapshot from those whose copies a commit needs. It goes on
where it stopped when it comes back."""
_REPEAT_SECONDS = 0.5
"""Without a credit for so long the announcement is repeated."""
_KEEP_SECONDS = 60.0
"""A snapshot that nobody has needed for so long only takes up space."""
_CHECK_SECONDS, _CHECK_PAUSE_SECONDS = 0.0015, 0.01
"""One slice of verifying a file, and the pause until the next."""

Outcome = SnapshotSent | SnapshotFailed | SnapshotReceived


@dataclass(slots=True)
class _Transfer:
    """One follower's."""

    order: SendSnapshot
    began: float
    progress_at: float
    announced_at: float = float("-inf")
    sent: int = 0
    stored: int = 0
    allowed: int = 0


@dataclass(slots=True)
class _Expected:
    leader: ServerId
    session: int
    term: Term
    snapshot: SnapshotMeta
    incoming: Incoming
    began: float
    verifying: bool = False


class Snapshots:
    """`server.node.SnapshotPort`. Outcomes for the core are fetched by `take_outcomes`."""

    def __init__(
        self,
        *,
        me: ServerId,
        store: SnapshotStore,
        helper: Helper,
        links: PeerLinks,
        submit: Callable[[Job], None],
        state_file: Callable[[], str],
        chunk_bytes: int,
        credits: int,
        receivers: int,
        report: Callable[[str, str], None],
        clock: Callable[[], float],
        doubt: Callable[[], None] = lambda: None,
        open_state: Callable[[str], Machine] = Machine.open,
        idle_seconds: float = _IDLE_SECONDS,
        keep_seconds: float = _KEEP_SECONDS,
    ) -> None:
        """`submit` reaches the log writer; `report(event, text)` the log; `doubt` is called if the own state seems damaged.
        `idle_seconds`: a transfer without progress for so long is given up; `keep_seconds`: a file that nobody has needed for
        so long is deleted."""
        self._me = me
        self._store = store
        self._helper = helper
        self._links = links
        self._submit = submit
        self._state_file = state_file
        self._chunk_bytes = chunk_bytes
        self._window = chunk_bytes * credits
        self._receivers = receivers
        self._doubt = doubt
        self._report = report
        self._clock = clock
        self._quota = Quota(store.pace.bytes_per_second, chunk_bytes)
        self._open_state = open_state
        self._idle_seconds = idle_seconds
        self._keep_seconds = keep_seconds
        self._transfers: dict[ServerId, _Transfer] = {}
        """In the order in which they were asked for; the first few are under way, the others wait."""
        self._building = False
        self._file: SnapshotFile | None = None
        self._check: Scrub | None = None
        """Of the file, before it is used."""
        self._check_at = 0.0
        self._position: Position | None = None
        self._snapshot: SnapshotMeta | None = None
        """Ready to be sent."""
        self._delivered: set[ServerId] = set()
        """Who got all of the file. If one of them asks again it could not use it: the file may be damaged, and is made anew."""
        self._needed_at = 0.0
        self._expected: _Expected | None = None
        self._finished: str = ""
        self._outcomes: list[Outcome] = []
        self._adopted_at = 0.0
        self.built = 0
        self.send_seconds = self.receive_seconds = self.install_seconds = 0.0
        """How long the last one took: from the order to the last credit, from the announcement to a verified file, from
        there to an opened state."""

    @property
    def busy(self) -> bool:
        """A snapshot is being built or sent: the log behind it must stay."""
        return self._building or bool(self._transfers)

    @property
    def pushing(self) -> bool:
        """More could be sent: some follower's credit is not used up."""
        snapshot = self._snapshot
        return self._check is not None or (
            snapshot is not None
            and any(transfer.sent < min(transfer.allowed, snapshot.size) for _, transfer in self._under_way())
        )

    def push_pause(self, now: float) -> float:
        """Seconds until the rate allows another piece."""
        return self._quota.pause(now)

    def _under_way(self) -> list[tuple[ServerId, _Transfer]]:
        return list(itertools.islice(self._transfers.items(), self._receivers))

    def take_outcomes(self) -> list[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, order: SendSnapshot, now: float) -> None:
        going = self._transfers.get(order.peer)
        if going is not None and (going.order.session, going.order.term) == (order.session, order.term):
            return
        self._transfers[order.peer] = _Transfer(order, now, now)
        usable = self._snapshot is not None and self._snapshot.index >= order.at_least
        usable = usable and order.peer not in self._delivered
        if not usable and not self._building:
            self._build()

    def stop(self, peer: ServerId) -> None:
        self._transfers.pop(peer, None)

    def _build(self) -> None:
        self._building = True
        self._drop_file()
        for peer, transfer in self._transfers.items():  # what was sent of another file is worth nothing
            self._transfers[peer] = _Transfer(transfer.order, transfer.began, transfer.progress_at)
        source = self._state_file()
        self._helper.run(lambda: self._store.build(source), self._built, self._build_failed)

    def _built(self, file: SnapshotFile) -> None:
        self._file = file
        self._check = Scrub(self._store.path(file.name))

    def _check_some(self, check: Scrub, file: SnapshotFile, now: float) -> None:
        self._check_at = now + _CHECK_PAUSE_SECONDS
        stop = self._clock() + _CHECK_SECONDS
        try:
            fault = check.step(lambda: self._clock() >= stop)
            if fault is None:
                return
            self._check = None
            if fault:
                raise DamagedError(f"the snapshot {file.name} is damaged: {fault}")
            self._position = read_position(self._store.path(file.name))
        except CoorddError as error:
            self._build_failed(error)
            return
        self._submit(FindChain(self._position.applied))

    def chain_found(self, found: ChainFound) -> None:
        """From the log writer: the last thing that was missing."""
        file, position = self._file, self._position
        if file is None or position is None or found.index != position.applied or self._snapshot is not None:
            return
        if found.chain is None:
            self._build_failed(StorageError("the log was cut beyond the snapshot while it was built"))
            return
        self._snapshot = SnapshotMeta(
            index=position.applied,
            term=position.term,
            chain=found.chain,
            configuration=position.configuration,
            configuration_index=position.configuration_index,
            size=file.size,
            digest=file.digest,
        )
        self._building = False
        self.built += 1
        self._report("snapshot built", f"index {position.applied}, {file.size} bytes")

    def _build_failed(self, error: Exception) -> None:
        self._building = False
        self._drop_file()
        self._report("snapshot failed", str(error))
        if isinstance(error, DamagedError):
            self._doubt()
        for peer, transfer in list(self._transfers.items()):
            self._give_up(peer, transfer)

    def _drop_file(self) -> None:
        if self._file is not None:
            self._store.remove(self._file.name)
        if self._check is not None:
            self._check.close()
        self._file = self._position = self._snapshot = self._check = None
        self._delivered.clear()

    def _give_up(self, peer: ServerId, transfer: _Transfer) -> None:
        del self._transfers[peer]
        self._outcomes.append(SnapshotFailed(peer, transfer.order.session))

    def turn(self, now: float) -> None:
        """Once a turn of the loop: verify what was built, send what credits allow."""
        if self._check is not None and self._file is not None and now >= self._check_at:
            self._check_some(self._check, self._file, now)
        if self._snapshot is None or self._file is None:
            return
        if not self._transfers:
            if now - self._needed_at > self._keep_seconds:
                self._drop_file()
            return
        self._needed_at = now
        for transfer in itertools.islice(self._transfers.values(), self._receivers, None):
            transfer.progress_at = now  # it waits for others, not for its follower
        others_wait = len(self._transfers) > self._receivers
        patience = min(self._idle_seconds, _GIVE_WAY_SECONDS) if others_wait else self._idle_seconds
        for peer, transfer in self._under_way():
            if self._snapshot.index < transfer.order.at_least:
                if not self._building:
                    self._build()
                return
            if now - transfer.progress_at > patience:
                self._give_up(peer, transfer)
            else:
                self._push(peer, transfer, self._snapshot, self._file, now)

    def _push(
        self, peer: ServerId, transfer: _Transfer, snapshot: SnapshotMeta, file: SnapshotFile, now: float
    ) -> None:
        order = transfer.order
        if transfer.announced_at < transfer.began or (
            now - max(transfer.announced_at, transfer.progress_at) >= _REPEAT_SECONDS
        ):
            transfer.announced_at = now
            transfer.sent = transfer.stored
            self._links.send(InstallSnapshot(order.term, self._me, peer, order.session, snapshot))
        while transfer.sent < min(transfer.allowed, snapshot.size) and not self._quota.pause(now):
            data = self._store.read_chunk(file.name, transfer.sent, self._chunk_bytes)
            chunk = SnapshotChunk(order.term, self._me, peer, order.session, snapshot, transfer.sent, data)
            if not self._links.send(chunk):
                break
            transfer.sent += len(data)
            self._quota.spent(len(data))

    def credited(self, credit: SnapshotCredit, now: float) -> None:
        """The receiver stored some and allows more."""
        transfer, snapshot = self._transfers.get(credit.sender), self._snapshot
        if transfer is None or snapshot is None or credit.session != transfer.order.session:
            return
        if credit.digest != snapshot.digest:
            return
        if credit.offset > transfer.stored or not transfer.allowed:
            transfer.progress_at = now
        transfer.stored = credit.offset
        transfer.sent = max(transfer.sent, credit.offset)
        transfer.allowed = credit.offset + min(credit.window, self._window)
        if credit.offset >= snapshot.size:
            del self._transfers[credit.sender]
            self._delivered.add(credit.sender)
            self.send_seconds = now - transfer.began
            self._outcomes.append(SnapshotSent(credit.sender, credit.session, snapshot.index))

    # --- receiving ----------------------------------------------------------------------------------------------------

    def expect(self, leader: ServerId, session: int, term: Term, snapshot: SnapshotMeta, now: float) -> None:
        expected = self._expected
        if expected is not None and expected.snapshot.digest == snapshot.digest:
            expected.leader, expected.session, expected.term = leader, session, term
            if not expected.verifying:
                self._credit(expected)
            return
        if expected is not None:
            if expected.verifying:
                return
            expected.incoming.close()
        try:
            self._expected = _Expected(leader, session, term, snapshot, self._store.receive(snapshot), now)
        except DiskFullError as error:
            self._expected = None
            self._report("snapshot failed", str(error))
            return
        self._report("snapshot coming", f"index {snapshot.index}, {snapshot.size} bytes")
        self._credit(self._expected)

    def _credit(self, expected: _Expected) -> None:
        self._links.send(
            SnapshotCredit(
                expected.term,
                self._me,
                expected.leader,
                expected.session,
                expected.snapshot.digest,
                expected.incoming.offset,
                self._window,
            )
        )
        if expected.incoming.complete:
            self._verify(expected)

    def chunk(self, chunk: SnapshotChunk) -> None:
        expected = self._expected
        if expected is None or expected.verifying or chunk.snapshot.digest != expected.snapshot.digest:
            return
        try:
            if expected.incoming.write(chunk.offset, chunk.data):
                self._credit(expected)
        except DiskFullError as error:
            expected.incoming.discard()  # the leader announces it again, and by then there may be space
            self._expected = None
            self._report("snapshot failed", str(error))

    def _verify(self, expected: _Expected) -> None:
        expected.verifying = True

        def verified(name: str | None) -> None:
            self._expected = None
            if name is None:
                self._report("snapshot failed", "what arrived is not what was announced: it is asked for again")
                return
            self._finished = name
            self.receive_seconds = self._clock() - expected.began
            self._outcomes.append(SnapshotReceived(expected.term, expected.leader, expected.session, expected.snapshot))

        def failed(error: Exception) -> None:
            if isinstance(error, UnsupportedError):  # before log and state are replaced by what can't be read
                raise error
            self._expected = None
            self._report("snapshot failed", str(error))

        def verify() -> str | None:
            name = expected.incoming.finish()
            if name is not None:
                read_position(self._store.path(name))
            return name

        self._helper.run(verify, verified, failed)

    def close(self) -> None:
        """Leave what is arriving for the next start."""
        if self._expected is not None:
            self._expected.incoming.close()

    def adopt(self, snapshot: SnapshotMeta) -> str:
        self._adopted_at = self._clock()
        return self._finished

    def open(self, state_file: str, then: Callable[[Machine], None]) -> None:
        """The installed state; the files of the one before go, but not one that is newer still and just being taken over."""

        def opened(machine: Machine) -> None:
            self._drop_file()
            newer = self._expected.incoming.name if self._expected is not None else self._finished
            self._store.remove_all_but({state_file, newer})
            self.install_seconds = self._clock() - self._adopted_at
            then(machine)

        def failed(error: Exception) -> None:
            raise error

        self._helper.run(lambda: self._open_state(str(self._store.path(state_file))), opened, failed)

    def set_aside(self, state_file: str) -> None:
        self._store.set_aside(state_file)

    def discard_unwanted(self, taken: bool) -> None:
        """A received file that did not become the state: it had nothing new."""
        if self._finished and not taken:
            self._store.remove(self._finished)
        self._finished = ""
