"""Rules E of the core (rules 54-63): linearizable reads without log entries, and the leader lease."""

import pytest

from coordd.messages.peer import AppendEntries, Heartbeat, HeartbeatResponse, ReadIndexRequest, ReadIndexResponse
from coordd.raft import events
from coordd.raft.settings import RaftSettings
from tests.raft.cluster import Cluster, Server, sid
from tests.raft.words import accepted, beat_answered, request

T = 0.3
LEASE = RaftSettings().lease_duration


def ready(cluster: Cluster, name: str = "a") -> Server:
    """A leader with a confirmed round and an empty network."""
    server = cluster.elect(name)
    cluster.beat(name)
    cluster.settle()
    assert cluster.network == []
    return server


def answer(cluster: Cluster, peer: str, number: int | None = None, leader: str = "a") -> None:
    """The peer answers a round (the newest), whatever became of the heartbeat."""
    number = cluster[leader].leading.round if number is None else number
    cluster.receive(beat_answered(cluster, leader, peer, number))


# --- ReadIndex (rules 54 - 57) ----------------------------------------------------------------------------------------


def test_rule_54_a_read_begins_a_round_and_waits_for_a_quorum() -> None:
    cluster = Cluster(tuple("abcde"))
    leader = ready(cluster)
    before = leader.leading.round
    cluster.read("a", 1)
    assert leader.leading.round == before + 1
    assert [m.round for m in cluster.sent(Heartbeat)] == [before + 1] * 4
    answer(cluster, "b")
    assert leader.reads == {}
    answer(cluster, "c")
    assert leader.reads == {1: 1}


def test_rule_54_the_index_is_the_commit_index_when_the_read_was_accepted() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "x")
    cluster.read("a", 1)
    cluster.settle()
    assert leader.replica.log.commit == 2
    assert leader.reads == {1: 1}
    cluster.read("a", 2)
    cluster.settle()
    assert leader.reads == {1: 1, 2: 2}


def test_rule_54_a_commit_after_the_acceptance_does_not_move_the_index() -> None:
    cluster = Cluster(tuple("abcde"))
    leader = ready(cluster)
    cluster.read("a", 1)
    cluster.propose("a", "x")
    cluster.persist("a")
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 2))
    assert leader.replica.log.commit == 2
    for name in "bc":
        answer(cluster, name)
    assert leader.reads == {1: 1}


def test_rule_54_answers_to_a_round_begun_earlier_do_not_count() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.beat("a")
    earlier = leader.leading.round
    cluster.read("a", 1)
    answer(cluster, "b", earlier)
    answer(cluster, "c", earlier)
    assert leader.reads == {}
    answer(cluster, "b")
    assert leader.reads == {1: 1}


def test_rule_54_before_the_first_commit_of_the_term_no_read_is_answered() -> None:
    """etcd#7331: the leader may not know yet what is committed."""
    cluster = Cluster(
        logs={name: [1, 1] for name in "abc"}, terms=dict.fromkeys("abc", 1), commits=dict.fromkeys("abc", 2)
    )
    leader = cluster.lead("a")
    cluster.persist("a")
    assert leader.replica.log.commit == 2
    cluster.read("a", 1)
    for _ in range(2):
        cluster.beat("a")
        answer(cluster, "b")
        answer(cluster, "c")
    assert leader.reads == {}
    cluster.read("a", 2)
    cluster.receive(accepted(cluster, "a", "b", 3))
    assert leader.reads == {}, "a round of before is no proof for now"
    answer(cluster, "b")
    assert leader.reads == {1: 3, 2: 3}


def test_rule_55_an_answer_to_an_earlier_read_does_not_confirm_a_later_one() -> None:
    """etcd#20418: the token is the leader's round, not the asker's number."""
    cluster = Cluster()
    leader = ready(cluster)
    cluster.read("a", 1)
    first = leader.leading.round
    late = beat_answered(cluster, "a", "c", first)
    answer(cluster, "b")
    assert leader.reads.pop(1) == 1
    cluster.propose("a", "x")
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 2))
    cluster.read("a", 1)
    cluster.receive(late)
    answer(cluster, "b", first)
    assert leader.reads == {}, "the same number, asked again, needs its own round"
    answer(cluster, "b")
    assert leader.reads == {1: 2}


def test_rule_55_rounds_rise_and_never_repeat_within_a_term() -> None:
    cluster = Cluster()
    ready(cluster)
    seen: list[int] = []
    for n in range(5):
        cluster.read("a", n)
        cluster.beat("a")
        seen += [m.round for m in cluster.sent(Heartbeat, receiver="b")]
        cluster.settle()
    assert seen == sorted(set(seen))


def test_rule_56_one_round_confirms_all_reads_accepted_before_it_began_and_none_after() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.read("a", 1)
    sent = len(cluster.sent(Heartbeat))
    for n in (2, 3, 4):
        cluster.read("a", n)
    assert len(cluster.sent(Heartbeat)) == sent, "they wait for the round under way, then share one"
    first = leader.leading.round
    answer(cluster, "b", first)
    assert leader.reads == {1: 1}
    assert leader.leading.round == first + 1
    answer(cluster, "c", first)
    assert leader.reads == {1: 1}
    answer(cluster, "c", first + 1)
    assert leader.reads == {1: 1, 2: 1, 3: 1, 4: 1}


def test_rule_56_a_heartbeat_takes_waiting_reads_along() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.read("a", 1)
    cluster.read("a", 2)
    cluster.beat("a")
    answer(cluster, "b")
    assert leader.reads == {1: 1, 2: 1}


def test_rule_57_reads_are_given_back_when_the_leader_steps_down() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.read("a", 1)
    cluster.receive(request(9, "b", "a", (9, 9), transfer=True))
    assert leader.reads == {1: None}
    cluster.elect("a")
    answer(cluster, "b", 99)
    assert leader.reads == {1: None}


def test_rule_57_a_read_of_an_earlier_term_is_not_answered_in_a_later_one() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("a")
    cluster.read("a", 1)
    cluster.run(2 * T)
    assert leader.reads == {1: None}


def test_a_cluster_of_one_confirms_alone() -> None:
    cluster = Cluster(("a",))
    leader = cluster.elect("a")
    cluster.read("a", 1)
    assert leader.reads == {1: 1}


def test_learners_confirm_nothing() -> None:
    cluster = Cluster(learners=("d", "e"))
    leader = ready(cluster)
    cluster.read("a", 1)
    answer(cluster, "d")
    answer(cluster, "e")
    assert leader.reads == {}


def test_reads_that_wait_are_bounded() -> None:
    cluster = Cluster(settings=RaftSettings(max_reads=2))
    leader = ready(cluster)
    for n in (1, 2, 3):
        cluster.read("a", n)
    assert leader.reads == {3: None}
    cluster.settle()
    assert leader.reads == {1: 1, 2: 1, 3: None}
    cluster.isolate("b")
    for n in (1, 2, 3):
        cluster.read("b", n)
    assert cluster["b"].reads == {3: None}


def test_rounds_for_reads_do_not_postpone_what_a_leader_does_now_and_then() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("c")
    cluster.propose("a", "x")
    cluster.step("a", events.TransferRequested(sid("c")))
    for n in range(30):
        cluster.advance(T / 20)
        cluster.read("a", n)
        cluster.settle()
        if leader.deadline <= cluster.now:
            cluster.tick("a")
    assert leader.leading.transfer is None


def test_rule_99_no_round_begins_while_the_disk_hangs() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.advance(RaftSettings().heartbeat_interval)
    cluster.tick("a", stalled=True)
    cluster.read("a", 1)
    assert cluster.network == []
    cluster.advance(RaftSettings().heartbeat_interval)
    cluster.tick("a")
    cluster.settle()
    assert leader.reads == {1: 1}


# --- reads from followers (rule 62) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asker", ["b", "d"])
def test_rule_62_a_follower_or_learner_asks_its_leader(asker: str) -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    cluster.read(asker, 7)
    (asked,) = cluster.sent(ReadIndexRequest)
    assert (asked.sender, asked.receiver, asked.term) == (asker, "a", leader.replica.term)
    cluster.deliver(ReadIndexRequest)
    assert cluster.sent(ReadIndexResponse) == []
    cluster.settle()
    assert cluster[asker].reads == {7: 1}
    assert leader.reads == {}


def test_rule_62_without_a_leader_the_asker_is_told_to_ask_again() -> None:
    cluster = Cluster()
    cluster.read("b", 1)
    assert cluster["b"].reads == {1: None}


def test_rule_62_whoever_does_not_lead_says_so() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.receive(ReadIndexRequest(1, sid("b"), sid("c"), 5))
    assert [(m.receiver, m.request, m.index) for m in cluster.sent(ReadIndexResponse)] == [("b", 5, None)]


def test_rule_62_a_lost_question_is_given_back_after_an_election_timeout() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.read("b", 1)
    cluster.drop(ReadIndexRequest)
    cluster.advance(T / 2)
    cluster.read("b", 2)
    cluster.drop(ReadIndexRequest)
    assert cluster["b"].deadline <= cluster.now + T / 2 + 1e-9
    cluster.beat("a")
    cluster.settle()
    cluster.advance(T / 2 - RaftSettings().heartbeat_interval)
    cluster.tick("b")
    assert cluster["b"].reads == {1: None}
    cluster.advance(T / 2)
    cluster.tick("b")
    assert cluster["b"].reads == {1: None, 2: None}


def test_rule_57_questions_to_a_leader_that_is_gone_are_given_back() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.read("b", 1)
    cluster.drop()
    cluster.elect("c")
    assert cluster["b"].reads == {1: None}


def test_an_answer_that_nobody_waits_for_is_ignored() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.receive(ReadIndexResponse(1, sid("a"), sid("b"), 5, 1))
    assert cluster["b"].reads == {}


# --- the lease (rules 58 - 61) ----------------------------------------------------------------------------------------


def test_rule_59_the_lease_counts_from_when_the_round_was_sent() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.beat("a")
    sent = cluster.now
    cluster.advance(LEASE / 2)
    answer(cluster, "b")
    assert leader.raft.lease_valid(sent + LEASE - 1e-6)
    assert not leader.raft.lease_valid(sent + LEASE)


def test_rule_59_the_lease_is_shorter_than_the_time_for_which_followers_are_deaf() -> None:
    assert RaftSettings().lease_duration < 0.9 * RaftSettings().election_timeout


def test_rule_59_a_late_answer_to_an_old_round_does_not_extend_the_lease() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    first = cluster.now
    for _ in range(3):
        cluster.beat("a")
    answer(cluster, "b", leader.leading.round - 3)
    answer(cluster, "c", leader.leading.round - 2)
    sent = first + RaftSettings().heartbeat_interval
    assert leader.leading.lease_until == pytest.approx(sent + LEASE)


def test_rule_59_a_round_needs_a_quorum_to_extend_the_lease() -> None:
    cluster = Cluster(tuple("abcde"))
    leader = ready(cluster)
    cluster.advance(LEASE)
    cluster.beat("a")
    answer(cluster, "b")
    assert not leader.raft.lease_valid(cluster.now)
    answer(cluster, "c")
    assert leader.raft.lease_valid(cluster.now)


def test_rule_54_no_lease_before_the_first_commit_of_the_term() -> None:
    cluster = Cluster()
    leader = cluster.lead("a")
    answer(cluster, "b")
    assert not leader.raft.lease_valid(cluster.now)
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 1))
    assert leader.raft.lease_valid(cluster.now)


def test_a_follower_has_no_lease() -> None:
    cluster = Cluster()
    ready(cluster)
    assert not cluster["b"].raft.lease_valid(cluster.now)


def test_rule_58_no_lease_while_leadership_is_handed_over_and_none_after_the_order() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "x")
    cluster.step("a", events.TransferRequested(sid("b")))
    assert not leader.raft.lease_valid(cluster.now), "under way"
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert leader.leading.lease_forfeited
    cluster.network.clear()
    for _ in range(7):
        cluster.beat("a")
        answer(cluster, "b")
        answer(cluster, "c")
    assert leader.leading.transfer is None, "given up"
    assert not leader.raft.lease_valid(cluster.now), "the order may still arrive"
    cluster.read("a", 1)
    answer(cluster, "b")
    assert leader.reads == {1: 2}, "a round of its own is as good as ever"


def test_rule_58_a_transfer_that_ended_before_the_order_leaves_the_lease_alone() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("c")
    cluster.propose("a", "x")
    cluster.step("a", events.TransferRequested(sid("c")))
    cluster.run(2 * T)
    assert leader.leading.transfer is None
    assert leader.raft.lease_valid(cluster.now)


def test_rule_61_two_leaders_never_have_a_lease_at_once() -> None:
    """The old leader is cut off with one reader; its lease has ended when the others elect."""
    for seed in range(10):
        cluster = Cluster(tuple("abcde"), seed=seed)
        ready(cluster)
        cluster.isolate("a")
        valid = []
        for _ in range(200):
            cluster.run(0.005)
            valid = [s.id for s in cluster.servers.values() if s.raft.lease_valid(cluster.now)]
            assert len(valid) <= 1, f"seed {seed}: {valid}"
        assert valid
        assert valid != ["a"]


def test_heartbeats_alone_answer_no_read_of_a_leader_that_was_replaced() -> None:
    cluster = Cluster()
    old = ready(cluster)
    cluster.isolate("a")
    cluster.elect("b")
    cluster.propose("b", "new")
    cluster.settle()
    cluster.heal()
    cluster.read("a", 1)
    cluster.deliver(Heartbeat)
    for name in "bc":
        cluster.persist(name)
    cluster.deliver(HeartbeatResponse)
    assert old.reads == {1: None}
    assert not cluster.sent(AppendEntries, sender="a")
