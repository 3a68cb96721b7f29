"""The election timeout follows what is measured, between a floor and a ceiling; leases stay on the floor (rules 16, 25, 59, 61)."""

import pytest

from coordd.messages.peer import Heartbeat, HeartbeatResponse, RequestVote
from coordd.raft.output import Role
from coordd.raft.settings import RaftSettings
from coordd.raft.timing import Timing
from tests.raft.cluster import Cluster, sid
from tests.raft.test_reads import ready
from tests.raft.words import SESSION, beat_answered, grant, request

FLOOR, CEILING, BEAT = 0.3, 3.0, 0.06
LEASE = RaftSettings().lease_duration


def timing() -> Timing:
    return Timing(FLOOR, CEILING, BEAT)


def trips(subject: Timing, trip: float, count: int = 16, now: float = 0.0) -> float:
    """Heartbeats go out, and a quorum's answers take this long. Returns the time at the end."""
    for _ in range(count):
        now += BEAT
        subject.confirmed(trip, now)
        subject.announce(now)
    return now


def writes(subject: Timing, took: float, count: int = 200, now: float = 0.0, first: int = 1) -> float:
    for sequence in range(first, first + count):
        subject.handed_over(sequence, now)
        now += took
        subject.durable(sequence, now)
    return now


# --- what is wanted ---------------------------------------------------------------------------------------------------


def test_it_is_the_floor_where_everything_is_quick() -> None:
    subject = timing()
    writes(subject, 0.01)
    trips(subject, 0.001)
    assert subject.election_timeout == FLOOR


def test_it_is_ten_times_what_a_quorum_takes_in_steps() -> None:
    subject = timing()
    trips(subject, 0.08)
    assert subject.election_timeout == pytest.approx(0.825)  # 0.8, and up to the next quarter of the floor


def test_it_is_five_times_what_the_disk_takes_at_worst() -> None:
    subject = timing()
    writes(subject, 0.01, 194)
    writes(subject, 0.2, 6, 10.0, 195)
    assert subject.election_timeout == pytest.approx(1.05)


@pytest.mark.parametrize("slow", [0.5, 1e9, float("inf"), float("nan")])
def test_it_never_leaves_its_bounds(slow: float) -> None:
    subject = timing()
    trips(subject, slow)
    assert FLOOR <= subject.election_timeout <= CEILING
    subject.heard_leader(slow)
    assert FLOOR <= subject.election_timeout <= CEILING
    subject.took_office()
    assert FLOOR <= subject.announce(0.0) <= CEILING
    subject.heard_leader(0.000_001)
    assert subject.election_timeout == FLOOR
    assert Timing(FLOOR, 0.1, BEAT).announce(0.0) == FLOOR


def test_a_few_measurements_say_nothing() -> None:
    subject = timing()
    trips(subject, 0.2, 3)
    writes(subject, 0.2, 19)
    assert subject.election_timeout == FLOOR


def test_rare_outliers_say_nothing() -> None:
    subject = timing()
    now = trips(subject, 0.001)
    trips(subject, 0.2, 3, now)
    now = writes(subject, 0.01, 198)
    writes(subject, 2.0, 2, now, 199)
    assert subject.election_timeout == FLOOR


def test_a_write_counts_from_when_the_disk_is_free_for_it_and_a_group_counts_once() -> None:
    subject = timing()
    now = 0.0
    for first in range(1, 401, 2):
        subject.handed_over(first, now)
        subject.handed_over(first + 1, now)
        subject.handed_over(first + 2, now) if first == 399 else None
        now += 0.05
        subject.durable(first + 1, now)
    assert subject.election_timeout == FLOOR
    subject.durable(300, now)  # nothing new
    pending = timing()
    for sequence in range(1, 101):
        pending.handed_over(sequence, 0.0)
    for sequence in range(1, 101):
        pending.durable(sequence, sequence * 0.05)  # each waited for the one before
    assert pending.election_timeout == FLOOR


def test_rounds_made_for_reads_do_not_push_the_others_out() -> None:
    subject = timing()
    now = trips(subject, 0.08)
    for _ in range(1000):
        now += 0.000_01
        subject.confirmed(0.000_1, now)
    subject.announce(now)
    assert subject.election_timeout == pytest.approx(0.825)


# --- hysteresis -------------------------------------------------------------------------------------------------------


def test_it_rises_at_once_and_falls_after_a_long_while() -> None:
    subject = timing()
    now = trips(subject, 0.08)
    end = trips(subject, 0.001, int(29 / BEAT), now)
    assert subject.election_timeout == pytest.approx(0.825)
    end = trips(subject, 0.001, int(3 / BEAT), end)
    assert subject.election_timeout == FLOOR
    trips(subject, 0.08, 6, end)
    assert subject.election_timeout == pytest.approx(0.825)


def test_it_falls_no_further_than_what_was_wanted_meanwhile() -> None:
    subject = timing()
    now = trips(subject, 0.2)
    now = trips(subject, 0.001, int(20 / BEAT), now)
    now = trips(subject, 0.05, int(1 / BEAT), now)
    now = trips(subject, 0.001, int(11 / BEAT), now)
    assert subject.election_timeout == pytest.approx(0.525)


def test_a_new_leader_goes_on_from_what_it_was_told() -> None:
    subject = timing()
    subject.heard_leader(1.5)
    subject.took_office()
    assert subject.announce(1.0) == 1.5
    now = trips(subject, 0.001, int(29 / BEAT), 1.0)
    assert subject.election_timeout == 1.5
    trips(subject, 0.001, int(3 / BEAT), now)
    assert subject.election_timeout == FLOOR


# --- in the core ------------------------------------------------------------------------------------------------------


def slow_network(cluster: Cluster, trip: float, rounds: int = 40) -> None:
    """Heartbeats and their answers take this long, a dozen or so on their way at once."""
    leader = cluster["a"]
    under_way: list[tuple[float, HeartbeatResponse]] = []
    for _ in range(rounds):
        cluster.advance(BEAT)
        while under_way and under_way[0][0] <= cluster.now:
            cluster.receive(under_way.pop(0)[1])
        cluster.tick("a")
        cluster.deliver(Heartbeat)
        under_way += [(cluster.now + trip, answer) for answer in cluster.sent(HeartbeatResponse)]
        cluster.network.clear()
    assert leader.role is Role.LEADER


def test_the_leader_tells_its_followers_and_all_wait_as_long() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    slow_network(cluster, 0.15)
    assert leader.replica.election_timeout == pytest.approx(1.8)  # answers are seen at the next heartbeat
    for name in "bc":
        r = cluster[name].replica
        assert r.election_timeout == pytest.approx(1.8)
        assert r.leader_contact + 1.8 <= r.election_due < r.leader_contact + 3.6


def test_rule_25_deafness_lasts_as_long_as_the_present_timeout_and_never_less_than_the_floor() -> None:
    cluster = Cluster()
    cluster.receive(Heartbeat(1, sid("x"), sid("b"), SESSION, 0, 1, election_timeout=1.2))
    for seconds, answered in ((0.5, False), (0.6, False), (0.2, True)):
        cluster.advance(seconds)
        cluster.network.clear()
        cluster.receive(request(2, "c", "b", pre=True))
        cluster.persist("b")
        assert bool(cluster.pending(sender="b")) is answered
    cluster.receive(Heartbeat(1, sid("x"), sid("b"), SESSION, 0, 2, election_timeout=0.01))
    cluster.advance(FLOOR - 0.01)
    cluster.network.clear()
    cluster.receive(request(2, "c", "b", pre=True))
    assert cluster.pending(sender="b") == []


def test_rule_16_25_the_own_disk_makes_a_server_patient_but_not_deaf_for_longer() -> None:
    """Nobody else's timer knows of it: with a voter of three gone, the others could not elect anybody until it has ended."""
    cluster = Cluster()
    server = cluster["b"].replica
    now = writes(server.timing, 0.2)
    assert server.election_timeout == pytest.approx(1.05)
    cluster.now = max(cluster.now, now)
    cluster.receive(Heartbeat(1, sid("a"), sid("b"), SESSION, 0, 1, election_timeout=0.6))
    assert server.election_due >= cluster.now + 1.05
    for seconds, answered in ((0.59, False), (0.02, True)):
        cluster.advance(seconds)
        cluster.network.clear()
        cluster.receive(request(2, "c", "b", pre=True))
        cluster.persist("b")
        assert bool(cluster.pending(sender="b")) is answered


def test_rule_59_a_longer_timeout_makes_no_longer_lease() -> None:
    """A follower that starts again remembers no longer promise than its settings' floor."""
    cluster = Cluster()
    leader = ready(cluster)
    slow_network(cluster, 0.15)
    cluster.beat("a")
    sent = cluster.now
    for peer in "bc":
        cluster.receive(beat_answered(cluster, "a", peer, leader.leading.round, promise=1.8))
    assert leader.leading.lease_until == pytest.approx(sent + LEASE)


@pytest.mark.parametrize(("promise", "share"), [(0.15, 0.5), (0.0, 0.0), (9.0, 1.0)])
def test_rule_59_a_lease_is_no_longer_than_what_those_who_answered_promise(promise: float, share: float) -> None:
    """Settings differ while an operator changes them from one server to the next."""
    cluster = Cluster()
    leader = ready(cluster)
    cluster.beat("a")
    cluster.receive(beat_answered(cluster, "a", "b", leader.leading.round, promise=promise))
    assert leader.leading.lease_until == pytest.approx(cluster.now + LEASE * share)


def test_rule_59_a_follower_promises_its_own_floor_and_no_more() -> None:
    """What it was told is forgotten in a restart; after that it is deaf for its floor (rule 61)."""
    cluster = Cluster()
    cluster.receive(Heartbeat(1, sid("a"), sid("b"), SESSION, 0, 1, election_timeout=1.2))
    (answer,) = cluster.sent(HeartbeatResponse)
    assert answer.promise == FLOOR
    assert cluster["b"].replica.election_timeout == pytest.approx(1.2)


def test_check_quorum_waits_for_as_long_as_the_followers_do() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    slow_network(cluster, 0.15)
    cluster.network.clear()
    began = cluster.now
    while leader.role is Role.LEADER:
        cluster.beat("a")
    assert 1.8 - 4 * BEAT < cluster.now - began < 1.8 + 2 * BEAT


def test_a_vote_that_comes_too_late_makes_a_candidate_patient_until_it_hears_a_leader() -> None:
    """Otherwise nobody would ever be elected where a round trip takes longer than the floor."""
    cluster = Cluster()
    candidate = cluster.stand("b")
    began = cluster.now
    cluster.now = candidate.replica.election_due
    cluster.tick("b")
    assert (candidate.role, candidate.replica.election_timeout) == (Role.PRE_CANDIDATE, FLOOR)
    cluster.receive(grant(candidate.replica.term, "a", "b"))
    took = cluster.now - began
    assert 1.5 * took <= candidate.replica.election_timeout <= 1.5 * took + FLOOR / 4 + 1e-9
    cluster.receive(Heartbeat(candidate.replica.term, sid("a"), sid("b"), SESSION, 0, 1))
    assert candidate.replica.election_timeout == FLOOR


def test_a_vote_for_what_an_earlier_life_asked_teaches_nothing() -> None:
    cluster = Cluster()
    candidate = cluster.stand("b")
    term = candidate.replica.term
    cluster.persist("b")
    cluster.crash("b")
    cluster.restart("b")
    candidate = cluster["b"]
    cluster.campaign("b")
    assert (candidate.role, candidate.replica.vote) == (Role.PRE_CANDIDATE, candidate.id)
    cluster.receive(grant(term, "a", "b"))
    assert candidate.replica.election_timeout == FLOOR


def test_votes_of_others_campaigns_teach_nothing() -> None:
    cluster = Cluster(terms={"b": 1})
    candidate = cluster["b"]
    cluster.campaign("b")
    assert candidate.role is Role.PRE_CANDIDATE
    cluster.receive(grant(1, "a", "b"))  # it has not voted for itself in this term
    assert candidate.replica.election_timeout == FLOOR


def test_a_cluster_whose_round_trip_is_longer_than_the_floor_finds_a_leader_and_keeps_it() -> None:
    cluster = Cluster()
    delayed: list[tuple[float, object]] = []
    leaders: list[str] = []
    trip = 0.5
    end = cluster.now + 60.0
    while cluster.now < end:
        cluster.advance(0.01)
        for server in cluster.servers.values():
            cluster.persist(str(server.id))
            if server.deadline <= cluster.now:
                cluster.tick(str(server.id))
        delayed += [(cluster.now + trip / 2, message) for message in cluster.network]
        cluster.network.clear()
        while delayed and delayed[0][0] <= cluster.now:
            cluster.receive(delayed.pop(0)[1])  # type: ignore[arg-type]
        leaders += [str(s.id) for s in cluster.servers.values() if s.role is Role.LEADER][:1]
    assert len(leaders) > 4000
    assert len(set(leaders[-4000:])) == 1
    assert {server.replica.election_timeout for server in cluster.servers.values()} == {CEILING}
    assert not [m for m in cluster.network if isinstance(m, RequestVote)]
