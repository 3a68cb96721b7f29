"""Rule 63 in the core: since when a server knows what is committed, as far as it can prove it."""

from coordd.messages.peer import AppendEntries, Heartbeat
from coordd.raft.settings import RaftSettings
from tests.raft.cluster import Cluster, sid
from tests.raft.test_reads import ready
from tests.raft.words import BOOT, SESSION, accepted

LEASE = RaftSettings().lease_duration
NEVER = float("-inf")


def beat(cluster: Cluster, number: int, heard: int, leader_commit: int = 5, unsure: float = 0.0) -> None:
    """A leader that exists only as messages speaks to b."""
    cluster.receive(Heartbeat(1, sid("x"), sid("b"), SESSION, 0, number, leader_commit, unsure, heard, heard_in=BOOT))


def known(cluster: Cluster, name: str) -> tuple[int, float]:
    return cluster[name].raft.vouched(cluster.now)


def test_rule_63_a_heartbeat_tells_the_leaders_commit_whatever_the_follower_has() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.propose("a", "x")
    cluster.drop(AppendEntries, receiver="b")
    cluster.settle()
    began = cluster.now
    for _ in range(2):
        cluster.beat("a")
        cluster.drop(AppendEntries)
        cluster.deliver()
        cluster.drop(AppendEntries)
        cluster.deliver()
        cluster.drop()
    assert cluster["b"].replica.log.commit == 1
    index, at = known(cluster, "b")
    assert index == 2
    assert at > began


def test_rule_63_without_an_own_commit_a_leader_knows_no_more_than_it_was_told() -> None:
    cluster = Cluster()
    leader = cluster.lead("a")
    assert known(cluster, "a") == (0, NEVER)
    (told, *_) = cluster.sent(Heartbeat, receiver="b")
    assert (told.leader_commit, told.unsure) == (0, 0.0)
    cluster.settle()
    cluster.beat("a")
    cluster.settle()
    assert leader.replica.log.commit == 1
    assert known(cluster, "a") == (1, cluster.now)


def test_rule_63_a_leader_without_a_lease_says_since_when_it_is_unsure() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    sent = cluster.now
    cluster.advance(LEASE + 0.01)
    assert known(cluster, "a") == (1, sent)
    cluster.tick("a")
    (told, *_) = cluster.sent(Heartbeat, receiver="b")
    assert told.unsure == cluster.now - sent
    assert leader.leading.confirmed_at == sent


def test_rule_63_a_heartbeat_is_no_older_than_the_answer_that_it_names() -> None:
    cluster = Cluster()
    beat(cluster, 1, 0)
    assert known(cluster, "b") == (0, NEVER)
    first = cluster.now
    cluster.advance(1.0)
    beat(cluster, 2, 1)
    assert known(cluster, "b") == (5, first)
    beat(cluster, 4, 2, unsure=0.25)
    assert known(cluster, "b") == (5, first + 0.75)


def test_rule_63_what_proves_nothing_changes_nothing() -> None:
    cluster = Cluster()
    beat(cluster, 2, 0)
    beat(cluster, 3, 2)
    before = known(cluster, "b")
    cluster.advance(1.0)
    beat(cluster, 3, 2)  # again
    beat(cluster, 4, 1)  # names an answer that was not remembered
    beat(cluster, 5, 3, leader_commit=0)  # can't vouch
    beat(cluster, 6, 5, unsure=10.0)  # is less sure than what is known
    assert known(cluster, "b") == before
    cluster.receive(Heartbeat(2, sid("y"), sid("b"), SESSION, 0, 7, 9, 0.0, 6, heard_in=BOOT))  # of another leader
    assert known(cluster, "b") == before


def test_rule_63_a_long_way_on_which_many_rounds_follow_each_other_proves_an_age_too() -> None:
    """Reads make a round as soon as the last one has its quorum, which may be far nearer to the leader than this follower."""
    cluster = Cluster()
    way = 500
    for number in range(1, 5000):
        beat(cluster, number, max(0, number - way))
        cluster.advance(0.001)
    _, at = known(cluster, "b")
    assert way * 0.001 <= cluster.now - at < way * 0.001 + 0.06


def test_rule_63_what_is_remembered_of_rounds_has_a_bound() -> None:
    cluster = Cluster()
    for number in range(1, 100):
        cluster.advance(0.06)
        beat(cluster, number, 0)
    beat(cluster, 100, 1)
    assert known(cluster, "b") == (0, NEVER)
    beat(cluster, 101, 99)
    assert known(cluster, "b") == (5, cluster.now)


def test_rule_63_what_an_earlier_life_answered_proves_nothing() -> None:
    """A heartbeat that names its answer may have been on its way for as long as this server was down."""
    cluster = Cluster()
    beat(cluster, 1, 0)
    cluster.crash("b")
    cluster.advance(5.0)
    cluster.restart("b")
    beat(cluster, 1, 0)  # a copy
    cluster.receive(Heartbeat(1, sid("x"), sid("b"), SESSION, 0, 2, 5, heard=1, heard_in=1))
    assert known(cluster, "b") == (0, NEVER)
    cluster.receive(Heartbeat(1, sid("x"), sid("b"), SESSION, 0, 3, 5, heard=2, heard_in=2))
    assert known(cluster, "b") == (5, cluster.now)


def test_rule_63_a_leader_says_which_life_of_the_follower_it_heard() -> None:
    cluster = Cluster()
    ready(cluster)
    told = cluster["a"].leading.round
    cluster.beat("a")
    (before,) = cluster.sent(Heartbeat, receiver="b")
    assert (before.heard, before.heard_in) == (told, 1)
    cluster.drop()
    cluster.receive(accepted(cluster, "a", "b", 1, boot=2))
    cluster.beat("a")
    (after,) = cluster.sent(Heartbeat, receiver="b")
    assert (after.heard, after.heard_in) == (0, 2)
