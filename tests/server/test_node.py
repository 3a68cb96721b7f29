"""The driver's duties of raft/output.py, with a disk that is done when the test says so and peers that a test speaks for."""

import pytest

from coordd.acl.authorizer import ALLOW_ALL
from coordd.errors import DamagedError, DiskFullError, StorageError
from coordd.messages.command import Done
from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    RaftMessage,
    RequestVote,
    StateWanted,
    VoteResponse,
)
from coordd.messages.query import KvGet, KvPairs
from coordd.raft.events import SnapshotReceived
from coordd.raft.output import Accepted, Fact, Refusal
from coordd.state.machine import Machine
from coordd.state.position import read_position
from coordd.storage.writer import ChainFound, CompactLog, DiskFull, FindChain, InstallBase, Job, ReadLog, WriterFailed
from coordd.types import Index, LogSlice, LogWrite, SnapshotMeta, Term
from tests.server.conftest import MakeWorld
from tests.server.support import World
from tests.server.words import put, sid


def value_of(machine: Machine, key: str) -> bytes | None:
    found = machine.query(KvGet(key), ALLOW_ALL).value
    assert isinstance(found, KvPairs)
    return found.pairs[0].value if found.pairs else None


def append(
    world: World, term: Term, previous: tuple[Index, Term], entries: list[bytes], commit: Index
) -> AppendEntries:
    runs = ((previous[0] + 1, term),) if entries else ()
    return AppendEntries(
        term, world.peers[0], world.me, 1, previous[0], previous[1], commit, LogSlice(previous[0] + 1, entries, runs)
    )


# --- the order of duties ----------------------------------------------------------------------------------------------


def test_a_write_is_handed_over_before_messages_leave_and_those_now_do_not_wait(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    world.wire.sent.clear()
    order: list[str] = []
    submit, send = world.disk.submit, world.wire.send

    def submitted(job: Job) -> None:
        order.append("write")
        submit(job)

    def sent(message: RaftMessage | StateWanted) -> bool:
        order.append("send")
        return send(message)

    world.disk.submit, world.wire.send = submitted, sent  # type: ignore[method-assign]
    world.node.propose([put("a")], world.now)
    assert order == ["write", "send", "send"]
    assert [type(message) for message in world.wire.sent] == [AppendEntries] * 2


def test_an_acknowledgement_leaves_when_its_write_is_durable_and_not_before(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.settle()
    world.wire.sent.clear()
    last = world.node.raft.replica.log.last
    world.node.receive(append(world, 5, (last, 1), [put("a")], 0), world.now)
    assert not [m for m in world.wire.sent if isinstance(m, AppendResponse)]
    world.persist()
    (answer,) = [m for m in world.wire.sent if isinstance(m, AppendResponse)]
    assert (answer.index, answer.rejected) == (last + 1, None)


def test_a_vote_leaves_when_it_is_durable(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.now += 10.0
    world.node.receive(RequestVote(9, world.peers[1], world.me, 100, 8), world.now)
    assert not [m for m in world.wire.sent if isinstance(m, VoteResponse)]
    world.persist()
    (vote,) = [m for m in world.wire.sent if isinstance(m, VoteResponse)]
    assert vote.granted


def test_what_waits_for_the_disk_leaves_in_order(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.settle()
    last = world.node.raft.replica.log.last
    for number in range(4):
        world.node.receive(append(world, 5, (last + number, 5 if number else 1), [put(f"k{number}")], 0), world.now)
    world.wire.sent.clear()
    world.persist(2)  # the write of the new term, and one more
    first = [m.index for m in world.wire.sent if isinstance(m, AppendResponse)]
    world.persist()
    every = [m.index for m in world.wire.sent if isinstance(m, AppendResponse)]
    assert 0 < len(first) < len(every)
    assert every == sorted(every)
    assert every[-1] == last + 4


def test_what_persisting_brings_about_leaves_behind_what_waited(make_world: MakeWorld) -> None:
    """The completion's own step may have something to say, and must not overtake."""
    world = make_world(3)
    world.settle()
    last = world.node.raft.replica.log.last
    world.node.receive(append(world, 5, (last, 1), [put("a")], 0), world.now)
    held = world.node._after_persist
    assert len(held) == 1
    _, messages = held[0]
    late = AppendResponse(5, world.me, world.peers[0], 1, 1, 99)
    original = world.node.raft.step

    def step(event: object, now: float) -> object:
        out = original(event, now)  # type: ignore[arg-type]
        out.messages_after_persist.append(late)
        return out

    world.node.raft.step = step  # type: ignore[method-assign,assignment]
    world.wire.sent.clear()
    world.persist()
    assert [m for m in world.wire.sent if isinstance(m, AppendResponse)] == [*messages, late]


def test_messages_of_an_older_term_are_dropped_when_the_disk_is_done(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.settle()
    last = world.node.raft.replica.log.last
    world.wire.sent.clear()
    world.node.receive(append(world, 5, (last, 1), [put("a")], 0), world.now)
    world.node.receive(Heartbeat(6, world.peers[1], world.me, 1, 0, 1), world.now)
    world.persist()
    assert not [message for message in world.wire.sent if isinstance(message, AppendResponse)]
    assert {message.term for message in world.wire.sent} == {6}


def test_nothing_is_applied_that_is_not_durable_here(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    last = world.node.machine.applied
    world.answering = False
    world.node.propose([put("a")], world.now)
    term = world.node.raft.replica.term
    for peer in world.peers:
        session = world.node.raft.replica.leading.peers[peer].session  # type: ignore[union-attr]
        world.node.receive(AppendResponse(term, peer, world.me, session, 1, last + 1), world.now)
    assert world.node.raft.replica.log.commit == last + 1
    assert world.apply() is None
    world.persist()
    batch = world.apply()
    assert batch is not None
    assert [done.result for done in batch.applied] == [Done(last + 1, True, 1)]
    assert batch.terms == [term]


def test_a_tick_is_due_at_the_deadline_and_makes_an_election(make_world: MakeWorld) -> None:
    world = make_world(3)
    assert world.node.next_deadline >= world.now
    assert world.observed.elections_won == 0
    world.lead()
    assert world.node.leading
    assert world.observed.elections_won == 1
    assert world.observed.elections_begun >= 1


def test_a_hanging_disk_silences_a_leader(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    world.disk.pending_since = world.now
    beats = 0
    for _ in range(20):
        world.now = world.node.next_deadline
        world.wire.sent.clear()
        world.node.tick(world.now)
        if world.now - world.disk.pending_since > 0.15:
            assert not [m for m in world.wire.sent if isinstance(m, Heartbeat)]
        else:
            beats += 1
            world.let_peers_answer()
    assert beats
    assert not world.node.leading  # nobody answers a silent leader, and it notices


def test_dropped_messages_are_told_to_the_core_and_so_is_the_way_back(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    peer = world.peers[0]
    world.wire.cut = {peer}
    world.node.propose([put("a")], world.now)
    world.settle()
    assert world.observed.dropped
    leading = world.node.raft.replica.leading
    assert leading is not None
    world.node.look_at_links(frozenset(world.peers[1:]), world.now)
    assert leading.peers[peer].state.name == "PROBE"
    world.wire.cut = set()
    world.node.look_at_links(frozenset(world.peers), world.now)
    world.pass_time(0.2)
    assert leading.peers[peer].match == world.node.raft.replica.log.last


# --- applying ---------------------------------------------------------------------------------------------------------


def test_applying_goes_in_slices(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    world.node.propose([put(f"k{n}") for n in range(10)], world.now)
    world.persist()
    before = len(world.batches)
    while world.apply(4) is not None:
        pass
    assert [len(batch.applied) for batch in world.batches[before:]] == [4, 4, 2]


def test_after_a_restart_what_the_state_lacks_is_applied_from_disk(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    for n in range(30):
        world.node.propose([put(f"k{n}", b"%d" % n)], world.now)
        world.settle()
    digest, applied = world.node.machine.digest, world.node.machine.applied
    world.node.machine.close()
    world.files.remove(world.node.state_file)  # as if nothing of it had become durable
    world.node.machine = Machine.open(":memory:")
    world.restart()
    assert world.node.machine.applied == 0
    replica = world.node.raft.replica
    replica.log.evict(0)
    world.lead()
    assert world.node.machine.applied > applied
    assert value_of(world.node.machine, "k29") == b"29"
    assert world.node.machine.digest != digest  # it stands further on
    assert world.node.configuration == world.configuration


def test_replay_reads_from_disk_what_memory_no_longer_holds(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    for n in range(30):
        world.node.propose([put(f"k{n}")], world.now)
        world.settle()
    world.node.machine.close()
    replica = world.node.raft.replica
    last = world.node.committed
    replica.log.evict(0)
    assert replica.log.first > 2
    world.node.machine = Machine.open(":memory:")  # a state that is far behind the log in memory
    world.disk.seen.clear()
    world.settle()
    assert [job for job in world.disk.seen if isinstance(job, ReadLog)]
    assert world.node.machine.applied == last
    assert value_of(world.node.machine, "k3") == b"v"


def test_a_state_that_is_older_than_the_log_or_newer_is_refused(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    world.node.propose([put("a")], world.now)
    world.settle()
    machine = world.node.machine
    applied = machine.applied
    world.close()
    machine = Machine.open(str(world.files.path(world.node.state_file)))
    machine.apply(applied + 1, [(99, put("b"))])
    machine.close()
    with pytest.raises(DamagedError, match="log ends at"):
        world.open()
    world.node.machine.close()


def test_a_full_disk_of_the_state_pauses_applying_and_ends_by_itself(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    facts: list[Fact] = []
    world.node.on_fact = facts.append
    machine = world.node.machine
    real = machine.apply
    attempts = 0

    def full(*arguments: object) -> object:
        nonlocal attempts
        attempts += 1
        raise DiskFullError("no space")

    machine.apply = full  # type: ignore[method-assign,assignment]
    world.node.propose([put("a")], world.now)
    world.persist()
    assert world.apply() is None
    assert world.node.disk_full
    assert not world.node.behind  # or the loop would spin
    for _ in range(5):
        assert world.apply() is None
    assert attempts == 1
    assert world.node.propose([put("b")], world.now) is Refusal.NO_SPACE
    world.now += 0.21
    assert world.apply() is None
    assert attempts == 2
    machine.apply = real  # type: ignore[method-assign]
    world.now += 0.21
    assert world.apply() is not None
    assert isinstance(world.node.propose([put("b")], world.now), Accepted)
    assert [fact.name for fact in facts].count("disk full") == 1


def test_a_full_disk_of_the_log_refuses_writes_until_one_is_done(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    world.node.completed(DiskFull(DiskFullError("no space")), world.now)
    assert world.node.propose([put("a")], world.now) is Refusal.NO_SPACE
    world.node.raft.replica.follow(world.node.raft.replica.term, None, world.now)
    world.lead()  # its no-op is written
    assert not world.node.disk_full


def full(world: World) -> list[str]:
    """Kinds of messages that a leader sends at its next tick, whose disk took no more and has hung since, for all we know."""
    world.node.completed(DiskFull(DiskFullError("no space")), world.now)
    world.disk.pending_since = world.now - 10.0
    world.wire.sent.clear()
    world.now = world.node.next_deadline
    world.node.tick(world.now)
    return [type(message).__name__ for message in world.wire.sent]


def test_a_leader_with_a_full_disk_hands_over_to_who_has_space(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    world.node.propose([put("a")], world.now)
    world.let_peers_answer()
    assert "TimeoutNow" in full(world)


def test_a_leader_with_a_full_disk_leads_on_if_nobody_has_more_space(make_world: MakeWorld) -> None:
    """Its heartbeats go on too, or nobody would answer reads any more."""
    world = make_world(3)
    world.lead()
    world.node.propose([put("a")], world.now)
    assert set(full(world)) == {"Heartbeat"}
    assert world.node.raft.replica.leading is not None


def test_a_failed_writer_ends_it(make_world: MakeWorld) -> None:
    world = make_world()
    with pytest.raises(StorageError, match="gone"):
        world.node.completed(WriterFailed(StorageError("gone")), world.now)


def test_proposals_without_leadership_are_refused(make_world: MakeWorld) -> None:
    assert make_world(3).node.propose([put("a")], 0.0) is Refusal.NOT_LEADER


# --- age --------------------------------------------------------------------------------------------------------------


def test_the_age_of_a_followers_state_counts_from_when_it_held_all_that_was_committed(make_world: MakeWorld) -> None:
    world = make_world(3)
    assert world.node.age(world.now) is None
    last = world.node.raft.replica.log.last
    world.hear(last + 1)
    told = world.now
    world.now += 1.0
    assert world.node.age(world.now) is None  # it lacks an entry that is committed elsewhere
    world.node.receive(append(world, 5, (last, 1), [put("a")], last + 1), world.now)
    world.persist()
    assert world.node.age(world.now) is None  # not applied yet
    world.settle()
    assert world.node.age(world.now) == pytest.approx(world.now - told)
    world.hear(last + 1)
    assert world.node.age(world.now) == 0.0
    world.now += 3.0
    assert world.node.age(world.now) == 3.0


def test_rule_63_a_heartbeat_that_waited_in_a_buffer_makes_nothing_young(make_world: MakeWorld) -> None:
    """This process slept; when it wakes the leader may be long gone, and its last words lie there, unread."""
    world = make_world(3)
    last = world.node.raft.replica.log.last
    beats = [Heartbeat(5, world.peers[0], world.me, 1, last, n, last, 0.0, n - 1, heard_in=1) for n in (1, 2, 3)]
    for beat in beats[:2]:
        world.node.receive(beat, world.now)
    world.settle()
    assert world.node.age(world.now) == 0.0
    world.now += 7.0
    world.node.receive(beats[2], world.now)
    assert world.node.age(world.now) == 7.0


def test_a_state_that_always_lags_a_little_is_still_known_to_be_young(make_world: MakeWorld) -> None:
    """Under load there is always something to apply when somebody asks."""
    world = make_world(3)
    last = world.node.raft.replica.log.last
    for n in range(50):
        world.node.receive(append(world, 5, (last + n, 5 if n else 1), [put(f"k{n}")], last + n + 1), world.now)
        world.hear(last + n + 1)
        world.persist()
        if n < 49:
            world.settle()
            world.now += 0.1
    assert world.node.behind
    age = world.node.age(world.now)
    assert age is not None
    assert age < 0.5


def test_a_leader_under_its_lease_is_current(make_world: MakeWorld) -> None:
    world = make_world(3)
    world.lead()
    assert world.node.age(world.now) == 0.0
    assert world.node.lease_still_valid()
    world.now += 1.0
    assert not world.node.lease_still_valid()


# --- compaction and snapshots -----------------------------------------------------------------------------------------


def test_compaction_names_configuration_and_state_file(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    for n in range(20):
        world.node.propose([put(f"k{n}")], world.now)
    world.settle()
    world.node.machine.checkpoint()
    world.node.compact(10, world.now)
    (job,) = [job for job in world.disk.jobs if isinstance(job, CompactLog)]
    assert (job.base.index, job.base.state_file, job.base.configuration) == (
        10,
        world.node.state_file,
        world.configuration,
    )
    world.settle()
    assert world.observed.compactions == 1
    assert world.node.raft.replica.log.base_index == 10
    world.restart()
    world.lead()
    assert value_of(world.node.machine, "k0") == b"v"


def snapshot_of(world: World) -> tuple[SnapshotMeta, bytes]:
    """A leader's snapshot as a follower gets it."""
    file = world.files.build(world.node.state_file)
    position = read_position(world.files.path(file.name))
    world.disk.submit(FindChain(position.applied))
    (found,) = world.disk.perform()
    assert isinstance(found, ChainFound)
    assert found.chain is not None
    meta = SnapshotMeta(
        position.applied,
        position.term,
        found.chain,
        position.configuration,
        position.configuration_index,
        file.size,
        file.digest,
    )
    return meta, world.files.path(file.name).read_bytes()


def test_heartbeats_are_answered_while_a_received_state_is_opened(make_world: MakeWorld) -> None:
    """A large one takes seconds to verify; a leader that needs this voter must not lose it meanwhile (rule 82)."""
    source = make_world()
    source.lead()
    meta, content = snapshot_of(source)
    world = make_world(3, founded=False)
    leader = sid("s2")
    world.node.receive(InstallSnapshot(5, leader, world.me, 3, meta), world.now)
    world.persist()
    world.shelf.arrived, world.shelf.slow = world.files.new_name(meta.index), True
    world.files.path(world.shelf.arrived).write_bytes(content)
    world.node.snapshot_received(SnapshotReceived(5, leader, 3, meta), world.now)
    world.persist()
    states = [world.node.has_state]
    world.wire.sent.clear()
    world.node.receive(Heartbeat(5, leader, world.me, 3, 0, 7), world.now)
    (answer,) = world.wire.sent
    assert isinstance(answer, HeartbeatResponse)
    assert answer.round == 7
    world.shelf.opening.pop()()
    assert [*states, world.node.has_state] == [False, True]
    (acknowledged,) = [m for m in world.wire.sent if isinstance(m, AppendResponse)]
    assert acknowledged.index == meta.index == world.node.machine.applied


def test_a_snapshot_is_installed_before_it_is_acknowledged(make_world: MakeWorld) -> None:
    source = make_world()
    source.lead()
    for n in range(20):
        source.node.propose([put(f"k{n}")], source.now)
    source.settle()
    meta, content = snapshot_of(source)

    world = make_world(3, founded=False)
    leader = sid("s2")
    told: list[str] = []
    world.node.on_machine = lambda: told.append("machine")
    world.node.receive(InstallSnapshot(5, leader, world.me, 3, meta), world.now)
    world.persist()
    assert world.shelf.orders == [("expect", leader, 3, 5, meta)]
    world.shelf.arrived = world.files.new_name(meta.index)
    world.files.path(world.shelf.arrived).write_bytes(content)
    before = world.node.machine
    world.wire.sent.clear()
    world.node.snapshot_received(SnapshotReceived(5, leader, 3, meta), world.now)
    (job,) = [job for job in world.disk.jobs if isinstance(job, InstallBase)]
    assert (job.base.index, job.base.chain, job.base.state_file) == (meta.index, meta.chain, world.shelf.arrived)
    assert [world.node.has_state, world.node.behind] == [False, False]
    assert world.node.machine is before
    assert not [m for m in world.wire.sent if isinstance(m, AppendResponse)]
    world.persist()
    assert world.node.has_state
    assert told == ["machine"]
    assert world.node.machine.applied == meta.index == world.node.committed
    assert value_of(world.node.machine, "k19") == b"v"
    (answer,) = [m for m in world.wire.sent if isinstance(m, AppendResponse)]
    assert (answer.index, answer.rejected) == (meta.index, None)
    assert world.observed.snapshots_installed == 1
    world.node.receive(
        AppendEntries(
            5,
            leader,
            world.me,
            3,
            meta.index,
            meta.term,
            meta.index + 1,
            LogSlice(meta.index + 1, [put("new")], ((meta.index + 1, 5),)),
        ),
        world.now,
    )
    world.settle()
    assert value_of(world.node.machine, "new") == b"v"
    world.restart()
    assert value_of(world.node.machine, "k19") == b"v"


def test_writes_of_one_step_are_one_job(make_world: MakeWorld) -> None:
    world = make_world()
    world.lead()
    world.disk.seen.clear()
    world.node.propose([put("a"), put("b"), put("c")], world.now)
    (job,) = world.disk.seen
    assert isinstance(job, LogWrite)
    assert job.slice is not None
    assert len(job.slice.entries) == 3
