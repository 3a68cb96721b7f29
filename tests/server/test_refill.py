"""A server whose state is lost: it keeps to what its log allows, asks for another state, and goes on from it."""

import pytest

from coordd.errors import DamagedError, NoLeaderError
from coordd.messages.client import Read
from coordd.messages.peer import AppendResponse, InstallSnapshot, RequestVote, StateWanted, TimeoutNow, VoteResponse
from coordd.messages.query import KvGet
from coordd.raft.events import SnapshotReceived
from coordd.raft.output import SendSnapshot
from coordd.server.authority import Authority
from coordd.storage.snapshot_store import EVIDENCE
from coordd.storage.writer import CompactLog
from coordd.types import SnapshotMeta
from tests.server.conftest import MakeWorld
from tests.server.support import Desk, World
from tests.server.test_node import append, snapshot_of, value_of
from tests.server.words import put

TERM = 5


def following(world: World, count: int = 20) -> World:
    """It follows s2 and has applied some entries of it."""
    last = world.node.raft.replica.log.last
    entries = [put(f"k{n}") for n in range(count)]
    world.node.receive(
        append(world, TERM, (last, world.node.raft.replica.log.last_term), entries, last + count), world.now
    )
    world.settle()
    assert value_of(world.node.machine, "k0") == b"v"
    return world


def deliver(world: World, meta: SnapshotMeta, content: bytes) -> None:
    """The leader's snapshot arrives, from its announcement to its last byte."""
    leader = world.peers[0]
    world.shelf.orders.clear()
    world.node.receive(InstallSnapshot(TERM, leader, world.me, 3, meta), world.now)
    world.persist()
    if world.shelf.orders != [("expect", leader, 3, TERM, meta)]:
        return
    world.shelf.arrived = world.files.new_name(meta.index)
    world.files.path(world.shelf.arrived).write_bytes(content)
    world.node.snapshot_received(SnapshotReceived(TERM, leader, 3, meta), world.now)


def test_a_lost_state_is_asked_for_and_taken_above_the_own_log(make_world: MakeWorld) -> None:
    world = following(make_world(3))
    meta, content = snapshot_of(world)
    world.files.remove_all_but({world.node.state_file})
    last = world.node.raft.replica.log.last
    told: list[str] = []
    world.node.on_machine = lambda: told.append("machine")
    old = world.node.state_file
    world.node.lose_state("a flipped bit", world.now)
    assert (world.node.has_state, world.node.behind, world.node.age(world.now)) == (False, False, None)
    assert told == ["machine"]
    assert not world.files.path(old).exists()
    assert world.files.path(EVIDENCE).exists()
    assert world.observed.states_lost == 1
    world.node.refill.turn(world.now)
    world.node.refill.turn(world.now + 0.5)
    assert world.wire.wanted == [StateWanted(world.me, world.peers[0], 0)]
    world.node.refill.turn(world.now + 1.0)
    assert len(world.wire.wanted) == 2
    # the log goes on meanwhile, acknowledged and not applied
    world.wire.sent.clear()
    world.node.receive(append(world, TERM, (last, TERM), [put("new")], last + 1), world.now)
    world.settle()
    assert [m.index for m in world.wire.sent if isinstance(m, AppendResponse)] in ([], [last + 1])
    assert (world.node.raft.replica.log.commit, world.node.machine.applied) == (last + 1, 0)
    deliver(world, meta, content)
    (job,) = [job for job in world.disk.jobs if isinstance(job, CompactLog)]
    assert (job.base.index, job.base.state_file) == (0, world.shelf.arrived)
    world.node.refill.turn(world.now + 9.0)
    assert len(world.wire.wanted) == 2  # it is about to have one
    world.settle()
    assert world.node.has_state
    assert world.node.state_file == world.shelf.arrived
    assert value_of(world.node.machine, "k19") == b"v"
    assert value_of(world.node.machine, "new") == b"v"
    world.restart()
    assert (world.node.has_state, value_of(world.node.machine, "k19")) == (True, b"v")


def test_a_state_beyond_the_own_log_is_installed_with_it(make_world: MakeWorld) -> None:
    source = make_world()
    source.lead()
    for n in range(30):
        source.node.propose([put(f"k{n}")], source.now)
    source.settle()
    meta, content = snapshot_of(source)
    world = following(make_world(3), 2)
    world.node.lose_state("a flipped bit", world.now)
    deliver(world, meta, content)
    world.settle()
    assert world.node.has_state
    assert world.node.machine.applied == world.node.raft.replica.log.base_index == meta.index
    assert value_of(world.node.machine, "k29") == b"v"


def test_a_state_below_the_beginning_of_the_log_is_lost_at_the_start(make_world: MakeWorld) -> None:
    """As one whose file was set aside, after the log before it was dropped."""
    world = following(make_world(3))
    meta, content = snapshot_of(world)
    world.node.machine.checkpoint()
    world.node.compact(15, world.now)
    world.settle()
    world.files.set_aside(world.node.state_file)
    world.restart()
    world.node.receive(append(world, TERM, (meta.index, TERM), [put("new")], meta.index + 1), world.now)
    world.node.refill.turn(world.now)
    assert world.wire.wanted == [StateWanted(world.me, world.peers[0], 15)]
    old = SnapshotMeta(10, TERM, 0, meta.configuration, 1, meta.size, "0" * 64)
    deliver(world, old, content)
    assert ("expect", world.peers[0], 3, TERM, old) not in world.shelf.orders  # nothing could go on from there
    assert not world.node.has_state
    deliver(world, meta, content)
    world.settle()
    assert value_of(world.node.machine, "new") == b"v"


def test_without_others_a_state_below_the_log_is_refused(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    for n in range(20):
        world.node.propose([put(f"k{n}")], world.now)
    world.settle()
    with pytest.raises(DamagedError, match="restore"):
        world.node.lose_state("a flipped bit", world.now)
    world.node.machine.checkpoint()
    world.node.compact(10, world.now)
    world.settle()
    world.files.set_aside(world.node.state_file)
    with pytest.raises(DamagedError, match="begins behind"):
        world.restart()


def test_a_compaction_under_way_is_waited_for(make_world: MakeWorld) -> None:
    """It moves the base on which the new state is to stand."""
    world = following(make_world(3))
    meta, content = snapshot_of(world)
    world.node.machine.checkpoint()
    world.node.compact(15, world.now)
    world.node.lose_state("a flipped bit", world.now)
    leader = world.peers[0]
    world.shelf.arrived = world.files.new_name(meta.index)
    world.files.path(world.shelf.arrived).write_bytes(content)
    world.node.snapshot_received(SnapshotReceived(TERM, leader, 3, meta), world.now)
    assert not world.node.taking_state
    world.settle()
    deliver(world, meta, content)
    world.settle()
    assert (world.node.has_state, world.node.raft.replica.log.base_index) == (True, 15)


def test_it_votes_and_does_not_campaign(make_world: MakeWorld) -> None:
    world = following(make_world(3))
    world.node.lose_state("a flipped bit", world.now)
    world.now += 10.0
    world.wire.sent.clear()
    log = world.node.raft.replica.log
    world.node.receive(RequestVote(TERM + 1, world.peers[1], world.me, log.last, log.last_term), world.now)
    world.persist()
    assert [m.granted for m in world.wire.sent if isinstance(m, VoteResponse)] == [True]
    world.answering = False
    world.wire.sent.clear()
    world.pass_time(5.0)
    assert not [m for m in world.wire.sent if isinstance(m, RequestVote)]


def test_a_leader_hands_over_and_sends_no_state(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    peer = world.peers[0]
    world.node.refill.wanted(StateWanted(peer, world.me, 0), world.now)
    (order,) = world.shelf.orders
    assert isinstance(order, SendSnapshot)
    assert (order.peer, order.at_least) == (peer, 0)
    world.node.refill.wanted(StateWanted(world.me, world.me, 0), world.now)  # of nobody that it leads
    world.shelf.orders.clear()
    world.node.lose_state("a flipped bit", world.now)
    world.node.lose_state("and another", world.now)
    assert world.observed.states_lost == 1
    assert [m for m in world.wire.sent if isinstance(m, TimeoutNow)]
    assert not world.node.ready
    world.node.refill.wanted(StateWanted(peer, world.me, 0), world.now)
    world.node.refill.turn(world.now)
    assert not world.shelf.orders
    assert not world.wire.wanted


def test_nobody_is_let_in_without_a_state_to_judge_in(make_world: MakeWorld) -> None:
    world = following(make_world(3))
    world.node.lose_state("a flipped bit", world.now)
    with pytest.raises(NoLeaderError, match="damaged"):
        Authority(world.node).demand("", KvGet("k0"))


def test_a_client_is_sent_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    desk = Desk(tmp_path_factory.mktemp("desk"), 3)
    following(desk.world)
    desk.world.node.lose_state("a flipped bit", desk.world.now)
    number = desk.ask(Read(KvGet("k0"), "stale"))
    assert desk.told.codes()[-1] == (number, "no-leader")
    desk.close()
