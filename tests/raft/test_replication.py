"""Rules C and D of the core (rules 34-53): what is sent, what is taken, what is committed."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.errors import InvariantError
from coordd.messages.entry import NOOP_ENTRY
from coordd.messages.peer import AppendEntries, AppendResponse, Heartbeat, HeartbeatResponse, RequestVote
from coordd.raft import events
from coordd.raft.output import Accepted, Refusal, Role
from coordd.raft.progress import ProgressState
from coordd.raft.settings import RaftSettings
from coordd.types import Index, LogSlice, Term
from tests.raft.cluster import Cluster, Server, command, sid
from tests.raft.words import accepted, append, beat, beat_answered, rejected

T = 0.3


def fixed(messages: int, size: int = 1 << 24) -> RaftSettings:
    """A window that does not move."""
    return RaftSettings(min_inflight_messages=messages, max_inflight_messages=messages, max_inflight_bytes=size)


def streaming(cluster: Cluster, name: str = "a") -> Server:
    """A leader whose followers are all caught up, with an empty network."""
    server = cluster.elect(name)
    cluster.network.clear()
    assert {p.state for p in server.leading.peers.values()} == {ProgressState.REPLICATE}
    return server


def shape(message: AppendEntries) -> tuple[Index, int]:
    """(previous index, number of entries)."""
    return message.previous_index, len(message.slice.entries)


def shapes(cluster: Cluster, receiver: str) -> list[tuple[Index, int]]:
    return [shape(message) for message in cluster.sent(AppendEntries, receiver=receiver)]


# --- the follower (rules 34 - 38) -------------------------------------------------------------------------------------


def test_rule_34_a_delayed_append_does_not_cut_what_came_later() -> None:
    cluster = Cluster()
    early = append(1, "b", "a", terms=[1, 1])
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1, 1]))
    cluster.receive(early)
    cluster.receive(append(1, "b", "a", (1, 1), terms=[1]))
    cluster.receive(append(1, "b", "a"))
    assert cluster["a"].log() == [1, 1, 1, 1]
    cluster.persist("a")
    assert [answer.index for answer in cluster.sent(AppendResponse)] == [4, 2, 2, 0], "each vouches for its own message"


@settings(deadline=None)
@given(order=st.permutations(range(6)), doubled=st.lists(st.integers(0, 5), max_size=4))
def test_rule_34_reordered_and_repeated_appends_are_harmless(order: list[int], doubled: list[int]) -> None:
    """Whatever comes whenever: once all came twice, the log is the leader's."""
    messages = [append(2, "b", "a", (n, 1 if n <= 3 else 2) if n else (0, 0), [1 if n < 3 else 2]) for n in range(6)]
    cluster = Cluster(logs={"a": [1, 1]})
    for n in [*order, *doubled, *range(6)]:
        cluster.receive(messages[n])
    assert cluster["a"].log() == [1, 1, 1, 2, 2, 2]


def test_rule_35_commit_goes_no_further_than_this_message_verified() -> None:
    cluster = Cluster(logs={"a": [1, 1, 1, 1]})
    cluster.receive(append(2, "b", "a", (1, 1), commit=4))
    assert cluster["a"].replica.log.commit == 1, "2 to 4 may be replaced yet"
    cluster.receive(append(2, "b", "a", (1, 1), terms=[1], commit=4))
    assert cluster["a"].replica.log.commit == 2
    cluster.receive(append(2, "b", "a", (2, 1), terms=[2, 2], commit=3))
    assert (cluster["a"].log(), cluster["a"].replica.log.commit) == ([1, 1, 2, 2], 3)


def test_rule_35_a_commit_index_never_falls() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1], commit=3))
    cluster.receive(append(1, "b", "a", (3, 1), terms=[1], commit=1))
    cluster.receive(beat(1, "b", "a", commit=2))
    assert cluster["a"].replica.log.commit == 3


def test_rule_36_a_heartbeat_carries_what_that_follower_has() -> None:
    cluster = Cluster()
    streaming(cluster)
    cluster.propose("a", "x", "y")
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 3))
    cluster.network.clear()
    cluster.beat("a")
    assert {m.receiver: m.commit for m in cluster.sent(Heartbeat)} == {"b": 3, "c": 1}


def test_rule_36_a_heartbeat_is_not_believed_beyond_the_logs_end() -> None:
    cluster = Cluster(logs={"a": [1, 1]})
    cluster.receive(beat(1, "b", "a", commit=9))
    assert cluster["a"].replica.log.commit == 2


def test_rule_37_committed_entries_are_never_replaced() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1], commit=3))
    cluster.persist("a")
    cluster.network.clear()
    cluster.receive(append(2, "c", "a", (1, 1), terms=[2, 2, 2]))
    cluster.persist("a")
    assert cluster["a"].log() == [1, 1, 1]
    assert [(m.index, m.rejected) for m in cluster.sent(AppendResponse)] == [(3, None)]


FAST_REJECTIONS = [
    ([1, 2, 2, 4, 4, 4, 4], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], (7, 3), 3),
    ([1, 2, 2, 3, 4, 4, 4, 5], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], (8, 3), 4),
    ([1, 1, 1, 1], [1], (1, 1), 1),
    ([1, 1, 1, 3], [1, 1, 1, 2, 2, 2], (4, 2), 3),
    ([1, 4, 4, 4], [1, 1, 1, 1, 1], (4, 1), 1),
    ([1, 1, 1, 1, 5, 5], [1, 1, 1, 1, 4, 4, 4, 4], (6, 4), 4),
    ([2, 5, 5, 5, 5], [2, 4, 4, 4, 4, 4], (5, 4), 1),
    ([1, 2, 2, 2], [1, 3, 3, 3], (1, 1), 1),
    ([1, 1], [3, 3, 3], (0, 0), 0),
]


@pytest.mark.parametrize(("leader", "follower", "hint", "next_probe"), FAST_REJECTIONS)
def test_rule_38_a_rejection_skips_a_whole_term(
    leader: Sequence[Term], follower: Sequence[Term], hint: tuple[Index, Term], next_probe: Index
) -> None:
    """etcd's FastLogRejection: the follower's hint is its last entry with a term not above the probe's."""
    cluster = Cluster(logs={"a": leader, "b": follower}, terms={"a": 9, "b": 9})
    cluster.lead("a")
    cluster.drop(receiver="c")
    cluster.deliver(AppendEntries)
    cluster.persist("b")
    (answer,) = cluster.sent(AppendResponse)
    assert (answer.rejected, (answer.index, answer.hint_term)) == (len(leader), hint)
    cluster.deliver(AppendResponse)
    (probe,) = cluster.sent(AppendEntries)
    assert probe.previous_index == next_probe


terms = st.lists(st.integers(1, 4), max_size=8).map(sorted)


@settings(deadline=None)
@given(common=terms, ours=terms, theirs=terms)
def test_rule_38_at_most_one_probe_for_each_term(common: list[Term], ours: list[Term], theirs: list[Term]) -> None:
    """Any two logs that Raft could have made: entries of one index and term are the same one on both."""
    base = common[-1] if common else 0
    leader = [*common, *(base + 2 * term for term in ours)]
    follower = [*common, *(base + 2 * term - 1 for term in theirs)]
    cluster = Cluster(logs={"a": leader, "b": follower}, terms=dict.fromkeys("abc", 99))
    cluster.lead("a")
    cluster.drop(receiver="c")
    cluster.settle()
    rejections = [
        output for who, _, output in cluster.trace if who == "a" for f in output.facts if f.name == "rejected"
    ]
    assert len(rejections) <= len({*leader} | {*follower}) + 1
    assert cluster["b"].entries() == cluster["a"].entries()


def test_rule_38_a_rejection_never_leads_to_the_same_probe_again() -> None:
    cluster = Cluster(logs={"a": [1, 1, 1, 1, 1]})
    leader = cluster.lead("a")
    cluster.network.clear()
    for at in (5, 4, 3):
        cluster.receive(rejected(cluster, "a", "b", at, (at, 1)))
        assert leader.progress("b").next == at


def test_rule_38_stale_rejections_are_ignored() -> None:
    cluster = Cluster(logs={"a": [1, 1, 1, 1, 1]})
    leader = cluster.lead("a")
    cluster.network.clear()
    cluster.receive(rejected(cluster, "a", "b", 3, (0, 0)))
    assert (leader.progress("b").next, cluster.network) == (6, []), "not the outstanding probe"
    cluster.receive(rejected(cluster, "a", "b", 5, (2, 1)))
    assert (leader.progress("b").next, shapes(cluster, "b")) == (3, [(2, 4)])
    cluster.network.clear()
    cluster.receive(rejected(cluster, "a", "b", 5, (2, 1)))
    assert (leader.progress("b").next, cluster.network) == (3, []), "a duplicate"
    cluster.receive(accepted(cluster, "a", "b", 6))
    cluster.receive(rejected(cluster, "a", "b", 2, (0, 0)))
    assert (leader.progress("b").match, leader.progress("b").state) == (6, ProgressState.REPLICATE)


def test_rule_38_a_hint_never_points_below_what_is_committed() -> None:
    cluster = Cluster(logs={"a": [1, 1, 3, 3]}, commits={"a": 3})
    cluster.receive(append(4, "b", "a", (5, 2)))
    cluster.persist("a")
    assert [(m.index, m.hint_term, m.rejected) for m in cluster.sent(AppendResponse)] == [(3, 2, 5)]


def test_rule_39_a_probe_is_repeated_without_its_entries() -> None:
    """A follower whose disk is slow is not sent the same megabyte with every heartbeat."""
    cluster = Cluster()
    leader = cluster.lead("a")
    assert shapes(cluster, "b") == [(0, 1)]
    for _ in range(3):
        cluster.network.clear()
        cluster.beat("a")
        cluster.receive(beat_answered(cluster, "a", "b", leader.leading.round))
        assert shapes(cluster, "b") == [(0, 0)]


def test_a_rejection_while_streaming_makes_the_leader_probe() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    cluster.propose("a", "x")
    cluster.propose("a", "y")
    cluster.network.clear()
    cluster.receive(rejected(cluster, "a", "b", 2, (1, 1)))
    assert (leader.progress("b").state, shapes(cluster, "b")) == (ProgressState.PROBE, [(1, 2)])


# --- the leader's three ways (rules 39 - 43, 47) ----------------------------------------------------------------------


def test_rule_39_a_probe_is_one_message_for_each_heartbeat() -> None:
    cluster = Cluster()
    leader = cluster.lead("a")
    assert shapes(cluster, "b") == [(0, 1)]
    cluster.network.clear()
    for text in "xyz":
        cluster.propose("a", text)
    assert cluster.sent(AppendEntries) == []
    for expected in (1, 2):
        cluster.beat("a")
        cluster.receive(beat_answered(cluster, "a", "b", leader.leading.round))
        cluster.propose("a", "more")
        assert len(cluster.sent(AppendEntries, receiver="b")) == expected
    assert leader.progress("b").next == 1


def test_rule_39_entries_are_streamed_ahead_of_acknowledgements() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    for text in "xyz":
        cluster.propose("a", text)
    assert shapes(cluster, "b") == [(1, 1), (2, 1), (3, 1)]
    assert (leader.progress("b").match, leader.progress("b").next) == (1, 5)


def test_a_batch_of_proposals_leaves_in_one_append_for_each_follower() -> None:
    cluster = Cluster()
    streaming(cluster)
    assert cluster.propose("a", "x", "y", "z").proposal == Accepted(2, 3, 1)
    assert (shapes(cluster, "b"), shapes(cluster, "c")) == ([(1, 3)], [(1, 3)])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (RaftSettings(min_inflight_messages=64, max_append_entries=2), [(1, 2), (3, 2), (5, 1)]),
        (RaftSettings(min_inflight_messages=64, max_append_bytes=4), [(1, 2), (3, 2), (5, 1)]),
        (RaftSettings(min_inflight_messages=64, max_append_bytes=1), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]),
    ],
)
def test_appends_are_bounded_in_entries_and_bytes_but_never_empty(
    settings: RaftSettings, expected: list[tuple[Index, int]]
) -> None:
    cluster = Cluster(settings=settings)
    streaming(cluster)
    cluster.propose("a", "1", "2", "3", "4", "5")
    assert shapes(cluster, "b") == expected


@pytest.mark.parametrize(
    "settings",
    [fixed(3), fixed(64, 5), fixed(64, 6)],
)
def test_rule_39_a_full_window_stops_the_stream(settings: RaftSettings) -> None:
    """etcd's flow control, full."""
    cluster = Cluster(settings=settings)
    leader = streaming(cluster)
    for text in "12345":
        cluster.propose("a", text)
    assert shapes(cluster, "b") == [(1, 1), (2, 1), (3, 1)]
    assert leader.progress("b").window.in_flight == 3
    assert leader.progress("b").window.bytes_in_flight == 6


def test_rule_39_acknowledgements_move_the_window() -> None:
    """etcd's flow control, move: what is acknowledged frees room, stale acknowledgements free nothing."""
    cluster = Cluster(settings=fixed(3))
    streaming(cluster)
    for text in "123456789":
        cluster.propose("a", text)
    cluster.network.clear()
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert shapes(cluster, "b") == [(4, 6)], "what waited leaves in one"
    cluster.network.clear()
    cluster.receive(accepted(cluster, "a", "b", 2))
    cluster.receive(accepted(cluster, "a", "b", 1))
    cluster.propose("a", "w")
    assert shapes(cluster, "b") == []
    cluster.receive(accepted(cluster, "a", "b", 4))
    assert shapes(cluster, "b") == [(10, 1)]


def test_rule_40_with_a_full_window_each_heartbeat_answer_brings_one_empty_append() -> None:
    """etcd's flow control, heartbeat; etcd#14633."""
    cluster = Cluster(settings=fixed(3))
    leader = streaming(cluster)
    for text in "12345":
        cluster.propose("a", text)
    for _ in range(3):
        cluster.network.clear()
        cluster.beat("a")
        cluster.receive(beat_answered(cluster, "a", "b", leader.leading.round))
        assert shapes(cluster, "b") == [(4, 0)]


@pytest.mark.parametrize("window", [1, 3, 64])
def test_rule_40_47_a_stream_recovers_when_all_in_flight_is_lost(window: int) -> None:
    cluster = Cluster(settings=fixed(window))
    leader = streaming(cluster)
    for text in "12345":
        cluster.propose("a", text)
    cluster.drop(receiver="b")
    cluster.persist("a")
    cluster.beat("a")
    cluster.settle()
    assert leader.progress("b").match == 6
    assert cluster["b"].entries() == leader.entries()


def test_rule_40_47_a_stream_from_disk_recovers_too() -> None:
    """A leader that was restarted knows old terms only from disk; a full window must not stall for ever."""
    settings = RaftSettings(max_inflight_messages=2, max_append_entries=1, max_append_bytes=1)
    logs = {"a": [1] * 30, "b": [1] * 5, "c": [1] * 30}
    cluster = Cluster(logs=logs, terms=dict.fromkeys("abc", 1), commits={"a": 30, "c": 30}, settings=settings)
    cluster["a"].disk.applied = 30
    cluster.crash("a")
    cluster.restart("a", tail=2)
    leader = cluster.lead("a")
    cluster.persist("a")
    cluster.network.clear()
    cluster.receive(rejected(cluster, "a", "b", 30, (5, 1)))
    cluster.read_entries("a")
    assert cluster.drop(AppendEntries, receiver="b")
    cluster.receive(accepted(cluster, "a", "b", 6))
    while cluster.read_entries("a"):
        cluster.drop(AppendEntries)
    assert (leader.progress("b").window.in_flight, leader.progress("b").next) == (2, 11)
    cluster["b"].disk.entries += cluster["a"].disk.entries[5:6]
    cluster.crash("b")
    cluster.restart("b")
    leader.progress("b").boot = cluster["b"].boot
    for _ in range(10):
        cluster.beat("a")
        cluster.settle()
    assert leader.progress("b").match == leader.replica.log.last


def test_rule_41_a_caught_up_follower_recovers_from_probing_by_a_heartbeat() -> None:
    """etcd's heartbeat_resp_recovers_from_probing."""
    cluster = Cluster()
    leader = streaming(cluster)
    cluster.step("a", events.PeerUnreachable(sid("b")))
    assert leader.progress("b").state is ProgressState.PROBE
    cluster.beat("a")
    cluster.deliver(Heartbeat)
    cluster.deliver(HeartbeatResponse)
    assert shapes(cluster, "b") == [(1, 0)]
    cluster.settle()
    assert [p.state for p in leader.leading.peers.values()] == [ProgressState.REPLICATE] * 2


def test_an_unreachable_follower_is_not_streamed_to() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    cluster.propose("a", "x")
    cluster.step("a", events.PeerUnreachable(sid("b")))
    cluster.step("a", events.PeerUnreachable(sid("b")))
    cluster.step("a", events.PeerUnreachable(sid("z")))
    cluster.network.clear()
    for text in "yz":
        cluster.propose("a", text)
    assert (shapes(cluster, "b"), shapes(cluster, "c")) == ([], [(2, 1), (3, 1)])
    assert (leader.progress("b").next, leader.progress("b").window.bytes_in_flight) == (2, 0)


def test_a_connection_that_works_again_is_probed_at_once() -> None:
    cluster = Cluster()
    streaming(cluster)
    cluster.step("a", events.PeerUnreachable(sid("b")))
    cluster.propose("a", "x")
    cluster.network.clear()
    cluster.step("a", events.PeerConnected(sid("b")))
    cluster.step("a", events.PeerConnected(sid("c")))
    cluster.step("b", events.PeerConnected(sid("c")))
    cluster.step("b", events.PeerUnreachable(sid("c")))
    assert (shapes(cluster, "b"), shapes(cluster, "c")) == ([(1, 1)], [])


def test_rule_43_an_acknowledgement_of_another_session_is_not_credited() -> None:
    """oraft#584: a removed and re-added peer."""
    cluster = Cluster()
    leader = streaming(cluster)
    cluster.propose("a", "x")
    cluster.persist("a")
    session = leader.progress("b").session
    cluster.receive(accepted(cluster, "a", "b", 2, session=session + 17))
    assert (leader.progress("b").match, leader.replica.log.commit) == (1, 1)
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert leader.replica.log.commit == 2


def test_rule_43_each_leadership_draws_new_sessions() -> None:
    cluster = Cluster()
    seen: set[tuple[Term, int]] = set()
    for name in "aba":
        leader = cluster.elect(name)
        sessions = {(leader.replica.term, p.session) for p in leader.leading.peers.values()}
        assert len(sessions) == 2
        assert not sessions & seen
        seen |= sessions


def test_an_answer_from_nobody_we_know_is_ignored() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    stranger = AppendResponse(leader.replica.term, sid("z"), sid("a"), 1, 1, 99)
    cluster.receive(stranger)
    cluster.receive(HeartbeatResponse(leader.replica.term, sid("z"), sid("a"), 1, 1, 99))
    assert leader.replica.log.commit == 1
    cluster.receive(AppendResponse(leader.replica.term, sid("c"), sid("b"), 1, 1, 1))
    assert cluster["b"].role is Role.FOLLOWER


def test_a_follower_that_is_ahead_of_its_leader_is_a_contradiction() -> None:
    cluster = Cluster()
    streaming(cluster)
    with pytest.raises(InvariantError, match="follower ahead of its leader"):
        cluster.receive(accepted(cluster, "a", "b", 2))


def test_followers_hear_of_a_commit_without_waiting_for_a_heartbeat() -> None:
    cluster = Cluster()
    streaming(cluster)
    cluster.propose("a", "x")
    cluster.settle()
    assert [server.disk.applied for server in cluster.servers.values()] == [2, 2, 2]


# --- entries that have left memory ------------------------------------------------------------------------------------


def evicting(tail: int = 20) -> Cluster:
    """a leads, c is away, and a's memory holds only the newest entries."""
    cluster = Cluster(settings=RaftSettings(memory_tail_bytes=tail, max_append_bytes=8))
    cluster.elect("a")
    cluster.isolate("c")
    for n in range(20):
        cluster.propose("a", f"{n:03d}")
        cluster.settle()
    assert cluster["a"].replica.log.first > 10
    return cluster


def test_old_entries_come_from_disk() -> None:
    cluster = evicting()
    cluster.heal()
    cluster.beat("a")
    cluster.settle()
    cluster.beat("a")
    cluster.settle()
    assert cluster["c"].log() == [1] * 21
    assert [e for _, e in cluster["c"].disk.entries] == [e for _, e in cluster["a"].disk.entries]


def probing_from_disk(cluster: Cluster) -> Server:
    """c has refused a probe: what it needs is on a's disk alone, and a has asked for it."""
    cluster.heal()
    cluster.beat("a")
    for _ in range(4):
        cluster.deliver()
        cluster.persist("c")
    cluster.drop()
    leader = cluster["a"]
    assert [ask.first for ask in leader.wanted_reads] == [leader.progress("c").next]
    return leader


def test_entries_are_read_once_at_a_time_for_a_follower() -> None:
    cluster = evicting()
    leader = probing_from_disk(cluster)
    cluster.propose("a", "x")
    cluster.propose("a", "y")
    assert len(leader.wanted_reads) == 1
    assert leader.progress("c").reading


def test_entries_read_for_another_session_or_another_place_are_not_sent() -> None:
    cluster = evicting()
    leader = probing_from_disk(cluster)
    (ask,) = leader.wanted_reads
    leader.wanted_reads.clear()
    found = leader.disk.slice(ask.first, ask.first + 1)
    cluster.step("a", events.EntriesRead(sid("c"), ask.session + 1, 1, found))
    cluster.step("a", events.EntriesRead(sid("z"), ask.session, 1, found))
    cluster.step("b", events.EntriesRead(sid("c"), ask.session, 1, found))
    assert (cluster.sent(AppendEntries), leader.wanted_reads) == ([], [])
    cluster.step("a", events.EntriesRead(sid("c"), ask.session, 1, leader.disk.slice(ask.first + 1, ask.first + 2)))
    assert cluster.sent(AppendEntries, receiver="c") == []
    assert [again.first for again in leader.wanted_reads] == [ask.first], "asked anew"


def test_entries_that_are_gone_from_disk_are_asked_for_again_until_the_compaction_is_known() -> None:
    cluster = evicting()
    leader = probing_from_disk(cluster)
    cluster.read_entries("a", compacted=True)
    assert len(leader.wanted_reads) == 1
    assert cluster.compact("a", 15) == 15
    cluster.read_entries("a", compacted=True)
    assert leader.progress("c").state is ProgressState.SNAPSHOT
    cluster.step("a", events.EntriesRead(sid("c"), leader.progress("c").session, 1, leader.disk.slice(16, 17)))
    assert cluster.sent(AppendEntries, receiver="c") == []


# --- limits (rule 45) -------------------------------------------------------------------------------------------------


def test_rule_45_uncommitted_bytes_are_bounded() -> None:
    cluster = Cluster(settings=RaftSettings(max_uncommitted_bytes=10))
    leader = streaming(cluster)
    cluster.isolate("a")
    assert cluster.propose("a", "1234567").proposal == Accepted(2, 1, 1)
    assert cluster.propose("a", "12").proposal is Refusal.BUSY
    assert cluster.propose("a", "1").proposal == Accepted(3, 1, 1)
    assert cluster.propose("a", "").proposal is Refusal.BUSY
    assert (leader.replica.log.last, leader.leading.uncommitted_bytes) == (3, 10), "a refusal has no effect"
    cluster.heal()
    cluster.beat("a")
    cluster.settle()
    assert leader.leading.uncommitted_bytes == 0
    assert isinstance(cluster.propose("a", "12").proposal, Accepted)


def test_rule_45_one_oversized_proposal_is_let_in_when_nothing_waits() -> None:
    cluster = Cluster(settings=RaftSettings(max_uncommitted_bytes=10))
    streaming(cluster)
    assert cluster.propose("a", "x" * 50).proposal == Accepted(2, 1, 1)
    assert cluster.propose("a", "y").proposal is Refusal.BUSY
    cluster.settle()
    assert cluster.propose("a", "y").proposal == Accepted(3, 1, 1)


def test_rule_45_a_new_leader_appends_its_no_op_whatever_waits() -> None:
    cluster = Cluster(logs={"a": [1, 1, 1]}, settings=RaftSettings(max_uncommitted_bytes=5))
    leader = cluster.lead("a")
    assert leader.log() == [1, 1, 1, 2]
    assert leader.leading.uncommitted_bytes == 3 * len(command("1@1")) + 1
    assert cluster.propose("a", "x").proposal is Refusal.BUSY
    cluster.settle()
    assert leader.leading.uncommitted_bytes == 0


def test_a_proposal_is_taken_or_refused_as_a_whole_and_only_by_a_leader() -> None:
    cluster = Cluster(settings=RaftSettings(max_uncommitted_bytes=10))
    leader = streaming(cluster)
    assert cluster.propose("b", "x").proposal is Refusal.NOT_LEADER
    cluster.propose("a", "1234")
    assert cluster.propose("a", "1", "22", "333").proposal is Refusal.BUSY
    assert leader.entries() == [NOOP_ENTRY, command("1234")]


# --- commitment (rules 44, 48 - 50) -----------------------------------------------------------------------------------


def test_rule_48_an_old_terms_majority_is_no_commit_until_an_own_entry_has_one() -> None:
    cluster = Cluster(logs={"a": [1, 2, 2]}, terms=dict.fromkeys("abc", 5))
    cluster.lead("a")
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 3))
    cluster.receive(accepted(cluster, "a", "c", 3))
    assert cluster["a"].replica.log.commit == 0
    cluster.receive(accepted(cluster, "a", "c", 4))
    assert cluster["a"].replica.log.commit == 4


def test_rule_49_a_new_leader_appends_a_no_op_at_once() -> None:
    cluster = Cluster(logs={"a": [1]}, terms=dict.fromkeys("abc", 1))
    leader = cluster.lead("a")
    assert leader.entries()[-1:] == [NOOP_ENTRY]
    assert leader.leading.term_start == 2
    assert shapes(cluster, "b") == [(1, 1)]


def test_rule_50_a_leader_may_commit_before_its_own_disk_has_the_entry_but_not_apply_it() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    cluster.propose("a", "x")
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert leader.replica.log.commit == 1, "two of three disks are needed"
    cluster.receive(accepted(cluster, "a", "c", 2))
    assert (leader.replica.log.commit, leader.to_apply) == (2, 1)
    cluster.persist("a")
    assert leader.to_apply == 2


def test_rule_50_a_leader_counts_its_own_disk_only_when_it_is_durable() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    cluster.propose("a", "x")
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert leader.replica.log.commit == 1
    cluster.persist("a")
    assert leader.replica.log.commit == 2


def test_rule_44_an_entry_of_a_deposed_leader_may_be_replaced_and_its_place_tells_so() -> None:
    cluster = Cluster()
    streaming(cluster)
    cluster.isolate("a")
    answer = cluster.propose("a", "lost").proposal
    assert answer == Accepted(2, 1, 1)
    cluster.persist("a")
    cluster.elect("b")
    cluster.heal()
    cluster.beat("b")
    cluster.settle()
    assert cluster["a"].log() == [1, 2], "the proposer sees another term at its index"


def test_lagging_commit_a_new_leader_commits_what_the_old_one_left() -> None:
    cluster = Cluster()
    streaming(cluster)
    cluster.propose("a", "x")
    cluster.deliver(AppendEntries)
    cluster.persist("b")
    cluster.persist("c")
    cluster.drop()
    cluster.crash("a")
    leader = cluster.elect("b")
    assert leader.replica.log.commit == 3
    assert cluster["c"].disk.applied == 3


def test_a_follower_refuses_gaps_and_the_leader_fills_them() -> None:
    cluster = Cluster()
    leader = streaming(cluster)
    for text in "123":
        cluster.propose("a", text)
    first, *_ = cluster.sent(AppendEntries, receiver="b")
    cluster._remove(first)
    cluster.settle()
    assert cluster["b"].entries() == leader.entries()


def test_an_empty_append_is_answered_too() -> None:
    cluster = Cluster(logs={"a": [1]})
    cluster.receive(AppendEntries(1, sid("b"), sid("a"), 3, 1, 1, 1, LogSlice(2, [], ())))
    cluster.persist("a")
    assert [(m.index, m.session) for m in cluster.sent(AppendResponse)] == [(1, 3)]
    assert not cluster.pending(RequestVote)
