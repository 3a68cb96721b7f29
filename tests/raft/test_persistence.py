"""Rules A and J of the core (rules 1-13, 97-99, 109-111): what may leave before what is durable, and lives of a server."""

import pytest

from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    RequestVote,
    VoteResponse,
)
from coordd.raft import events
from coordd.raft.output import Role
from coordd.raft.progress import ProgressState
from coordd.raft.settings import RaftSettings
from tests.raft.cluster import Cluster, Server, sid
from tests.raft.words import accepted, append, beat, beat_answered, grant, order, request

T = 0.3


def ready(cluster: Cluster, name: str = "a") -> Server:
    server = cluster.elect(name)
    cluster.beat(name)
    cluster.settle()
    return server


# --- what waits for the disk (rules 1 - 5, 109) -----------------------------------------------------------------------


def test_rule_1_a_vote_leaves_after_term_and_vote_are_durable() -> None:
    cluster = Cluster()
    cluster.advance(1)
    output = cluster.receive(request(3, "b", "a"))
    assert output is not None
    assert output.write is not None
    assert (output.write.hard_state.term, output.write.hard_state.vote) == (3, "b")
    assert output.write.must_sync
    assert cluster.sent(VoteResponse) == []
    cluster.persist("a")
    assert cluster.sent(VoteResponse) == [grant(3, "a", "b")]


@pytest.mark.parametrize("kind", ["append", "vote", "refused vote", "beat", "answer"])
def test_rule_1_a_newer_term_is_written_in_the_step_that_adopts_it(kind: str) -> None:
    cluster = Cluster(logs={"a": [2]})
    ready(cluster)
    cluster.advance(T)
    message = {
        "append": append(9, "b", "a", (2, 3)),
        "vote": request(9, "b", "a", (9, 9), transfer=True),
        "refused vote": request(9, "b", "a", transfer=True),
        "beat": beat(9, "b", "a"),
        "answer": HeartbeatResponse(9, sid("b"), sid("a"), 1, 1, 0),
    }
    output = cluster.receive(message[kind])  # type: ignore[arg-type]
    assert output is not None
    assert output.write is not None
    assert output.write.hard_state.term == 9


def test_rule_2_the_candidates_own_vote_counts_when_it_is_durable() -> None:
    cluster = Cluster()
    cluster.campaign("a")
    cluster.network.clear()
    cluster.receive(grant(1, "b", "a", pre=True))
    assert cluster["a"].role is Role.CANDIDATE
    cluster.receive(grant(1, "b", "a"))
    assert cluster.role("a") is Role.CANDIDATE, "one vote of three"
    cluster.persist("a")
    assert cluster.role("a") is Role.LEADER


def test_rule_2_a_single_server_waits_for_its_disk_too() -> None:
    cluster = Cluster(("a",))
    cluster.campaign("a")
    assert cluster.role("a") is Role.CANDIDATE
    cluster.persist("a")
    assert cluster.role("a") is Role.LEADER
    assert cluster["a"].replica.log.commit == 0
    cluster.persist("a")
    assert cluster["a"].replica.log.commit == 1


def test_rule_2_an_earlier_write_does_not_make_the_own_vote_durable() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1]))
    cluster.advance(2 * T)
    cluster.tick("a")
    cluster.receive(grant(2, "b", "a", pre=True))
    cluster.receive(grant(2, "b", "a"))
    assert len(cluster["a"].jobs) == 2
    cluster.persist("a", 1)
    assert cluster.role("a") is Role.CANDIDATE
    cluster.persist("a", 1)
    assert cluster.role("a") is Role.LEADER


def test_rule_3_term_and_entries_are_one_write() -> None:
    cluster = Cluster()
    output = cluster.receive(append(4, "b", "a", terms=[3, 4]))
    assert output is not None
    assert output.write is not None
    assert output.write.slice is not None
    assert (output.write.hard_state.term, output.write.slice.last) == (4, 2)


def test_rule_4_an_acknowledgement_leaves_after_the_entries_are_durable() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1]))
    assert cluster.sent(AppendResponse) == []
    cluster.persist("a")
    assert [m.index for m in cluster.sent(AppendResponse)] == [2]


def test_rule_4_a_rejection_waits_as_well_and_a_heartbeat_answer_does_not() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1]))
    cluster.receive(append(1, "b", "a", (7, 1)))
    cluster.receive(beat(1, "b", "a"))
    assert [type(m) for m in cluster.pending(sender="a")] == [HeartbeatResponse]
    cluster.persist("a")
    assert len(cluster.sent(AppendResponse)) == 2


def test_rule_5_a_commit_index_alone_is_no_write() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1]))
    cluster.persist("a")
    output = cluster.receive(beat(1, "b", "a", commit=1))
    assert output is not None
    assert (output.write, output.committed) == (None, 1)
    output = cluster.receive(append(1, "b", "a", (1, 1), [1]))
    assert output is not None
    assert output.write is not None
    assert output.write.hard_state.commit == 1, "it travels with the next write"


def test_rule_5_a_single_server_commits_again_what_it_forgot_to_have_committed() -> None:
    cluster = Cluster(("a",), logs={"a": [1, 1, 1]})
    assert cluster["a"].replica.log.commit == 0
    cluster.run(0)
    assert cluster["a"].replica.log.commit == 4
    assert cluster["a"].disk.applied == 4


def test_rule_6_a_single_server_commits_after_its_own_fsync() -> None:
    cluster = Cluster(("a",))
    leader = ready(cluster)
    cluster.propose("a", "x")
    assert (leader.replica.log.commit, leader.to_apply) == (1, 1)
    cluster.persist("a")
    assert (leader.replica.log.commit, leader.to_apply) == (2, 2)


def test_rule_12_what_is_committed_and_not_applied_is_handed_out_again_after_a_restart() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster["b"].auto_apply = False
    cluster.propose("a", "x", "y")
    cluster.settle()
    cluster.propose("a", "z")
    cluster.settle()
    cluster.crash("b")
    assert cluster["b"].disk.applied == 1
    output = cluster.restart("b")
    assert output.committed == 3, "as far as the hint on disk knows"
    assert cluster["b"].replica.log.applied == 1


def test_rule_109_a_real_request_leaves_after_term_vote_and_log_are_durable() -> None:
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1]))
    cluster.network.clear()
    cluster.advance(2 * T)
    cluster.tick("a")
    assert [m.pre for m in cluster.sent(RequestVote)] == [True, True], "a question risks nothing"
    cluster.network.clear()
    cluster.receive(grant(2, "b", "a", pre=True))
    assert cluster.sent(RequestVote) == []
    cluster.persist("a", 1)
    assert cluster.sent(RequestVote) == []
    cluster.persist("a", 1)
    assert [(m.last_index, m.last_term) for m in cluster.sent(RequestVote)] == [(2, 1)] * 2


# --- late completions (rules 97, 98) ----------------------------------------------------------------------------------


def test_rule_97_a_completion_does_not_vouch_for_entries_that_were_replaced_since() -> None:
    """The ABA problem: entries 2-3 of term 1, replaced by term 2, replaced back by a leader that still has those of term 1."""
    cluster = Cluster()
    a = cluster["a"]
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1]))
    cluster.receive(append(2, "c", "a", (1, 1), [2, 2]))
    cluster.receive(append(3, "b", "a", (1, 1), [1, 1]))
    assert len(a.jobs) == 3
    cluster.persist("a", 1)
    assert (a.replica.log.durable, a.disk.last) == (1, 3), "3 is on disk, but will be replaced by the next write"
    cluster.persist("a", 1)
    assert a.replica.log.durable == 1
    assert cluster.sent(AppendResponse) == [], "acknowledgements of older terms are void"
    cluster.persist("a", 1)
    assert a.replica.log.durable == 3
    assert [(m.term, m.index) for m in cluster.sent(AppendResponse)] == [(3, 3)]


def test_rule_97_a_leaders_own_late_completion_counts_no_more_than_it_should() -> None:
    """SelfAckAfterTermChange: a writes as leader of term 1, is replaced, and leads again before the first write is done."""
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "old")
    cluster.network.clear()
    cluster.receive(append(2, "b", "a", (1, 1), [2]))
    cluster.advance(2 * T)
    assert leader.replica.log.durable == 1
    cluster.persist("a", 1)
    assert (leader.replica.log.durable, leader.log()) == (1, [1, 2])
    cluster.persist("a", 1)
    assert leader.replica.log.durable == 2


def test_rule_98_completions_of_several_writes_come_as_one() -> None:
    cluster = Cluster()
    a = cluster["a"]
    for n in range(3):
        cluster.receive(append(1, "b", "a", (n, 1 if n else 0), [1]))
    for job in list(a.jobs):
        a.disk.write(job)  # type: ignore[arg-type]
    a.jobs.clear()
    a.finished = 3
    cluster.step("a", events.Persisted(3))
    assert a.replica.log.durable == 3
    cluster.step("a", events.Persisted(2))
    assert a.replica.log.durable == 3


# --- the hanging disk (rule 99) ---------------------------------------------------------------------------------------


def test_rule_99_a_leader_whose_disk_hangs_falls_silent_and_is_replaced() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.advance(cluster.settings.heartbeat_interval)
    cluster.tick("a", stalled=True)
    cluster.propose("a", "x")
    cluster.receive(beat_answered(cluster, "a", "b", leader.leading.round))
    assert cluster.network == []
    while leader.role is Role.LEADER:
        cluster.advance(cluster.settings.heartbeat_interval)
        cluster.tick("a", stalled=True)
        assert not cluster.pending((Heartbeat, AppendEntries))
    cluster.elect("b")
    assert cluster["c"].replica.leader == "b"


def test_rule_99_a_leader_whose_disk_hangs_steps_down_also_where_nobody_can_be_elected() -> None:
    """Its clients then ask elsewhere, in place of waiting for a disk."""
    cluster = Cluster()
    leader = ready(cluster)
    cluster.crash("c")
    cluster.run(0.1)
    cluster.advance(cluster.settings.heartbeat_interval)
    began = cluster.now
    while leader.role is Role.LEADER and cluster.now < began + 10:
        cluster.tick("a", stalled=True)
        cluster.settle()
        cluster.advance(cluster.settings.heartbeat_interval)
    assert cluster.now - began < 2 * cluster.settings.election_timeout
    assert cluster["b"].role is Role.FOLLOWER


def test_rule_99_a_disk_that_works_again_in_time_costs_nothing() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.advance(cluster.settings.heartbeat_interval)
    cluster.tick("a", stalled=True)
    cluster.propose("a", "x")
    cluster.beat("a")
    assert len(cluster.sent(Heartbeat)) == len(cluster.sent(AppendEntries)) == 2
    cluster.settle()
    assert (leader.role, leader.replica.log.commit) == (Role.LEADER, 2)


# --- restarts (rules 43, 61) ------------------------------------------------------------------------------------------


def test_a_restarted_follower_is_probed_again() -> None:
    """What it acknowledged may be gone if its disk lied; what counts is what it says in its new life."""
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "x", "y")
    cluster.settle()
    assert leader.progress("b").match == 3
    cluster.crash("b")
    cluster.restart("b")
    cluster.beat("a")
    cluster.deliver(Heartbeat)
    (answer,) = cluster.sent(HeartbeatResponse, sender="b")
    assert answer.boot == cluster["b"].boot
    cluster.receive(answer)
    progress = leader.progress("b")
    assert (progress.match, progress.state, progress.next) == (0, ProgressState.PROBE, 4)
    assert [m.previous_index for m in cluster.sent(AppendEntries, receiver="b")] == [3]
    cluster.settle()
    assert (leader.progress("b").match, leader.progress("b").state) == (3, ProgressState.REPLICATE)


def test_a_restarted_follower_does_not_count_with_what_it_acknowledged_before() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "x")
    cluster.receive(accepted(cluster, "a", "b", 2))
    cluster.receive(beat_answered(cluster, "a", "b", 1, boot=2))
    cluster.persist("a")
    assert leader.replica.log.commit == 1
    cluster.receive(accepted(cluster, "a", "b", 2, boot=2))
    assert leader.replica.log.commit == 2


def test_an_uncommitted_tail_may_be_replaced_after_a_restart_without_anything_being_forgotten() -> None:
    """promised is the high-water mark, so after a clean restart it is the last index: a shorter log later is no amnesia."""
    cluster = Cluster(logs={"a": [1], "b": [1, 1, 1, 1], "c": [1]}, terms={"a": 2, "b": 1, "c": 2})
    cluster.isolate("b")
    leader = cluster.elect("a")
    cluster.heal()
    cluster.crash("c")
    cluster.beat("a")
    cluster.settle()
    assert cluster["b"].log() == [1, 3]
    cluster.propose("a", "x")
    cluster.settle()
    assert leader.replica.log.commit == 3
    assert not cluster["b"].replica.refilling


def test_a_log_that_is_whole_owes_nothing() -> None:
    cluster = Cluster(logs={"b": [1, 1, 1, 1]})
    cluster.receive(append(2, "a", "b", (1, 1), [2]))
    cluster.persist("b")
    assert cluster["b"].log() == [1, 2]
    assert not cluster["b"].replica.refilling
    assert [m.refilling for m in cluster.sent(AppendResponse)] == [False]


def test_hard_state_survives_and_the_role_does_not() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.crash("a")
    cluster.restart("a")
    assert (leader.role, leader.replica.term, leader.replica.vote, leader.log()) == (Role.FOLLOWER, 1, "a", [1])


def test_rule_110_a_restarted_server_never_leads_again_in_the_same_term() -> None:
    cluster = Cluster(("a",))
    leader = ready(cluster)
    for _ in range(3):
        term = leader.replica.term
        cluster.crash("a")
        cluster.restart("a")
        cluster.run(1)
        assert leader.role is Role.LEADER
        assert leader.replica.term > term


def test_the_tail_in_memory_may_be_short_if_it_reaches_back_to_the_commit_index() -> None:
    cluster = Cluster(logs={name: [1, 1, 2, 2, 3, 3] for name in "abc"}, commits=dict.fromkeys("abc", 4))
    cluster.crash("a")
    cluster.restart("a", tail=2)
    log = cluster["a"].replica.log
    assert (log.first, log.last, [log.term(n) for n in range(1, 7)]) == (5, 6, [1, 1, 2, 2, 3, 3])
    cluster.run(3)
    assert len({tuple(s.log()) for s in cluster.servers.values()}) == 1


# --- a disk that forgot (rule 111) ------------------------------------------------------------------------------------


def forgetful(cluster: Cluster, last: int = 3, promised: int = 6) -> Server:
    """a leads with six entries, committed and applied; b's disk has lost the newest of them."""
    leader = ready(cluster)
    for text in "vwxyz":
        cluster.propose("a", text)
    cluster.settle()
    assert leader.replica.log.commit == 6
    cluster.crash("b")
    cluster.forget("b", last)
    cluster["b"].disk.applied = min(cluster["b"].disk.applied, last)
    cluster.restart("b", promised=promised)
    assert cluster["b"].replica.refilling
    return cluster["b"]


def test_rule_111_a_server_that_forgot_gives_no_vote() -> None:
    cluster = Cluster()
    forgetful(cluster)
    cluster.advance(2 * T)
    for pre in (True, False):
        cluster.receive(request(7, "c", "b", (6, 1), pre=pre))
        cluster.persist("b")
    assert [m.granted for m in cluster.sent(VoteResponse)] == [False, False]


def test_rule_111_a_server_that_forgot_does_not_campaign() -> None:
    cluster = Cluster()
    b = forgetful(cluster)
    cluster.receive(beat(1, "a", "b"))
    cluster.receive(order(1, "a", "b"))
    cluster.campaign("b")
    assert (b.role, cluster.sent(RequestVote)) == (Role.FOLLOWER, [])


def test_rule_111_its_acknowledgements_do_not_count_until_it_holds_what_it_once_had() -> None:
    cluster = Cluster()
    forgetful(cluster, promised=8)
    leader = cluster["a"]
    cluster.isolate("c")
    cluster.network.clear()
    cluster.beat("a")
    cluster.settle()
    cluster.propose("a", "7")
    cluster.settle()
    assert (leader.progress("b").match, leader.progress("b").refilling) == (7, True)
    assert leader.replica.log.commit == 6, "its copy of 7 may be what lets it forget 8"
    cluster.propose("a", "8")
    cluster.settle()
    assert (leader.progress("b").refilling, leader.replica.log.commit) == (False, 8)


def test_rule_111_a_rejection_tells_of_it_too() -> None:
    cluster = Cluster()
    forgetful(cluster)
    cluster.receive(append(1, "a", "b", (5, 1)))
    assert [(m.rejected, m.refilling) for m in cluster.sent(AppendResponse)] == [(5, True)]


def test_rule_111_once_refilled_it_is_whole() -> None:
    cluster = Cluster()
    b = forgetful(cluster)
    cluster.beat("a")
    cluster.settle()
    assert (b.log(), b.replica.refilling) == ([1] * 6, False)
    cluster.crash("a")
    cluster.run(3)
    assert {cluster.role("b"), cluster.role("c")} == {Role.LEADER, Role.FOLLOWER}


def test_rule_111_whoever_was_whole_again_does_not_forget_by_what_a_leader_replaces() -> None:
    cluster = Cluster(tuple("abcde"))
    b = forgetful(cluster, promised=8)
    cluster.isolate("a", "b")
    cluster.beat("a")
    cluster.settle()
    cluster.propose("a", "7", "8")
    cluster.settle()
    assert (b.log(), b.replica.refilling) == ([1] * 8, False)
    cluster.elect("c")
    cluster.heal()
    cluster.beat("c")
    cluster.settle()
    assert (b.log(), b.replica.refilling) == ([1] * 6 + [2], False)


def test_rule_111_a_snapshot_refills_too() -> None:
    cluster = Cluster()
    b = forgetful(cluster)
    assert cluster.compact("a", 6) == 6
    for _ in range(3):
        cluster.beat("a")
        cluster.settle()
    assert (b.replica.log.base_index, b.replica.refilling) == (6, False)


def test_rule_111_a_state_that_is_ahead_of_the_log_that_forgot_is_refilled() -> None:
    """The state had applied 6 when the log lost 4-6: what storage reports then must lead out, not into a loop."""
    cluster = Cluster()
    leader = ready(cluster)
    for text in "vwxyz":
        cluster.propose("a", text)
    cluster.settle()
    cluster.crash("b")
    cluster.forget("b", 3)
    assert cluster["b"].disk.applied == 6
    cluster.restart("b", promised=6)
    cluster.run(3 * T)
    assert cluster["b"].entries() == leader.entries()


def test_rule_111_what_the_state_has_applied_was_promised_too() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.propose("a", "x", "y")
    cluster.settle()
    cluster.crash("b")
    cluster.forget("b", 1)
    cluster.restart("b", promised=1)
    assert cluster["b"].replica.refilling


def test_rule_111_a_single_server_that_forgot_stays_silent() -> None:
    cluster = Cluster(("a",))
    ready(cluster)
    cluster.propose("a", "x")
    cluster.settle()
    cluster.crash("a")
    cluster.forget("a", 1)
    cluster["a"].disk.applied = 1
    cluster.restart("a", promised=2)
    cluster.run(10)
    assert cluster["a"].role is Role.FOLLOWER


def test_a_boot_id_is_part_of_every_answer() -> None:
    cluster = Cluster(settings=RaftSettings())
    cluster.crash("a")
    cluster.restart("a")
    cluster.receive(append(1, "b", "a"))
    cluster.receive(append(1, "b", "a", (9, 1)))
    cluster.receive(beat(1, "b", "a"))
    cluster.persist("a")
    boots = [m.boot for m in cluster.sent(AppendResponse)] + [m.boot for m in cluster.sent(HeartbeatResponse)]
    assert boots == [cluster["a"].boot] * 3
