"""Rules H of the core (rules 87-90): handing leadership over on purpose."""

import pytest

from coordd.messages.peer import AppendEntries, RequestVote, TimeoutNow, VoteResponse
from coordd.raft import events
from coordd.raft.output import Accepted, Output, Refusal, Role
from coordd.raft.progress import ProgressState
from tests.raft.cluster import Cluster, Server, member, sid
from tests.raft.words import accepted, beat_answered, grant, order, refusal, rejected, request

T = 0.3


def ready(cluster: Cluster, name: str = "a") -> Server:
    server = cluster.elect(name)
    cluster.beat(name)
    cluster.settle()
    return server


def transfer(cluster: Cluster, target: str | None = None, leader: str = "a") -> Output:
    return cluster.step(leader, events.TransferRequested(sid(target) if target else None))


def test_rule_87_an_up_to_date_target_is_told_at_once() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    assert transfer(cluster, "b").transfer == "b"
    assert cluster.sent(TimeoutNow) == [order(1, "a", "b")]
    cluster.settle()
    assert (cluster["b"].role, leader.role, leader.replica.leader) == (Role.LEADER, Role.FOLLOWER, "b")
    assert cluster["b"].replica.term == 2


def test_rule_87_a_target_that_lags_is_told_when_it_has_everything_durably() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "x")
    transfer(cluster, "b")
    cluster.deliver(AppendEntries)
    assert cluster.sent(TimeoutNow) == []
    assert leader.replica.log.last == 2
    cluster.persist("b")
    cluster.deliver()
    assert [m.receiver for m in cluster.sent(TimeoutNow)] == ["b"]
    cluster.settle()
    assert cluster["b"].role is Role.LEADER


def test_rule_87_the_order_is_given_once() -> None:
    cluster = Cluster()
    ready(cluster)
    transfer(cluster, "b")
    cluster.beat("a")
    cluster.receive(accepted(cluster, "a", "b", 1))
    assert len(cluster.sent(TimeoutNow)) == 1


def test_rule_87_no_proposals_meanwhile() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("b")
    cluster.propose("a", "x")
    transfer(cluster, "b")
    assert cluster.propose("a", "y").proposal is Refusal.TRANSFERRING
    assert leader.replica.log.last == 2


def test_rule_87_89_it_is_given_up_after_an_election_timeout_and_proposals_are_taken_again() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("b")
    transfer(cluster, "b")
    cluster.run(T * 0.9)
    assert cluster.propose("a", "x").proposal is Refusal.TRANSFERRING
    cluster.run(T * 0.3)
    assert leader.role is Role.LEADER
    assert "transfer failed" in leader.facts
    assert cluster.propose("a", "x").proposal == Accepted(2, 1, 1)
    assert transfer(cluster, "c").transfer == "c"


@pytest.mark.parametrize("target", ["a", "d", "z"])
def test_rule_87_the_target_is_another_voter(target: str) -> None:
    """consul#7031: a learner can't lead."""
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    assert transfer(cluster, target).transfer is Refusal.NO_TARGET
    assert leader.leading.transfer is None


def test_only_a_leader_hands_over() -> None:
    cluster = Cluster()
    ready(cluster)
    assert transfer(cluster, "c", "b").transfer is Refusal.NOT_LEADER


def test_a_cluster_of_one_has_nobody_to_hand_over_to() -> None:
    cluster = Cluster(("a",))
    ready(cluster)
    assert transfer(cluster).transfer is Refusal.NO_TARGET


def test_a_second_transfer_to_the_same_target_is_the_same_one_to_another_is_refused() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("b")
    transfer(cluster, "b")
    deadline = leader.leading.transfer
    cluster.advance(T / 2)
    assert transfer(cluster, "b").transfer == "b"
    assert transfer(cluster).transfer == "b"
    assert transfer(cluster, "c").transfer is Refusal.TRANSFERRING
    assert leader.leading.transfer is deadline, "not prolonged"


def test_rule_90_without_a_target_the_follower_that_has_most_is_chosen() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.propose("a", "x")
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert transfer(cluster).transfer == "b"


def test_rule_90_neither_a_silent_nor_a_refilling_follower_is_chosen() -> None:
    cluster = Cluster(tuple("abcde"), ("f",))
    leader = ready(cluster)
    cluster.propose("a", "x")
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "e", 2))
    cluster.advance(2 * T)
    cluster.receive(accepted(cluster, "a", "d", 2, refilling=True))
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 1))
    assert transfer(cluster).transfer == "c"
    assert leader.leading.transfer is not None


def test_rule_87_111_a_refilling_target_is_not_told() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    leader.progress("b").refilling = True
    transfer(cluster, "b")
    assert cluster.sent(TimeoutNow) == []


def test_a_follower_that_needs_a_snapshot_is_handed_leadership_afterwards() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("c")
    cluster.propose("a", "x", "y")
    cluster.settle()
    assert cluster.compact("a", 3) == 3
    cluster.heal()
    cluster.network.clear()
    cluster.beat("a")
    cluster.receive(rejected(cluster, "a", "c", leader.progress("c").next - 1, (1, 1)))
    assert leader.progress("c").state is ProgressState.SNAPSHOT
    transfer(cluster, "c")
    assert cluster.sent(TimeoutNow) == []
    cluster.settle()
    assert (cluster["c"].role, cluster["c"].replica.log.base_index) == (Role.LEADER, 3)


# --- the campaign by order (rule 88) ----------------------------------------------------------------------------------


def test_rule_88_the_target_skips_the_pre_vote_and_overrides_stickiness() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.receive(order(1, "a", "b"))
    assert (cluster["b"].role, cluster["b"].replica.term) == (Role.CANDIDATE, 2)
    assert cluster.sent(RequestVote) == [], "not before the vote is durable"
    cluster.persist("b")
    asked = cluster.sent(RequestVote)
    assert [(m.receiver, m.pre, m.transfer) for m in asked] == [("a", False, True), ("c", False, True)]
    cluster.deliver(RequestVote, receiver="c")
    cluster.persist("c")
    assert cluster.sent(VoteResponse) == [grant(2, "c", "b")]


def test_rule_88_the_order_is_good_for_one_try() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.receive(order(1, "a", "b"))
    cluster.campaign("b")
    assert cluster.sent(RequestVote) == [], "nobody was asked yet: the vote is still on its way to the disk"
    cluster.persist("b")
    cluster.network.clear()
    cluster.campaign("b")
    assert [(m.pre, m.transfer) for m in cluster.sent(RequestVote)] == [(True, False)] * 2
    cluster.network.clear()
    cluster.stand("b")
    assert [(m.pre, m.transfer) for m in cluster.sent(RequestVote)] == [(False, False)] * 2


def test_rule_88_the_order_is_forgotten_by_who_follows_again() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.receive(order(1, "a", "b"))
    cluster.receive(refusal(2, "a", "b"))
    cluster.receive(refusal(2, "c", "b"))
    assert cluster["b"].role is Role.FOLLOWER
    cluster.stand("b")
    assert not any(m.transfer for m in cluster.sent(RequestVote) if m.term > 2)


def test_rule_88_a_request_by_order_is_still_judged_by_the_log() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.receive(request(2, "b", "a", (0, 0), transfer=True))
    cluster.persist("a")
    assert cluster.sent(VoteResponse) == [refusal(2, "a", "b")]
    assert leader.role is Role.FOLLOWER


def test_rule_87_the_target_does_not_campaign_while_it_installs_a_snapshot_or_as_a_learner() -> None:
    cluster = Cluster(learners=("d",))
    ready(cluster)
    cluster["b"].replica.installing = True
    for name in "bd":
        cluster.receive(order(1, "a", name))
        assert cluster.role(name) is Role.FOLLOWER
    assert cluster.network == []


# --- every way out (rule 89) ------------------------------------------------------------------------------------------


def test_rule_89_stepping_down_ends_it() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("b")
    transfer(cluster, "b")
    cluster.receive(request(5, "c", "a", (9, 9), transfer=True))
    assert leader.role is Role.FOLLOWER
    cluster.heal()
    cluster.elect("a")
    assert leader.leading.transfer is None
    assert isinstance(cluster.propose("a", "x").proposal, Accepted)


def test_rule_89_a_target_that_is_gone_ends_it() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.propose("a", "x")
    transfer(cluster, "b")
    leader.progress("b").departing_since = cluster.now
    cluster.tick("a")
    assert leader.leading.transfer is None
    cluster.network.clear()
    transfer(cluster, "c")
    del leader.leading.peers[sid("c")]
    cluster.tick("a")
    assert leader.leading.transfer is None
    assert cluster.sent(TimeoutNow) == []


def test_leadership_goes_there_and_back() -> None:
    cluster = Cluster()
    ready(cluster)
    for leader, target in ("ab", "bc", "ca", "ab"):
        assert transfer(cluster, target, leader).transfer == target
        cluster.settle()
        assert cluster[target].role is Role.LEADER
        cluster.propose(target, target)
        cluster.settle()
    assert {s.replica.log.commit for s in cluster.servers.values()} == {9}
    assert {s.replica.term for s in cluster.servers.values()} == {5}


def test_a_target_that_loses_its_election_leaves_the_leader_free_to_lead_again() -> None:
    cluster = Cluster()
    ready(cluster)
    transfer(cluster, "b")
    cluster.deliver(TimeoutNow)
    cluster.persist("b")
    cluster.drop(RequestVote)
    cluster.run(3)
    leaders = [s for s in cluster.servers.values() if s.role is Role.LEADER]
    assert len(leaders) == 1
    assert isinstance(cluster.propose(str(leaders[0].id), "x").proposal, Accepted)


def test_a_transfer_ends_a_leaders_term_only_when_the_target_campaigns() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    transfer(cluster, "b")
    cluster.drop(TimeoutNow)
    for _ in range(8):
        cluster.beat("a")
        for name in "bc":
            cluster.receive(beat_answered(cluster, "a", name, leader.leading.round))
    assert (leader.role, leader.leading.transfer) == (Role.LEADER, None)


def test_a_change_of_membership_that_was_begun_goes_on_during_a_transfer() -> None:
    cluster = Cluster(tuple("abcd"))
    leader = ready(cluster)
    cluster.step("a", events.ChangeRequested(events.RemoveServer(sid("d"))))
    transfer(cluster, "b")
    cluster.settle()
    assert cluster["b"].role is Role.LEADER
    assert {s.replica.halves for s in (leader, cluster["b"], cluster["c"])} == {(tuple("abc"),)}
    assert member("d") not in (cluster["b"].replica.configuration or cluster.configuration).members
