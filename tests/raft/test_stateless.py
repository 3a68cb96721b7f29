"""A server whose state was found damaged, as the core sees it: it goes on as voter and keeper of the log, and never leads."""

import pytest

from coordd.errors import InvariantError
from coordd.messages.peer import AppendResponse, RequestVote, TimeoutNow
from coordd.raft import events
from coordd.raft.output import Role
from tests.raft.cluster import Cluster, sid
from tests.raft.test_snapshots import snapshot
from tests.raft.words import SESSION, append, beat, grant, order, request

T = 0.3


def test_rule_28_without_a_state_nobody_campaigns() -> None:
    cluster = Cluster(terms={"a": 1})
    cluster.step("a", events.StateLost())
    cluster.receive(beat(1, "b", "a"))
    cluster.campaign("a")
    cluster.receive(order(1, "b", "a"))
    assert (cluster["a"].role, cluster.pending(RequestVote)) == (Role.FOLLOWER, [])


def test_rule_28_without_a_state_nobody_takes_office() -> None:
    cluster = Cluster()
    cluster.stand("a")
    cluster.step("a", events.StateLost())
    cluster.receive(grant(1, "b", "a"))
    assert cluster.role("a") is Role.FOLLOWER


def test_without_a_state_it_votes_and_takes_entries_as_ever() -> None:
    cluster = Cluster()
    cluster.step("a", events.StateLost())
    cluster.outwait("a")
    cluster.receive(request(1, "b", "a"))
    cluster.receive(append(1, "b", "a", terms=(1,), commit=1))
    cluster.persist("a")
    assert cluster["a"].replica.vote == sid("b")
    assert [answer.index for answer in cluster.sent(AppendResponse)] == [1]
    assert not cluster.sent(AppendResponse)[0].refilling


def test_a_leader_without_a_state_hands_over_at_once() -> None:
    cluster = Cluster()
    cluster.elect("a")
    cluster.beat("a")
    cluster.settle()
    cluster.step("a", events.StateLost())
    assert len(cluster.sent(TimeoutNow)) == 1
    cluster.settle()
    assert cluster.role("a") is Role.FOLLOWER
    assert sum(server.role is Role.LEADER for server in cluster.servers.values()) == 1


def test_a_leader_without_a_state_steps_down_if_nobody_takes_over() -> None:
    cluster = Cluster()
    leader = cluster.elect("a")
    cluster.beat("a")
    cluster.settle()
    cluster.step("a", events.StateLost())
    cluster.drop(TimeoutNow)
    cluster.run(T / 2)
    assert "resigned" not in leader.facts
    cluster.run(T)
    assert "resigned" in leader.facts
    cluster.run(3)
    assert cluster.role("a") is Role.FOLLOWER
    assert sum(server.role is Role.LEADER for server in cluster.servers.values()) == 1


def test_with_a_state_of_the_leaders_it_may_lead_again() -> None:
    cluster = Cluster(logs={"a": (1, 1, 1)})
    cluster.step("a", events.StateLost())
    cluster.step("a", events.StateRestored(2))
    replica = cluster["a"].replica
    assert (replica.log.commit, replica.log.applied) == (2, 2)
    cluster.campaign("a")
    assert cluster.role("a") is Role.PRE_CANDIDATE


def test_a_state_beyond_the_own_log_is_no_state_for_it() -> None:
    cluster = Cluster(logs={"a": (1,)})
    cluster.step("a", events.StateLost())
    with pytest.raises(InvariantError, match="beyond the own log"):
        cluster.step("a", events.StateRestored(2))


def test_an_installed_snapshot_is_a_state_too() -> None:
    cluster = Cluster()
    cluster.step("a", events.StateLost())
    cluster.step("a", events.SnapshotReceived(1, sid("b"), SESSION, snapshot(5)))
    cluster.persist("a")
    cluster.campaign("a")
    assert cluster.role("a") is Role.PRE_CANDIDATE
