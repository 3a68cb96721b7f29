"""A snapshot on its way: two servers' halves of the protocol over a link that loses what it is told to lose."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from coordd.errors import DiskFullError, StorageError, UnsupportedError
from coordd.messages import levels
from coordd.messages.command import RaiseFeatureLevel, encode
from coordd.messages.entry import CommandHeader, encode_command, encode_configuration
from coordd.messages.peer import InstallSnapshot, PeerMessage, SnapshotChunk, SnapshotCredit
from coordd.raft.events import SnapshotFailed, SnapshotReceived, SnapshotSent
from coordd.raft.output import SendSnapshot
from coordd.server import snapshots as module
from coordd.server.snapshots import Snapshots
from coordd.state.machine import Machine
from coordd.storage.pace import Pace
from coordd.storage.snapshot_store import SnapshotStore
from coordd.storage.writer import ChainFound, FindChain, Job
from coordd.types import Configuration
from tests.server.support import member
from tests.server.words import put, sid
from tests.storage.support import scribble

LEADER, FOLLOWER, OTHER = sid("s1"), sid("s2"), sid("s3")
CHUNK = 4096
CHAIN = 77
RAISE = RaiseFeatureLevel(1, 2)


class Bench:
    """Stands for the helper thread: work is done when the test turns it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None], Callable[[Exception], None]]] = []

    def run(self, work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        self.jobs.append((work, then, failed))

    def turn(self) -> None:
        jobs, self.jobs = self.jobs, []
        for work, then, failed in jobs:
            try:
                result = work()
            except (StorageError, UnsupportedError) as error:
                failed(error)
            else:
                then(result)


class Half:
    """One server's `Snapshots`, and what it puts on the link."""

    def __init__(self, folder: Path, me: Any, credits: int, receivers: int, pace: Pace | None) -> None:
        folder.mkdir()
        self.me = me
        self.now = 0.0
        self.files = SnapshotStore(folder, pace)
        self.bench = Bench()
        self.sent: list[PeerMessage] = []
        self.room = 1 << 30
        """Messages that fit into the connection before it is full."""
        self.chains: list[int] = []
        self.chain: int | None = CHAIN
        self.reports: list[str] = []
        self.state_file = self.files.new_name(0)
        self.snapshots = Snapshots(
            me=me,
            store=self.files,
            helper=cast(Any, self.bench),
            links=cast(Any, self),
            submit=self._submit,
            state_file=lambda: self.state_file,
            chunk_bytes=CHUNK,
            credits=credits,
            receivers=receivers,
            clock=lambda: self.now,
            doubt=lambda: self.reports.append("doubt"),
            report=lambda event, text: self.reports.append(f"{event}: {text}"),
        )

    def send(self, message: PeerMessage) -> bool:
        if len(self.sent) >= self.room:
            return False
        self.sent.append(message)
        return True

    def _submit(self, job: Job) -> None:
        assert isinstance(job, FindChain)
        self.chains.append(job.index)

    def open(self, name: str) -> Machine:
        opened: list[Machine] = []
        self.snapshots.open(name, opened.append)
        assert not opened  # the helper does it, not the loop
        self.bench.turn()
        return opened[0]

    def turn(self, now: float) -> None:
        self.now = now
        self.bench.turn()
        chains, self.chains = self.chains, []
        for index in chains:
            self.snapshots.chain_found(ChainFound(index, self.chain))
        self.snapshots.turn(now)


class Way:
    """Leader, follower and the link between them."""

    def __init__(
        self, folder: Path, credits: int = 4, keys: int = 60, receivers: int = 2, pace: Pace | None = None
    ) -> None:
        self.now = 100.0
        self.leader = Half(folder / "leader", LEADER, credits, receivers, pace)
        self.follower = Half(folder / "follower", FOLLOWER, credits, receivers, pace)
        self.machine = Machine.open(str(self.leader.files.path(self.leader.state_file)))
        configuration = Configuration("c1", "test", (member(LEADER), member(FOLLOWER)))
        self.machine.apply(1, [(1, encode_configuration(configuration))])
        self.write(keys)
        self.lose: Callable[[PeerMessage], bool] = lambda message: False
        self.passed: list[PeerMessage] = []
        self.session = 1
        self.done = False
        """The follower's core has the snapshot, and passes no more announcements on."""

    def write(self, count: int) -> None:
        first = self.machine.applied + 1
        self.machine.apply(first, [(1, put(f"k{first + n}", bytes([n % 251]) * 1000)) for n in range(count)])

    def order(self, at_least: int = 1, peer: Any = FOLLOWER) -> None:
        self.leader.snapshots.send(SendSnapshot(peer, self.session, 3, at_least), self.now)

    def step(self, seconds: float = 0.01) -> None:
        """One turn of both, and everything on the link arrives or is lost."""
        self.now += seconds
        for half in (self.leader, self.follower):
            half.turn(self.now)
        for message in self._link(self.leader):
            if isinstance(message, InstallSnapshot) and message.receiver == FOLLOWER and not self.done:
                snapshots = self.follower.snapshots
                snapshots.expect(message.sender, message.session, message.term, message.snapshot, self.now)
            elif isinstance(message, SnapshotChunk) and message.receiver == FOLLOWER:
                self.follower.snapshots.chunk(message)
        for message in self._link(self.follower):
            assert isinstance(message, SnapshotCredit)
            self.leader.snapshots.credited(message, self.now)

    def _link(self, half: Half) -> list[PeerMessage]:
        sent, half.sent = half.sent, []
        arrived = [message for message in sent if not self.lose(message)]
        self.passed += arrived
        return arrived

    def run(self, seconds: float = 60.0, step: float = 0.01) -> tuple[list[Any], list[Any]]:
        """Until both have an outcome, or time is up."""
        sent: list[Any] = []
        received: list[Any] = []
        end = self.now + seconds
        while self.now < end and not (sent and received):
            self.step(step)
            sent += self.leader.snapshots.take_outcomes()
            received += self.follower.snapshots.take_outcomes()
            self.done = bool(received)
        self.done = False
        return sent, received

    def arrived(self) -> Machine:
        """What the follower would open."""
        name = self.follower.snapshots.adopt(cast(Any, None))
        return Machine.open(str(self.follower.files.path(name)))

    def chunks(self) -> list[int]:
        return [message.offset for message in self.passed if isinstance(message, SnapshotChunk)]

    def close(self) -> None:
        self.machine.close()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    way = Way(tmp_path)
    yield way
    way.close()


def check_arrived(way: Way, received: list[Any]) -> None:
    (outcome,) = received
    assert isinstance(outcome, SnapshotReceived)
    assert (outcome.term, outcome.leader, outcome.session) == (3, LEADER, way.session)
    machine = way.arrived()
    assert machine.applied == outcome.snapshot.index
    assert machine.verify()
    assert outcome.snapshot.chain == CHAIN
    machine.close()


def test_it_arrives_whole_and_both_are_told(way: Way) -> None:
    way.order()
    busy = [way.leader.snapshots.busy]
    sent, received = way.run()
    busy.append(way.leader.snapshots.busy)
    check_arrived(way, received)
    assert sent == [SnapshotSent(FOLLOWER, 1, way.machine.applied)]
    assert busy == [True, False]
    assert way.chunks() == sorted(set(way.chunks()))  # no piece came twice
    assert way.arrived().digest == way.machine.digest


def test_a_file_that_was_damaged_behind_its_making_is_made_anew(way: Way) -> None:
    """The receiver finds that its checksum is wrong and asks again; the same file would be as wrong again."""
    way.order()
    way.step()
    [path] = way.leader.files.folder.glob("snapshot-*.db")
    scribble(path, path.stat().st_size // 2)
    sent, received = way.run(5.0)
    assert (len(sent), received) == (1, [])
    assert "snapshot failed" in way.follower.reports[-1]
    way.session = 2
    way.order()
    _, received = way.run(5.0)
    check_arrived(way, received)


def test_index_and_configuration_are_read_from_the_file_that_was_made(way: Way) -> None:
    applied = way.machine.applied
    way.order()
    way.leader.bench.turn()  # built
    way.write(5)
    _, received = way.run()
    snapshot = received[0].snapshot
    assert (snapshot.index, snapshot.configuration_index) == (applied, 1)
    assert snapshot.configuration == way.machine.configuration


def test_no_more_is_under_way_than_the_receiver_allows(way: Way) -> None:
    way.order()
    most = 0
    for _ in range(2000):
        way.step()
        in_one_step = sum(isinstance(message, SnapshotChunk) for message in way.passed)
        way.passed.clear()
        most = max(most, in_one_step)
        if way.leader.snapshots.take_outcomes():
            break
    assert most == 4


def test_a_receiver_that_takes_nothing_is_not_flooded(way: Way) -> None:
    way.lose = lambda message: isinstance(message, SnapshotCredit) and message.offset > 0
    way.order()
    for _ in range(20):
        way.step(0.01)
    assert 0 < len(way.chunks()) <= 4
    assert not way.leader.snapshots.pushing


def test_a_connection_without_room_is_tried_again(way: Way) -> None:
    way.leader.room = 1
    way.order()
    pushing = False
    for _ in range(5):
        way.step()
        pushing = pushing or way.leader.snapshots.pushing
    assert pushing
    check_arrived(way, way.run()[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_lossy_link_costs_time_and_nothing_else(way: Way, seed: int) -> None:
    chance = random.Random(seed)
    print("seed", seed)
    way.lose = lambda message: chance.random() < 0.3
    way.order()
    sent, received = way.run(300.0, 0.05)
    check_arrived(way, received)
    assert sent in (
        [SnapshotSent(FOLLOWER, 1, way.machine.applied)],
        [SnapshotFailed(FOLLOWER, 1)],  # the last credit was lost; the core hears of it by the acknowledgement
    )


def test_an_interrupted_transfer_goes_on_where_it_stopped(way: Way) -> None:
    way.order()
    while len(way.chunks()) < 6:
        way.step()
    way.leader.snapshots.stop(FOLLOWER)
    way.leader.sent.clear()
    stored = way.follower.snapshots._expected.incoming.offset  # type: ignore[union-attr]
    assert stored > 0
    restarted = Half.__new__(Half)
    restarted.__dict__.update(way.follower.__dict__)
    restarted.snapshots = Snapshots(
        me=FOLLOWER,
        store=way.follower.files,
        helper=cast(Any, way.follower.bench),
        links=cast(Any, restarted),
        submit=way.follower._submit,
        state_file=lambda: "",
        chunk_bytes=CHUNK,
        credits=4,
        receivers=2,
        report=lambda event, text: None,
        clock=lambda: way.now,
    )
    way.follower.snapshots._expected.incoming.close()  # type: ignore[union-attr]
    way.follower = restarted
    way.passed.clear()
    way.session = 2
    way.order()
    _, received = way.run()
    check_arrived(way, received)
    assert min(way.chunks()) == stored


def test_what_is_not_what_was_announced_is_thrown_away_and_sent_anew(way: Way) -> None:
    def spoil(message: PeerMessage) -> bool:
        if isinstance(message, SnapshotChunk) and message.offset == 0:
            broken = SnapshotChunk(
                message.term,
                message.sender,
                message.receiver,
                message.session,
                message.snapshot,
                0,
                bytes(len(message.data)),
            )
            way.follower.snapshots.chunk(broken)
            return True
        return False

    way.lose = spoil
    way.order()
    sent, received = way.run(5.0)
    assert received == []
    assert sent == [SnapshotSent(FOLLOWER, 1, way.machine.applied)]
    assert any("not what was announced" in report for report in way.follower.reports)
    assert not list(way.follower.files.folder.glob("incoming-*"))
    way.lose = lambda message: False
    way.session = 2
    way.order()
    check_arrived(way, way.run()[1])
    assert way.leader.snapshots.built == 2  # nothing tells whether the file was right


def test_a_damaged_copy_is_announced_to_nobody_and_raises_doubt(way: Way) -> None:
    way.machine.checkpoint()
    path = way.leader.files.path(way.leader.state_file)
    content = bytearray(path.read_bytes())
    content[content.rindex(bytes([7]) * 500)] ^= 1
    path.write_bytes(content)
    way.order()
    sent, received = way.run(2.0)
    assert (sent, received) == ([SnapshotFailed(FOLLOWER, 1)], [])
    assert not [message for message in way.passed if isinstance(message, InstallSnapshot)]
    assert way.leader.reports[-2].startswith("snapshot failed: the snapshot")
    assert way.leader.reports[-1] == "doubt"
    assert not list(way.leader.files.folder.glob("snapshot-*"))


def test_a_copy_is_verified_in_slices(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends after a moment of the loop's clock."""
    ticks = iter(n * 0.001 for n in range(1_000_000))
    monkeypatch.setattr(way.leader.snapshots, "_clock", lambda: next(ticks))
    way.order()
    way.leader.bench.turn()
    slices = 0
    while way.leader.snapshots._check is not None:
        assert way.leader.snapshots.pushing
        slices += 1
        way.leader.snapshots.turn(way.now + slices)
    assert slices > 20
    monkeypatch.undo()
    check_arrived(way, way.run()[1])


def test_pieces_and_credits_of_other_transfers_count_for_nothing(way: Way) -> None:
    way.order()
    while not way.chunks():
        way.step()
    transfer = way.leader.snapshots._transfers[FOLLOWER]
    stored, allowed = transfer.stored, transfer.allowed
    snapshot = way.leader.snapshots._snapshot
    assert snapshot is not None
    for session, digest, peer in ((9, snapshot.digest, FOLLOWER), (1, "other", FOLLOWER), (1, snapshot.digest, OTHER)):
        way.leader.snapshots.credited(SnapshotCredit(3, peer, LEADER, session, digest, 10**6, 10**6), way.now)
    assert (transfer.stored, transfer.allowed) == (stored, allowed)


def test_a_piece_of_another_file_is_not_taken_for_the_next_one(way: Way) -> None:
    way.order()
    while not way.chunks():
        way.step()
    expected = way.follower.snapshots._expected
    assert expected is not None
    offset = expected.incoming.offset
    other = msgspec.structs.replace(expected.snapshot, digest="other")
    way.follower.snapshots.chunk(SnapshotChunk(3, LEADER, FOLLOWER, 1, other, offset, b"x" * 10))
    assert expected.incoming.offset == offset


def test_a_greedy_credit_opens_no_larger_window(way: Way) -> None:
    way.order()
    while not way.chunks():
        way.step()
    snapshot = way.leader.snapshots._snapshot
    assert snapshot is not None
    way.leader.snapshots.credited(SnapshotCredit(3, FOLLOWER, LEADER, 1, snapshot.digest, 0, 1 << 40), way.now)
    assert way.leader.snapshots._transfers[FOLLOWER].allowed == 4 * CHUNK


def test_without_progress_it_is_given_up(way: Way) -> None:
    way.lose = lambda message: True
    way.order()
    sent, _ = way.run(40.0, 0.25)
    assert sent == [SnapshotFailed(FOLLOWER, 1)]
    assert not way.leader.snapshots.busy


def test_what_cannot_be_built_is_told(way: Way) -> None:
    way.leader.state_file = "state-0-" + "0" * 32 + ".db"
    way.order()
    sent, _ = way.run(1.0)
    assert sent == [SnapshotFailed(FOLLOWER, 1)]
    assert any(report.startswith("snapshot failed") for report in way.leader.reports)


def test_a_log_that_was_cut_meanwhile_makes_it_fail(way: Way) -> None:
    way.leader.chain = None
    way.order()
    sent, _ = way.run(1.0)
    assert sent == [SnapshotFailed(FOLLOWER, 1)]
    assert not way.leader.snapshots.busy
    assert not list(way.leader.files.folder.glob("snapshot-*"))


def test_one_file_serves_many_and_a_newer_one_is_made_when_it_is_too_old(way: Way) -> None:
    way.order()
    way.run()
    way.order(peer=OTHER)
    way.step()
    assert way.leader.snapshots.built == 1
    way.write(10)
    way.order(at_least=way.machine.applied)
    _, received = way.run()
    assert way.leader.snapshots.built == 2
    assert received[0].snapshot.index == way.machine.applied
    assert len(list(way.leader.files.folder.glob("snapshot-*.db"))) == 1


def test_a_file_that_nobody_needs_any_more_is_removed(way: Way) -> None:
    way.order()
    way.run()
    way.step(module._KEEP_SECONDS - 1)
    assert list(way.leader.files.folder.glob("snapshot-*.db"))
    way.step(2.0)
    assert not list(way.leader.files.folder.glob("snapshot-*.db"))
    way.session = 2
    way.order()
    assert way.run()[0]


def test_a_newer_file_is_sent_from_its_beginning_to_who_had_a_part_of_the_old_one(way: Way) -> None:
    way.order()
    while len(way.chunks()) < 6:
        way.step()
    way.write(10)
    way.order(at_least=way.machine.applied, peer=OTHER)  # both transfers change over to the new file
    before = way.now
    _, received = way.run()
    check_arrived(way, received)
    assert received[0].snapshot.index == way.machine.applied
    assert way.now - before < module._REPEAT_SECONDS


def test_a_full_disk_of_the_receiver_ends_the_transfer_and_not_the_server(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    way.order()
    while len(way.chunks()) < 3:
        way.step()
    expected = way.follower.snapshots._expected
    assert expected is not None

    def full(offset: int, chunk: bytes) -> bool:
        raise DiskFullError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(expected.incoming, "write", full)
        way.step()
        way.step()
    assert way.follower.snapshots._expected is None
    assert any("no space" in report for report in way.follower.reports)
    assert not list(way.follower.files.folder.glob("incoming-*"))  # what is of no use takes no space
    check_arrived(way, way.run()[1])


def test_a_file_that_nobody_installs_is_removed(way: Way) -> None:
    way.order()
    _, received = way.run()
    assert received
    way.follower.snapshots.discard_unwanted(taken=False)
    assert not list(way.follower.files.folder.glob("state-*"))


def test_a_file_that_is_being_installed_stays(way: Way) -> None:
    way.order()
    way.run()
    name = way.follower.snapshots.adopt(cast(Any, None))
    way.follower.snapshots.discard_unwanted(taken=True)
    assert way.follower.files.path(name).exists()
    machine = way.follower.open(name)
    assert machine.applied == way.machine.applied
    machine.close()


@pytest.mark.parametrize("told", [True, False])
def test_one_that_comes_while_another_is_installed_stays(way: Way, told: bool) -> None:
    """Or the log would name a file that is not there: what is installed next was in place before the core heard of it."""
    way.order()
    way.run()
    first = way.follower.snapshots.adopt(cast(Any, None))
    way.follower.snapshots.discard_unwanted(taken=True)
    way.write(5)
    way.session = 2
    way.order(at_least=way.machine.applied)
    received: list[Any] = []
    while not (told and received) and len(list(way.follower.files.folder.glob("state-*.db"))) < 2:
        way.step()
        received += way.follower.snapshots.take_outcomes() if told else []
        assert way.now < 200.0
    way.follower.open(first).close()
    while not received:
        way.step()
        received += way.follower.snapshots.take_outcomes()
        assert way.now < 300.0
    check_arrived(way, received)


def test_rule_95_a_snapshot_of_a_higher_level_ends_the_server_before_anything_is_replaced(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels, "SUPPORTED", 2)
    way.machine.apply(way.machine.applied + 1, [(1, encode_command(CommandHeader(1, 0, 0, 0), encode(RAISE)))])
    way.order()
    while not way.leader.snapshots.built:
        way.step()
    monkeypatch.setattr(levels, "SUPPORTED", 1)
    with pytest.raises(UnsupportedError, match="is of feature level 2"):
        way.run()
    assert way.follower.snapshots.take_outcomes() == []


# --- limits -----------------------------------------------------------------------------------------------------------


def announced_to(way: Way) -> list[Any]:
    return [message.receiver for message in way.passed if isinstance(message, InstallSnapshot)]


def test_rule_82_only_so_many_followers_are_sent_to_at_once(tmp_path: Path) -> None:
    way = Way(tmp_path, receivers=1)
    way.order()
    way.order(peer=OTHER)
    sent: list[Any] = []
    while not sent:
        way.step()
        sent = way.leader.snapshots.take_outcomes()
    assert sent == [SnapshotSent(FOLLOWER, 1, way.machine.applied)]
    assert OTHER not in announced_to(way)
    assert way.leader.snapshots.busy
    way.step()
    assert OTHER in announced_to(way)
    way.close()


def test_rule_82_who_waits_for_another_is_not_given_up_and_gets_the_place_of_one_that_stands_still(
    tmp_path: Path,
) -> None:
    """Soon: found by seed 2200, where a commit waited for who waited."""
    way = Way(tmp_path, receivers=1)
    way.order(peer=OTHER)  # never answers
    way.order()
    way.order(peer=sid("s4"))  # so that one waits for the second too
    for _ in range(15):
        way.step(0.1)
    assert way.leader.snapshots.take_outcomes() == []
    for _ in range(15):
        way.step(0.1)
    assert FOLLOWER in announced_to(way)
    sent, received = way.run()
    check_arrived(way, received)
    assert SnapshotFailed(OTHER, 1) in sent
    assert SnapshotFailed(FOLLOWER, 1) not in sent
    way.close()


def test_rule_100_no_more_is_sent_in_a_second_than_the_rate_allows(tmp_path: Path) -> None:
    rate = 8 * CHUNK
    pauses: list[tuple[bool, float]] = []
    way = Way(tmp_path, pace=Pace(rate, clock=lambda: 0.0, wait=lambda seconds: None))
    way.order()
    sizes: list[int] = []
    received: list[Any] = []
    while not received:
        before = sum(len(message.data) for message in way.passed if isinstance(message, SnapshotChunk))
        for _ in range(100):
            way.step(0.01)
            pauses.append((way.leader.snapshots.pushing, way.leader.snapshots.push_pause(way.now)))
        sizes.append(sum(len(m.data) for m in way.passed if isinstance(m, SnapshotChunk)) - before)
        received += way.follower.snapshots.take_outcomes()
        way.done = bool(received)
    check_arrived(way, received)
    assert len(sizes) > 2
    assert max(sizes) <= rate + 2 * CHUNK
    assert min(sizes[1:-1]) >= rate - 2 * CHUNK
    assert 0.0 < max(pause for pushing, pause in pauses if pushing) <= CHUNK / rate + 1e-9  # the loop sleeps so long
    way.close()


def test_how_long_it_took_is_told(tmp_path: Path) -> None:
    way = Way(tmp_path)
    way.order()
    before = way.now
    way.run()
    took = way.now - before
    assert 0 < way.leader.snapshots.send_seconds <= took
    assert 0 < way.follower.snapshots.receive_seconds <= took
    name = way.follower.snapshots.adopt(cast(Any, None))
    way.follower.now += 3.0
    way.follower.open(name).close()
    assert way.follower.snapshots.install_seconds == pytest.approx(3.0)
    way.close()
