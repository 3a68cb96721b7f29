"""Rules of the list (docs/rules.md) that live in the core and that no other test sees when they are removed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.messages.peer import TimeoutNow, VoteResponse
from coordd.raft import events
from coordd.raft.output import Accepted, Refusal, Role
from tests.raft.cluster import Cluster, member, sid
from tests.raft.words import append, beat, grant, refusal, request


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12))
def test_rule_34_103_no_order_of_a_leaders_appends_takes_entries_back(sent: list[tuple[int, int]]) -> None:
    """After a reconnect anything may come again, late and in any order: what was acknowledged stays."""
    terms = [1, 1, 1, 2, 2, 2, 2, 2, 2]
    cluster = Cluster(logs={"a": [1, 1]})
    longest = 2
    for index, count in sent:
        previous = (index, terms[index - 1]) if index else (0, 0)
        cluster.receive(append(2, "b", "a", previous, terms[index : index + count]))
        log = cluster["a"].log()
        assert len(log) >= longest
        assert log == terms[: len(log)]
        longest = len(log)


@pytest.mark.parametrize("restarted", [False, True])
def test_rule_25_61_the_promise_holds_against_candidates_of_the_own_term_too(restarted: bool) -> None:
    """A stray answer taught it the candidate's term before the candidate asked, so no newer term is met any more: it must be
    deaf all the same, or somebody else leads while the old leader's lease lasts."""
    cluster = Cluster(terms=dict.fromkeys("abc", 1))
    cluster.advance(1)
    cluster.receive(beat(1, "a", "b"))
    cluster.receive(refusal(2, "c", "b"))
    cluster.persist("b")
    if restarted:
        cluster.crash("b")
        cluster.restart("b")
    cluster.network.clear()
    cluster.advance(cluster.settings.election_timeout * 0.9)
    cluster.receive(request(2, "c", "b"))
    cluster.persist("b")
    assert cluster.sent(VoteResponse) == [refusal(2, "b", "c")]
    cluster.network.clear()
    cluster.advance(cluster.settings.election_timeout * 0.1)
    cluster.receive(request(2, "c", "b"))
    cluster.persist("b")
    assert cluster.sent(VoteResponse) == [grant(2, "b", "c")]


def test_rule_43_a_server_that_is_added_again_begins_a_new_session() -> None:
    """Answers from before its removal are then of another session, and count for nothing."""
    cluster = Cluster(learners=("d",))
    leader = cluster.elect("a")
    before = leader.progress("d").session
    cluster.step("a", events.ChangeRequested(events.RemoveServer(sid("d"))))
    cluster.run(cluster.settings.departing_timeout + 1)
    assert sid("d") not in leader.leading.peers
    cluster.step("a", events.ChangeRequested(events.AddServer(member("d", voter=False))))
    assert leader.progress("d").session != before


def test_rule_90_a_follower_that_lost_its_state_is_not_chosen_until_it_has_another() -> None:
    """It would not campaign, so the leader would refuse writes for an election timeout and do without a lease, for nothing."""
    cluster = Cluster()
    leader = cluster.elect("a")
    cluster.propose("a", "x")
    for name in "bc":
        cluster.step(name, events.StateLost())
    cluster.beat("a")
    cluster.settle()
    cluster.step("b", events.StateRestored(1))
    cluster.beat("a")
    cluster.settle()
    assert cluster.step("a", events.TransferRequested()).transfer == "b"
    assert [m.receiver for m in cluster.sent(TimeoutNow)] == ["b"]
    cluster.settle()
    assert cluster.role("b") is Role.LEADER
    assert leader.role is Role.FOLLOWER


def test_a_target_without_a_state_is_told_when_it_has_one() -> None:
    cluster = Cluster()
    cluster.elect("a")
    cluster.step("b", events.StateLost())
    cluster.beat("a")
    cluster.settle()
    assert cluster.step("a", events.TransferRequested(sid("b"))).transfer == "b"
    assert cluster.sent(TimeoutNow) == []
    cluster.step("b", events.StateRestored(1))
    cluster.beat("a")
    cluster.settle()
    assert cluster.role("b") is Role.LEADER


def test_a_leader_that_is_removed_names_nobody_without_a_state() -> None:
    cluster = Cluster(("a", "b"))
    leader = cluster.elect("a")
    cluster.step("b", events.StateLost())
    cluster.beat("a")
    cluster.settle()
    cluster.step("a", events.ChangeRequested(events.RemoveServer(sid("a")), force=True))
    cluster.settle()
    assert leader.role is Role.FOLLOWER
    assert "resigned" in leader.facts
    assert not [m for _, _, output in cluster.trace for m in output.messages_now if isinstance(m, TimeoutNow)]
    assert cluster.role("b") is Role.FOLLOWER


def test_rule_71_somebody_with_a_state_stays() -> None:
    """A quorum whose members all lost their state commits, and elects nobody who could give them one."""
    cluster = Cluster(("a", "b"))
    cluster.elect("a")
    cluster.step("b", events.StateLost())
    cluster.beat("a")
    cluster.settle()
    leave = events.ChangeRequested(events.RemoveServer(sid("a")))
    assert cluster.step("a", leave).change is Refusal.WOULD_LOSE_QUORUM
    cluster.step("b", events.StateRestored(1))
    cluster.beat("a")
    cluster.settle()
    assert isinstance(cluster.step("a", leave).change, Accepted)
