"""Rules G of the core (rules 79-85): compaction, and snapshots for followers that need what was compacted."""

import msgspec
import pytest

from coordd.errors import InvariantError
from coordd.messages.peer import AppendEntries, AppendResponse, Heartbeat, InstallSnapshot, RequestVote
from coordd.raft import events
from coordd.raft.output import Role
from coordd.raft.progress import ProgressState
from coordd.types import Member, SnapshotMeta
from tests.raft.cluster import Cluster, Server, configuration, sid
from tests.raft.words import SESSION, accepted, append, beat, beat_answered, install, order, rejected, request

T = 0.3


def snapshot(index: int, term: int = 1, voters: str = "abc") -> SnapshotMeta:
    return SnapshotMeta(index, term, 0, configuration(voters), 0, 1, "digest")


def lagging(cluster: Cluster, entries: int = 10, compact: int = 8) -> Server:
    """a leads; c is away, and what it needs is compacted."""
    leader = cluster.elect("a")
    cluster.isolate("c")
    for n in range(entries - 1):
        cluster.propose("a", f"{n}")
    cluster.settle()
    assert cluster.compact("a", compact) == compact
    cluster.network.clear()
    return leader


def needing(cluster: Cluster) -> Server:
    """The leader has just found that c needs a snapshot."""
    leader = lagging(cluster)
    cluster.heal()
    cluster.beat("a")
    cluster.receive(rejected(cluster, "a", "c", leader.progress("c").next - 1, (0, 0)))
    cluster["c"].trusted = True
    cluster.network.clear()
    assert leader.progress("c").state is ProgressState.SNAPSHOT
    return leader


# --- the follower (rules 79, 80) --------------------------------------------------------------------------------------


def test_rule_79_a_snapshot_that_is_committed_already_is_only_acknowledged() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1], commit=3))
    cluster.persist("a")
    cluster.network.clear()
    output = cluster.receive(install(1, "b", "a", snapshot(2)))
    assert output is not None
    assert output.expect_snapshot is None
    assert [(m.index, m.session) for m in cluster.sent(AppendResponse)] == [(3, SESSION)]
    assert cluster["a"].log() == [1, 1, 1]


def test_rule_79_a_snapshot_that_the_log_holds_only_moves_commit_and_keeps_the_rest() -> None:
    cluster = Cluster(logs={"a": [1, 1, 1, 1]})
    output = cluster.receive(install(1, "b", "a", snapshot(2)))
    assert output is not None
    assert (output.expect_snapshot, output.committed) == (None, 2)
    assert (cluster["a"].log(), cluster["a"].replica.log.commit) == ([1, 1, 1, 1], 2)
    assert [m.index for m in cluster.sent(AppendResponse)] == [2]


@pytest.mark.parametrize("log", [[], [1], [2, 2, 2, 2, 2, 2, 2]])
def test_rule_79_a_snapshot_that_the_log_does_not_hold_replaces_all_of_it(log: list[int]) -> None:
    cluster = Cluster(logs={"a": log}, terms={"a": 2})
    meta = snapshot(5, 1, "abd")
    output = cluster.receive(install(3, "b", "a", meta))
    assert output is not None
    assert output.expect_snapshot == (sid("b"), SESSION, 3, meta)
    output = cluster.step("a", events.SnapshotReceived(3, sid("b"), SESSION, meta))
    assert output.install_snapshot == meta
    assert cluster.sent(AppendResponse) == [], "not before it is installed"
    cluster.persist("a")
    log_now = cluster["a"].replica.log
    assert (log_now.base_index, log_now.last, log_now.commit, log_now.durable, log_now.applied) == (5, 5, 5, 5, 5)
    assert (log_now.term(5), log_now.last_term) == (1, 1)
    assert [(m.index, m.session, m.rejected) for m in cluster.sent(AppendResponse)] == [(5, SESSION, None)]


def test_rule_73_membership_comes_from_the_snapshot_not_from_the_log_it_replaces() -> None:
    cluster = Cluster()
    cluster.receive(install(3, "b", "a", snapshot(5, 1, "abd")))
    cluster.step("a", events.SnapshotReceived(3, sid("b"), SESSION, snapshot(5, 1, "abd")))
    cluster.persist("a")
    assert cluster["a"].replica.halves == (("a", "b", "d"),)
    assert cluster.trace[-1][2].configuration_changed
    assert cluster["a"].replica.configurations == [(0, configuration("abd"))]


def test_rule_79_what_a_snapshot_brings_is_not_handed_to_apply_again() -> None:
    cluster = Cluster()
    cluster.step("a", events.SnapshotReceived(3, sid("b"), SESSION, snapshot(5)))
    cluster.persist("a")
    assert [output.committed for _, _, output in cluster.trace if output.committed] == []
    cluster.receive(append(3, "b", "a", (5, 1), [3], commit=6))
    cluster.persist("a")
    assert cluster["a"].to_apply == 6


def test_rule_79_a_snapshot_that_the_log_has_overtaken_meanwhile_is_not_installed() -> None:
    """Appends of a new leader can arrive while the file is still coming."""
    cluster = Cluster()
    cluster.receive(install(1, "b", "a", snapshot(3)))
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1, 1], commit=4))
    cluster.persist("a")
    cluster.network.clear()
    output = cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(3)))
    assert output.install_snapshot is None
    assert [m.index for m in cluster.sent(AppendResponse)] == [4]
    assert not cluster["a"].replica.installing


def test_rule_80_nothing_else_touches_the_log_while_a_snapshot_is_installed() -> None:
    cluster = Cluster(logs={"a": [1, 1]})
    cluster.receive(append(1, "b", "a", (1, 1), commit=1))
    cluster.apply("a")
    cluster.network.clear()
    cluster.receive(install(1, "b", "a", snapshot(5)))
    cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(5)))
    for message in (
        append(1, "b", "a", (1, 1), [1, 1], commit=3),
        install(1, "b", "a", snapshot(7)),
    ):
        output = cluster.receive(message)
        assert output is not None
        assert (output.write, output.expect_snapshot, output.messages_after_persist) == (None, None, [])
    cluster.receive(beat(1, "b", "a", commit=2))
    assert cluster["a"].replica.log.commit == 1
    assert cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(7))).install_snapshot is None
    assert cluster.step("a", events.CompactionAsked(1)).compact == 0
    assert cluster["a"].log() == [1, 1]
    cluster.persist("a")
    assert cluster["a"].replica.log.last == 5


def test_rule_28_no_campaign_while_a_snapshot_is_installed() -> None:
    cluster = Cluster(terms={"a": 1})
    cluster.receive(beat(1, "b", "a"))
    cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(5)))
    cluster.campaign("a")
    cluster.receive(order(1, "b", "a"))
    assert (cluster["a"].role, cluster.pending(RequestVote)) == (Role.FOLLOWER, [])
    cluster.persist("a")
    cluster.campaign("a")
    assert cluster["a"].role is Role.PRE_CANDIDATE


def test_rule_81_the_acknowledgement_says_what_is_persisted_and_goes_to_the_present_leader_only() -> None:
    cluster = Cluster()
    cluster.receive(install(1, "b", "a", snapshot(5)))
    cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(5)))
    cluster.receive(beat(2, "c", "a"))
    cluster.persist("a")
    assert cluster.sent(AppendResponse) == [], (
        "under the new term it would depose somebody, under the old one it is void"
    )
    assert cluster["a"].replica.log.last == 5


def test_an_installation_that_nobody_waits_for_is_not_acknowledged() -> None:
    cluster = Cluster()
    cluster.step("a", events.SnapshotInstalled(snapshot(5)))
    assert (cluster["a"].replica.log.last, cluster.network) == (5, [])


def test_a_leader_installs_nothing() -> None:
    cluster = Cluster()
    cluster.elect("a")
    assert cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(5))).install_snapshot is None


def test_a_snapshot_announced_by_an_old_leader_is_answered_with_the_term() -> None:
    cluster = Cluster(terms={"a": 5})
    output = cluster.receive(install(3, "b", "a", snapshot(5)))
    assert output is not None
    assert output.expect_snapshot is None
    assert [m.term for m in cluster.pending(sender="a")] == [5]


def test_a_snapshots_announcement_is_a_leaders_word() -> None:
    cluster = Cluster()
    cluster.receive(install(3, "b", "a", snapshot(5)))
    assert (cluster["a"].replica.term, cluster["a"].replica.leader) == (3, "b")


def test_a_write_that_was_under_way_does_not_vouch_for_the_log_after_the_snapshot() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1]))
    cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(9)))
    cluster.receive(request(2, "b", "a", (9, 9), transfer=True))
    assert len(cluster["a"].jobs) == 3, "entries, snapshot, vote"
    cluster.persist("a")
    log = cluster["a"].replica.log
    assert (log.durable, log.last, cluster["a"].disk.hard_state.vote) == (9, 9, "b")


# --- the leader (rules 81, 82) ----------------------------------------------------------------------------------------


def test_a_follower_that_needs_what_is_compacted_is_sent_a_snapshot() -> None:
    cluster = Cluster()
    leader = needing(cluster)
    (wanted,) = leader.wanted_snapshots
    assert (wanted.peer, wanted.at_least, wanted.term) == ("c", 8, 1)
    cluster.settle()
    cluster.beat("a")
    cluster.settle()
    assert cluster["c"].replica.log.base_index == 10
    assert leader.progress("c").match == leader.replica.log.last
    assert leader.progress("c").state is ProgressState.REPLICATE


def test_slow_follower_after_compaction_goes_on_from_the_snapshot() -> None:
    cluster = Cluster()
    needing(cluster)
    cluster.propose("a", "while it is built")
    cluster.settle()
    for _ in range(3):
        cluster.beat("a")
        cluster.settle()
    cluster.propose("a", "afterwards")
    cluster.settle()
    assert cluster["c"].disk.applied == 12
    assert cluster["c"].entries()[-1] == cluster["a"].entries()[-1]


def test_rule_82_appends_pause_and_heartbeats_go_on_while_a_snapshot_is_sent() -> None:
    cluster = Cluster()
    leader = needing(cluster)
    cluster.propose("a", "x")
    assert cluster.sent(AppendEntries, receiver="c") == []
    assert len(cluster.sent(AppendEntries, receiver="b")) == 1
    cluster.beat("a")
    assert [m.receiver for m in cluster.sent(Heartbeat)] == ["b", "c"]
    cluster.receive(beat_answered(cluster, "a", "c", leader.leading.round))
    assert cluster.sent(AppendEntries, receiver="c") == []
    assert len(leader.wanted_snapshots) == 1, "asked for once"
    before = leader.progress("c").next
    cluster.receive(rejected(cluster, "a", "c", 10, (9, 1)))
    assert (leader.progress("c").state, leader.progress("c").next) == (ProgressState.SNAPSHOT, before)


def test_rule_82_a_snapshot_is_only_sent_to_a_follower_that_shows_life() -> None:
    cluster = Cluster()
    leader = lagging(cluster)
    cluster.settle()
    for _ in range(3):
        cluster.beat("a")
        cluster.settle()
    assert leader.wanted_snapshots == []


def test_rule_82_a_failed_snapshot_is_tried_again_with_the_next_heartbeat_answer() -> None:
    cluster = Cluster()
    leader = needing(cluster)
    (wanted,) = leader.wanted_snapshots
    leader.wanted_snapshots.clear()
    cluster.step("a", events.SnapshotFailed(sid("c"), wanted.session))
    assert leader.wanted_snapshots == []
    cluster.beat("a")
    cluster.receive(beat_answered(cluster, "a", "c", leader.leading.round))
    assert [again.peer for again in leader.wanted_snapshots] == ["c"]


def test_news_of_a_transfer_that_is_over_is_ignored() -> None:
    cluster = Cluster()
    leader = needing(cluster)
    session = leader.progress("c").session
    cluster.step("a", events.SnapshotFailed(sid("c"), session + 1))
    cluster.step("a", events.SnapshotSent(sid("z"), session, 8))
    cluster.step("a", events.SnapshotSent(sid("b"), leader.progress("b").session, 8))
    cluster.step("b", events.SnapshotSent(sid("c"), session, 8))
    assert leader.progress("c").state is ProgressState.SNAPSHOT
    assert leader.progress("b").state is ProgressState.REPLICATE


def test_rule_81_a_lost_acknowledgement_is_asked_for_behind_the_snapshot() -> None:
    cluster = Cluster()
    leader = needing(cluster)
    session = leader.progress("c").session
    cluster.step("a", events.SnapshotSent(sid("c"), session, 10))
    assert (leader.progress("c").state, leader.progress("c").next) == (ProgressState.PROBE, 11)
    assert cluster.sent(AppendEntries, receiver="c") == []
    cluster.beat("a")
    cluster.receive(beat_answered(cluster, "a", "c", leader.leading.round))
    assert [m.previous_index for m in cluster.sent(AppendEntries, receiver="c")] == [10]


@pytest.mark.parametrize("index", [8, 9, 10])
def test_rule_81_a_snapshot_overtaken_by_appends_or_an_older_one_moves_the_follower_on(index: int) -> None:
    """raft#110: whatever it acknowledges, if the log goes on from there, it is streamed to again."""
    cluster = Cluster()
    leader = needing(cluster)
    cluster.receive(accepted(cluster, "a", "c", index))
    assert leader.progress("c").state is ProgressState.REPLICATE
    assert leader.wanted_snapshots == [], "the transfer is stopped"
    assert [m.previous_index for m in cluster.sent(AppendEntries, receiver="c")][:1] in ([index], [])
    assert leader.progress("c").next == 11


@pytest.mark.parametrize("index", [2, 7])
def test_rule_81_an_acknowledgement_below_the_base_does_not(index: int) -> None:
    cluster = Cluster()
    leader = needing(cluster)
    cluster.receive(accepted(cluster, "a", "c", index))
    assert (leader.progress("c").state, leader.progress("c").match) == (ProgressState.SNAPSHOT, index)
    assert not cluster.trace[-1][2].stop_snapshot
    assert not cluster.trace[-1][2].send_snapshot


def test_a_restart_of_the_follower_ends_the_transfer() -> None:
    cluster = Cluster()
    leader = needing(cluster)
    leader.progress("c").boot = 1
    cluster.receive(beat_answered(cluster, "a", "c", 1, boot=2))
    assert leader.progress("c").state is not ProgressState.REPLICATE
    assert any("c" in output.stop_snapshot for _, _, output in cluster.trace)


def test_a_leader_that_steps_down_stops_its_transfers() -> None:
    cluster = Cluster()
    needing(cluster)
    output = cluster.receive(append(9, "b", "a", (10, 1)))
    assert output is not None
    assert "c" in output.stop_snapshot


# --- compaction (rules 10, 83, 85) ------------------------------------------------------------------------------------


def test_rule_10_only_what_is_applied_and_durable_is_dropped() -> None:
    cluster = Cluster()
    leader = cluster.elect("a")
    cluster.propose("a", "x", "y", "z")
    assert cluster.step("a", events.CompactionAsked(9)).compact == 1
    leader.auto_apply = False
    cluster.settle()
    assert cluster.step("a", events.CompactionAsked(9)).compact == 1, "committed, but not applied"
    cluster.apply("a")
    assert cluster.step("a", events.CompactionAsked(3)).compact == 3
    assert cluster.step("a", events.CompactionAsked(9)).compact == 4
    assert cluster.compact("a", 4) == 4
    assert cluster.step("a", events.CompactionAsked(4)).compact == 0, "nothing more to drop"


def test_rule_85_the_term_at_the_base_stays_known() -> None:
    cluster = Cluster()
    leader = lagging(cluster, entries=10, compact=10)
    log = leader.replica.log
    assert (log.term(10), log.term(9), log.last, log.last_term, log.first) == (1, None, 10, 1, 11)
    cluster.propose("a", "x")
    assert [m.previous_index for m in cluster.sent(AppendEntries, receiver="b")] == [10]


def test_compaction_keeps_the_configuration_in_force_at_the_base() -> None:
    cluster = Cluster()
    leader = cluster.elect("a")
    cluster.settle()
    for name in "de":
        cluster.step("a", events.ChangeRequested(events.AddServer(_member(name))))
        cluster.settle()
        cluster.propose("a", "x")
        cluster.settle()
    assert [at for at, _ in leader.replica.configurations] == [0, 2, 4]
    cluster.compact("a", 3)
    assert [at for at, _ in leader.replica.configurations] == [2, 4]
    cluster.crash("a")
    cluster.restart("a")
    assert [at for at, _ in leader.replica.configurations] == [2, 4]
    assert leader.replica.log.base_index == 3


def test_a_compaction_that_a_snapshot_overtook_is_ignored() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1], commit=3))
    cluster.persist("a")
    cluster.apply("a")
    old = msgspec.structs.replace(cluster["a"].disk.base, index=2, term=1)
    cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(9)))
    cluster.persist("a")
    cluster.step("a", events.Compacted(old))
    assert cluster["a"].replica.log.base_index == 9


def test_compaction_beyond_what_is_applied_is_a_contradiction() -> None:
    cluster = Cluster(logs={"a": [1, 1, 1]})
    with pytest.raises(InvariantError, match="compaction beyond applied"):
        cluster.step("a", events.Compacted(msgspec.structs.replace(cluster["a"].disk.base, index=2, term=1)))


def test_a_snapshot_in_a_three_server_cluster_that_restarts_often() -> None:
    cluster = Cluster()
    needing(cluster)
    cluster.settle()
    for name in "cba":
        cluster.crash(name)
        cluster.run(3 * T)
        cluster.restart(name)
        cluster.run(3 * T)
    last = {s.replica.log.last for s in cluster.servers.values()}
    assert len(last) == 1
    assert {s.replica.log.commit for s in cluster.servers.values()} == last
    assert not cluster.pending(InstallSnapshot)


def _member(name: str) -> Member:
    return configuration("", name).members[0]
