"""Leaders by preference: who waits, who is handed leadership, and that nobody waits for ever."""

import pytest

from coordd.messages.peer import Heartbeat, HeartbeatResponse
from coordd.raft import events
from coordd.raft.output import Role
from coordd.raft.settings import RaftSettings
from tests.raft.cluster import Cluster, sid
from tests.raft.words import SESSION, accepted, beat_answered

T = RaftSettings().election_timeout
HOLD = RaftSettings().priority_hold


def led_by(name: str, priorities: dict[str, int], voters: str = "abc", learners: str = "") -> Cluster:
    cluster = Cluster(tuple(voters), tuple(learners), priorities=priorities)
    cluster.elect(name)
    cluster.run(0.2)
    assert cluster.role(name) is Role.LEADER
    return cluster


def ranks(cluster: Cluster) -> dict[str, int]:
    return {str(server.id): server.replica.rank for server in cluster.servers.values()}


def hold(cluster: Cluster, seconds: float, **priorities: int) -> None:
    """a leads on for a while; its peers answer its heartbeats, and nothing else happens."""
    end = cluster.now + seconds
    while cluster.now < end and cluster.role("a") is Role.LEADER:
        cluster.beat("a")
        cluster.drop()
        for peer, priority in priorities.items():
            answer = beat_answered(cluster, "a", peer, cluster["a"].leading.round, priority=priority)
            cluster.receive(answer)


# --- who campaigns ----------------------------------------------------------------------------------------------------


def test_where_all_are_equal_nobody_waits_for_anybody() -> None:
    assert set(ranks(led_by("a", dict.fromkeys("abc", 7))).values()) == {0}


def test_a_follower_waits_for_those_of_higher_priority_but_not_for_the_leader() -> None:
    cluster = led_by("a", {"a": 9, "b": 5, "c": 5, "d": 3, "e": 1}, "abcde")
    assert ranks(cluster) == {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2}
    for name, steps in (("b", 0), ("d", 1), ("e", 2)):
        r = cluster[name].replica
        assert (1 + steps) * T <= r.election_due - r.leader_contact < (2 + steps) * T


def test_nobody_waits_for_more_than_two_timeouts() -> None:
    cluster = Cluster()
    cluster.receive(Heartbeat(1, sid("x"), sid("b"), SESSION, 0, 1, rank=50))
    assert cluster["b"].replica.election_due < cluster.now + 4 * T


def test_who_is_silent_or_no_voter_is_not_waited_for() -> None:
    cluster = led_by("a", {"a": 9, "b": 5, "c": 3, "d": 7}, "abc", "d")
    assert ranks(cluster)["c"] == 1
    cluster.crash("b")
    cluster.run(2 * T)
    assert ranks(cluster)["c"] == 0


def test_who_has_not_said_its_priority_yet_is_not_taken_for_the_least() -> None:
    cluster = Cluster(priorities=dict.fromkeys("abc", 7))
    cluster.lead("a")
    cluster.cut.add((sid("c"), sid("a")))
    cluster.run(2 * T)
    assert set(ranks(cluster).values()) == {0}


def test_who_is_not_heard_waits_for_the_preferred_all_the_same() -> None:
    cluster = led_by("a", {"a": 9, "b": 5, "c": 3})
    cluster.cut.add((sid("c"), sid("a")))
    cluster.run(2 * T)
    assert ranks(cluster) == {"a": 0, "b": 0, "c": 1}


@pytest.mark.parametrize("seed", range(8))
def test_the_preferred_follower_is_elected(seed: int) -> None:
    cluster = Cluster(tuple("abcde"), priorities={"a": 9, "d": 5}, seed=seed)
    cluster.elect("a")
    cluster.run(0.2)
    cluster.crash("a")
    cluster.run(2 * T + 0.1)
    assert cluster.role("d") is Role.LEADER


@pytest.mark.parametrize("seed", range(4))
def test_voters_of_low_priority_alone_elect_one_of_them(seed: int) -> None:
    cluster = Cluster(tuple("abcde"), priorities={"a": 9, "b": 7, "c": 5}, seed=seed)
    cluster.elect("a")
    cluster.run(0.2)
    cluster.crash("a")
    cluster.crash("b")
    cluster.run(6 * T)
    assert [s.id for s in cluster.servers.values() if s.up and s.role is Role.LEADER]


def test_a_new_leader_ends_what_the_old_one_said_of_ranks() -> None:
    cluster = led_by("a", {"a": 9, "b": 5, "c": 3})
    assert cluster["c"].replica.rank == 1
    cluster.receive(Heartbeat(5, sid("b"), sid("c"), SESSION, 0, 1))
    assert cluster["c"].replica.rank == 0


# --- who is handed leadership -----------------------------------------------------------------------------------------


def test_a_leader_hands_over_to_a_voter_of_higher_priority_after_a_while() -> None:
    cluster = led_by("a", {"a": 1, "b": 5, "c": 3})
    cluster.run(HOLD - 0.5)
    assert cluster.role("a") is Role.LEADER
    cluster.run(1.0)
    assert cluster.role("b") is Role.LEADER
    cluster.run(3 * HOLD)
    assert cluster.role("b") is Role.LEADER


def test_nobody_is_handed_leadership_for_an_equal_or_lower_priority() -> None:
    cluster = led_by("a", {"a": 3, "b": 3, "c": 1})
    cluster.run(3 * HOLD)
    assert cluster.role("a") is Role.LEADER


def test_the_while_begins_anew_when_it_was_silent() -> None:
    cluster = led_by("a", {"a": 1, "b": 5})
    hold(cluster, HOLD - 1, b=5, c=0)
    hold(cluster, 2 * T, c=0)
    hold(cluster, HOLD - 1, b=5, c=0)
    assert cluster["a"].leading.transfer is None
    hold(cluster, 1.5, b=5, c=0)
    assert "transfer" in cluster["a"].facts


def test_whoever_lags_or_learns_is_not_handed_leadership() -> None:
    cluster = led_by("a", {"a": 1, "b": 5, "d": 9}, "abc", "d")
    cluster.propose("a", "x")
    cluster.drop(receiver="b")
    cluster.settle()
    hold(cluster, 2 * HOLD, b=5, c=0, d=9)
    assert "transfer" not in cluster["a"].facts


def test_after_an_attempt_that_failed_it_waits_for_long() -> None:
    cluster = led_by("a", {"a": 1, "b": 5})
    hold(cluster, HOLD + 5.5 * HOLD, b=5, c=0)
    assert cluster["a"].facts.count("transfer") == 1
    assert cluster["a"].facts.count("transfer failed") == 1
    hold(cluster, HOLD, b=5, c=0)
    assert cluster["a"].facts.count("transfer") == 2


def test_no_attempt_while_a_change_of_membership_is_under_way() -> None:
    cluster = led_by("a", {"a": 1, "b": 5})
    hold(cluster, HOLD - 0.5, b=5, c=0)
    cluster.step("a", events.ChangeRequested(events.RemoveServer(sid("c"))))
    hold(cluster, 1.0, b=5, c=0)
    assert "transfer" not in cluster["a"].facts


def test_of_several_the_highest_priority_is_chosen_also_by_hand() -> None:
    cluster = led_by("a", {"a": 1, "b": 3, "c": 5})
    leading = cluster["a"].leading
    while leading.transfer is None:
        hold(cluster, 0.05, b=3, c=5)
    assert leading.transfer.target == sid("c")
    by_hand = led_by("a", {"a": 9, "b": 3, "c": 5})
    assert by_hand.step("a", events.TransferRequested()).transfer == sid("c")


def test_rule_90_priority_does_not_prefer_who_lacks_what_is_committed() -> None:
    cluster = led_by("a", {"a": 9, "b": 3, "c": 5})
    cluster.propose("a", "x")
    cluster.network.clear()
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert cluster["a"].replica.log.commit == 2
    assert cluster.step("a", events.TransferRequested()).transfer == sid("b")


def test_a_follower_says_its_priority_with_each_answer() -> None:
    cluster = Cluster(priorities={"b": 42})
    cluster.receive(Heartbeat(1, sid("a"), sid("b"), SESSION, 0, 1))
    (answer,) = cluster.sent(HeartbeatResponse)
    assert answer.priority == 42
