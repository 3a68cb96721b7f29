"""Rules of the list (docs/rules.md) that live in the core and that no other test sees when they are removed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.raft import events
from tests.raft.cluster import Cluster, member, sid
from tests.raft.words import append


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
