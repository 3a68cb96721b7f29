"""Rules B of the core (rules 14-33): who may campaign, who may vote, what moves a timer, who is heard."""

import msgspec
import pytest

from coordd.errors import InvariantError
from coordd.messages.entry import encode_configuration
from coordd.messages.peer import AppendEntries, Heartbeat, HeartbeatResponse, RaftMessage, RequestVote, VoteResponse
from coordd.raft.events import Received, SnapshotReceived
from coordd.raft.output import Role
from coordd.types import HardState, Index, SnapshotMeta, Term
from tests.raft.cluster import Cluster, Server, configuration, sid
from tests.raft.words import append, beat, beat_answered, grant, order, refusal, rejected, request

T = 0.3


def led(cluster: Cluster, name: str = "a") -> Server:
    """A leader that everybody has just heard, with an empty network."""
    server = cluster.elect(name)
    cluster.beat(name)
    cluster.settle()
    return server


def votes(cluster: Cluster, sender: str | None = None) -> list[tuple[str, Term, bool, bool]]:
    """(receiver, term, granted, pre) of the answers under way."""
    return [(m.receiver, m.term, m.granted, m.pre) for m in cluster.sent(VoteResponse, sender)]


# --- logs decide (rules 14, 15, 27, 29) -------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize(
    ("last", "granted"),
    [((1, 3), True), ((5, 1), False), ((2, 2), False), ((3, 2), True), ((9, 2), True), ((3, 1), False)],
)
def test_rule_14_logs_compare_by_last_term_first(last: tuple[Index, Term], granted: bool, pre: bool) -> None:
    cluster = Cluster(logs={"a": [1, 2, 2]})
    cluster.advance(1)
    cluster.receive(request(9, "b", "a", last, pre=pre))
    cluster.persist("a")
    assert votes(cluster) == [("b", 9 if granted or not pre else 2, granted, pre)]


def test_rule_14_the_last_entrys_term_counts_not_the_current_one() -> None:
    cluster = Cluster(logs={"a": [1]}, terms={"a": 5})
    cluster.advance(1)
    cluster.receive(request(6, "b", "a", (1, 1)))
    cluster.persist("a")
    assert votes(cluster) == [("b", 6, True, False)]


def test_rule_15_the_same_candidate_gets_its_vote_again() -> None:
    cluster = Cluster()
    cluster.advance(1)
    for _ in range(2):
        cluster.receive(request(1, "b", "a"))
        cluster.persist("a")
        assert votes(cluster) == [("b", 1, True, False)]
        cluster.network.clear()


def test_rule_15_the_same_candidate_gets_its_vote_again_after_a_restart() -> None:
    cluster = Cluster()
    cluster.advance(1)
    cluster.receive(request(1, "b", "a"))
    cluster.persist("a")
    cluster.network.clear()
    cluster.crash("a")
    cluster.restart("a")
    cluster.receive(request(1, "b", "a"))
    cluster.receive(request(1, "c", "a"))
    assert votes(cluster) == [("b", 1, True, False), ("c", 1, False, False)]


@pytest.mark.parametrize("pre", [False, True])
def test_rule_27_a_learner_votes_when_asked(pre: bool) -> None:
    """It may be a voter and not know it yet."""
    cluster = Cluster(("a", "b"), ("d",))
    cluster.advance(1)
    cluster.receive(request(1, "b", "d", pre=pre))
    cluster.persist("d")
    assert votes(cluster) == [("b", 1, True, pre)]


def test_rule_29_a_candidate_that_the_voter_does_not_know_is_judged_like_any_other() -> None:
    cluster = Cluster()
    cluster.advance(1)
    cluster.receive(request(1, "z", "a"))
    cluster.persist("a")
    assert votes(cluster) == [("z", 1, True, False)]


def test_votes_of_others_than_voters_do_not_count() -> None:
    cluster = Cluster(learners=("d", "e"))
    server = cluster.stand("a")
    for voter in "dez":
        cluster.receive(grant(1, voter, "a"))
    assert server.role is Role.CANDIDATE


def test_a_vote_is_counted_once_whatever_is_repeated() -> None:
    cluster = Cluster(tuple("abcde"))
    server = cluster.stand("a")
    for _ in range(3):
        cluster.receive(grant(1, "b", "a"))
    assert server.role is Role.CANDIDATE


# --- timers (rules 16, 17) --------------------------------------------------------------------------------------------


def test_rule_16_the_timer_is_never_shorter_than_the_time_for_which_others_are_deaf() -> None:
    for seed in range(50):
        cluster = Cluster(seed=seed)
        cluster.receive(beat(1, "b", "a"))
        assert cluster["a"].replica.election_due >= cluster["a"].replica.leader_contact + T


@pytest.mark.parametrize("what", ["refused vote", "pre-vote", "refused pre-vote", "stale beat", "stale append"])
def test_rule_17_this_does_not_reset_the_timer(what: str) -> None:
    cluster = Cluster(logs={"a": [1, 2]}, terms={"a": 2})
    cluster.advance(T)
    due = cluster["a"].replica.election_due
    messages: dict[str, RaftMessage] = {
        "refused vote": request(3, "b", "a"),
        "pre-vote": request(3, "b", "a", (2, 2), pre=True),
        "refused pre-vote": request(3, "b", "a", pre=True),
        "stale beat": beat(1, "b", "a"),
        "stale append": append(1, "b", "a"),
    }
    cluster.receive(messages[what])
    assert cluster["a"].replica.election_due == due


@pytest.mark.parametrize("what", ["beat", "append", "granted vote", "rejected append"])
def test_rule_17_this_resets_the_timer(what: str) -> None:
    cluster = Cluster(logs={"a": [1, 2]}, terms={"a": 2})
    cluster.advance(T)
    messages: dict[str, RaftMessage] = {
        "beat": beat(2, "b", "a"),
        "append": append(2, "b", "a", (2, 2)),
        "granted vote": request(3, "b", "a", (2, 2)),
        "rejected append": append(2, "b", "a", (7, 2)),
    }
    cluster.receive(messages[what])
    assert cluster["a"].replica.election_due >= cluster.now + T


# --- pre-vote (rules 18 - 21) -----------------------------------------------------------------------------------------


def test_rule_18_a_pre_candidate_names_the_next_term_and_keeps_its_own() -> None:
    cluster = Cluster(terms=dict.fromkeys("abc", 4))
    cluster.campaign("a")
    assert cluster.pending(RequestVote) == [request(5, "a", peer, pre=True) for peer in "bc"]
    assert (cluster["a"].replica.term, cluster["a"].replica.vote, len(cluster["a"].jobs)) == (4, None, 0)
    assert cluster["a"].role is Role.PRE_CANDIDATE


def test_rule_18_a_pre_vote_changes_no_term_and_writes_nothing() -> None:
    cluster = Cluster(terms=dict.fromkeys("abc", 4))
    cluster.advance(1)
    cluster.receive(request(9, "b", "a", pre=True))
    assert (cluster["a"].replica.term, cluster["a"].replica.vote, len(cluster["a"].jobs)) == (4, None, 0)
    assert votes(cluster) == [("b", 9, True, True)], "a grant carries the term asked about"


def test_rule_18_a_refused_pre_vote_carries_the_own_term_and_the_asker_adopts_it() -> None:
    cluster = Cluster(logs={"b": [1, 1]}, terms={"a": 4, "b": 7, "c": 4})
    cluster.campaign("a")
    cluster.deliver(RequestVote, receiver="b")
    cluster.persist("b")
    assert votes(cluster, "b") == [("a", 7, False, True)]
    cluster.deliver(VoteResponse)
    assert (cluster["a"].replica.term, cluster["a"].role) == (7, Role.FOLLOWER)


def test_rule_19_pre_votes_are_not_counted_as_votes() -> None:
    cluster = Cluster(terms=dict.fromkeys("abc", 4))
    server = cluster.stand("a")
    assert server.replica.term == 5
    cluster.receive(grant(5, "b", "a", pre=True))
    cluster.receive(grant(6, "b", "a", pre=True))
    assert cluster.role("a") is Role.CANDIDATE
    cluster.receive(grant(5, "b", "a"))
    assert cluster.role("a") is Role.LEADER


def test_rule_19_votes_are_not_counted_as_pre_votes() -> None:
    cluster = Cluster(terms=dict.fromkeys("abc", 4))
    cluster.stand("a")
    cluster.campaign("a")
    assert (cluster["a"].role, cluster["a"].replica.term) == (Role.PRE_CANDIDATE, 5)
    cluster.receive(grant(5, "b", "a"))
    assert cluster["a"].role is Role.PRE_CANDIDATE


@pytest.mark.parametrize("term", [4, 5, 7])
def test_rule_19_a_pre_vote_for_another_term_is_not_counted(term: Term) -> None:
    cluster = Cluster(terms=dict.fromkeys("abc", 5))
    cluster.campaign("a")
    cluster.receive(grant(term, "b", "a", pre=True))
    assert (cluster["a"].role, cluster["a"].replica.term) == (Role.PRE_CANDIDATE, 5)
    cluster.receive(grant(6, "b", "a", pre=True))
    assert (cluster["a"].role, cluster["a"].replica.term) == (Role.CANDIDATE, 6)


def test_rule_19_answers_that_come_when_nobody_asks_are_ignored() -> None:
    cluster = Cluster()
    cluster.receive(refusal(0, "b", "a", pre=True))
    led(cluster)
    cluster.receive(refusal(1, "b", "a"))
    cluster.receive(refusal(1, "c", "a"))
    assert cluster["a"].role is Role.LEADER


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_rule_20_a_campaign_begins_without_leader_and_with_a_clean_tally(role: Role) -> None:
    cluster = Cluster(tuple("abcde"))
    led(cluster, "b")
    assert str(cluster["a"].replica.leader) == "b"
    cluster.isolate("b")
    (cluster.campaign if role is Role.PRE_CANDIDATE else cluster.stand)("a")
    assert cluster.role("a") is role
    assert not cluster["a"].replica.leader
    assert set(cluster["a"].replica.votes) == {"a"}


def test_rule_20_votes_of_an_earlier_campaign_do_not_help_a_later_one() -> None:
    cluster = Cluster(tuple("abcde"))
    cluster.stand("a")
    cluster.receive(grant(1, "b", "a"))
    cluster.stand("a")
    assert cluster["a"].replica.term == 2
    cluster.receive(grant(1, "d", "a"))
    cluster.receive(grant(2, "c", "a"))
    assert cluster["a"].role is Role.CANDIDATE


def test_rule_21_a_pre_vote_never_clears_a_vote() -> None:
    cluster = Cluster()
    cluster.advance(1)
    cluster.receive(request(1, "b", "a"))
    cluster.receive(request(2, "c", "a", pre=True))
    cluster.receive(request(1, "c", "a", pre=True))
    cluster.receive(request(1, "c", "a"))
    cluster.persist("a")
    assert votes(cluster) == [
        ("b", 1, True, False),
        ("c", 2, True, True),
        ("c", 1, False, True),
        ("c", 1, False, False),
    ]
    assert cluster["a"].replica.vote == "b"


def test_a_pre_vote_for_the_present_term_is_judged_like_a_vote() -> None:
    cluster = Cluster(terms={"a": 1})
    cluster.advance(1)
    cluster.receive(request(1, "b", "a", pre=True))
    assert votes(cluster) == [("b", 1, True, True)]
    cluster.network.clear()
    cluster.receive(beat(1, "c", "a"))
    cluster.receive(request(1, "b", "a", pre=True))
    assert votes(cluster) == [("b", 1, False, True)]


# --- nobody is stuck (rules 22, 26, 30) -------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", [False, True])
def test_rule_22_a_low_term_request_is_answered_with_the_higher_term(pre: bool) -> None:
    cluster = Cluster(terms={"a": 5})
    cluster.receive(request(3, "b", "a", (9, 3), pre=pre))
    assert votes(cluster) == [("b", 5, False, pre)]


@pytest.mark.parametrize("kind", ["append", "beat"])
def test_rule_22_a_low_term_leader_is_answered_with_the_higher_term(kind: str) -> None:
    cluster = Cluster(terms={"a": 5})
    cluster.receive(append(3, "b", "a", terms=[3]) if kind == "append" else beat(3, "b", "a"))
    (answer,) = cluster.pending(sender="a")
    assert (answer.receiver, answer.term) == ("b", 5)
    assert cluster["a"].log() == []


def test_rule_22_a_stuck_candidate_of_a_higher_term_is_freed() -> None:
    """etcd's FreeStuckCandidateWithCheckQuorum: a higher term and a shorter log; it can't win, and must not stay outside."""
    cluster = Cluster()
    led(cluster)
    cluster.isolate("c")
    cluster.propose("a", "x")
    cluster.settle()
    cluster["c"].disk.hard_state = HardState(7, sid("c"), 0)
    cluster.crash("c")
    cluster.restart("c")
    assert cluster["c"].replica.term == 7
    cluster.heal()
    cluster.run(3 * T)
    leader = next(server for server in cluster.servers.values() if server.role is Role.LEADER)
    assert leader.replica.term > 7
    assert cluster["c"].replica.leader == leader.id
    assert cluster["c"].entries() == leader.entries()


def test_rule_26_a_learner_does_not_campaign() -> None:
    cluster = Cluster(("a", "b"), ("d",))
    cluster.run(5)
    assert cluster["d"].replica.term == next(s.replica.term for s in cluster.servers.values() if s.role is Role.LEADER)
    cluster.crash("a")
    cluster.crash("b")
    cluster.clear_trace()
    cluster.run(5)
    assert cluster["d"].role is Role.FOLLOWER
    assert not cluster.pending(RequestVote)


def test_rule_26_a_server_without_configuration_does_not_campaign() -> None:
    cluster = Cluster()
    cluster.add("z", empty=True)
    cluster.campaign("z")
    assert (cluster["z"].role, cluster["z"].replica.term, cluster.network) == (Role.FOLLOWER, 0, [])


def test_rule_26_a_demoted_voter_with_a_higher_term_can_still_push_it() -> None:
    cluster = Cluster(("a", "b"), ("d",), terms={"d": 6})
    cluster.run(5)
    leaders = [server for server in cluster.servers.values() if server.role is Role.LEADER]
    assert [leader.replica.term > 6 for leader in leaders] == [True]
    assert cluster["d"].replica.leader == leaders[0].id


@pytest.mark.parametrize("answer", ["append", "rejection", "beat", "vote", "refused vote", "pre-vote refusal"])
def test_rule_30_a_higher_term_in_any_reply_ends_a_leadership(answer: str) -> None:
    cluster = Cluster()
    server = led(cluster)
    session = server.progress("b").session
    messages: dict[str, RaftMessage] = {
        "append": append(9, "b", "a"),
        "rejection": msgspec.structs.replace(rejected(cluster, "a", "b", 1, (0, 0)), term=9),
        "beat": HeartbeatResponse(9, sid("b"), sid("a"), session, 1, 0),
        "vote": grant(9, "b", "a"),
        "refused vote": refusal(9, "b", "a"),
        "pre-vote refusal": refusal(9, "b", "a", pre=True),
    }
    cluster.receive(messages[answer])
    assert (server.role, server.replica.term, server.replica.vote) == (Role.FOLLOWER, 9, None), "adopted, not granted"


def test_rule_31_the_leader_is_forgotten_when_the_term_moves_on_without_one() -> None:
    cluster = Cluster()
    led(cluster)
    cluster.advance(T)
    cluster.receive(request(5, "c", "b", (9, 9)))
    assert cluster["b"].replica.leader is None


# --- stickiness and check-quorum (rules 23 - 25, 32, 33, 61) ----------------------------------------------------------


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("hearer", ["a", "b"])
def test_rule_25_whoever_hears_a_leader_ignores_candidates_wholly(hearer: str, pre: bool) -> None:
    """Follower and leader alike: no answer, no new term, no write."""
    cluster = Cluster()
    led(cluster)
    before = cluster[hearer].replica.term
    cluster.receive(request(9, "c", hearer, (9, 9), pre=pre))
    assert (cluster[hearer].replica.term, cluster.network, len(cluster[hearer].jobs)) == (before, [], 0)


@pytest.mark.parametrize("pre", [False, True])
def test_rule_25_after_an_election_timeout_candidates_are_judged_again(pre: bool) -> None:
    cluster = Cluster()
    led(cluster)
    cluster.advance(T)
    cluster.receive(request(9, "c", "b", (9, 9), pre=pre))
    cluster.persist("b")
    assert votes(cluster) == [("c", 9, True, pre)]


def test_rule_25_a_pre_candidate_judges_candidates_though_it_heard_a_leader_lately() -> None:
    cluster = Cluster()
    led(cluster)
    cluster.crash("a")
    cluster.campaign("b")
    cluster.receive(request(2, "c", "b", (9, 9), pre=True))
    assert votes(cluster) == [("c", 2, True, True)]


@pytest.mark.parametrize("what", ["pre-vote refusal", "refused vote", "beat answer"])
def test_rule_25_a_higher_term_alone_does_not_end_the_promise_to_a_leader(what: str) -> None:
    """The leader's lease rests on it: whoever answered a heartbeat is deaf for T, also if a late answer of somebody else
    teaches it a higher term meanwhile."""
    cluster = Cluster(terms=dict.fromkeys("abc", 1))
    cluster.advance(1)
    cluster.receive(beat(1, "a", "b"))
    assert [type(m) for m in cluster.drop()] == [HeartbeatResponse]
    messages: dict[str, RaftMessage] = {
        "pre-vote refusal": refusal(2, "c", "b", pre=True),
        "refused vote": refusal(2, "c", "b"),
        "beat answer": HeartbeatResponse(2, sid("c"), sid("b"), 1, 1, 1),
    }
    cluster.receive(messages[what])
    cluster.persist("b")
    assert cluster["b"].replica.term == 2
    cluster.advance(T / 2)
    cluster.receive(request(3, "c", "b", pre=True))
    cluster.receive(request(3, "c", "b"))
    cluster.persist("b")
    assert cluster.network == []
    cluster.advance(T / 2)
    cluster.receive(request(3, "c", "b"))
    cluster.persist("b")
    assert votes(cluster) == [("c", 3, True, False)]


@pytest.mark.parametrize("pre", [False, True])
def test_rule_24_the_leader_itself_may_ask(pre: bool) -> None:
    """hc#606: 2 of 3 without a leader for ever, because the old leader's questions were not heard."""
    cluster = Cluster()
    led(cluster)
    cluster.receive(request(2, "a", "b", (1, 1), pre=pre))
    cluster.persist("b")
    assert votes(cluster) == [("a", 2, True, pre)]


@pytest.mark.parametrize("empty", [False, True])
def test_rule_23_32_a_returning_server_deposes_nobody(empty: bool) -> None:
    cluster = Cluster()
    leader = led(cluster)
    term = leader.replica.term
    cluster.isolate("c")
    if not empty:
        cluster.propose("a", "x")
    cluster.run(10 * T)
    assert cluster["c"].role is Role.PRE_CANDIDATE
    assert cluster["c"].replica.term == term
    cluster.heal()
    cluster.run(3 * T)
    assert (leader.role, leader.replica.term, cluster["c"].replica.leader) == (Role.LEADER, term, "a")


def test_rule_23_a_partially_connected_server_does_not_make_leadership_flap() -> None:
    """b and c can't hear each other, a hears both: whoever leads stays leader (pre-vote alone would not do)."""
    cluster = Cluster()
    led(cluster, "b")
    cluster.cut = {(sid("b"), sid("c")), (sid("c"), sid("b"))}
    term = cluster["b"].replica.term
    cluster.run(20 * T)
    assert (cluster["b"].role, cluster["b"].replica.term) == (Role.LEADER, term)


def test_rule_23_check_quorum_ends_a_leadership_without_contact() -> None:
    cluster = Cluster()
    leader = led(cluster)
    cluster.isolate("a")
    cluster.run(T / 2)
    assert cluster.role("a") is Role.LEADER
    cluster.run(T)
    assert cluster.role("a") is not Role.LEADER
    assert "lost contact with the quorum" in leader.facts


def test_rule_23_check_quorum_counts_voters_only() -> None:
    cluster = Cluster(learners=("d", "e"))
    leader = led(cluster)
    cluster.isolate("a", "d", "e")
    cluster.run(1.5 * T)
    assert leader.role is not Role.LEADER


def test_rule_33_a_leader_that_is_not_heard_steps_down() -> None:
    """One-way links: what counts as contact is an answer, not a message of the other's own."""
    cluster = Cluster()
    leader = led(cluster)
    cluster.cut = {(sid("a"), sid("b")), (sid("a"), sid("c"))}
    for _ in range(8):
        cluster.advance(T / 5)
        cluster.receive(request(2, "b", "a", (9, 9), pre=True))
        cluster.tick("a")
        cluster.settle()
    assert leader.role is not Role.LEADER


def test_rule_33_a_leader_that_is_heard_but_hears_nobody_steps_down_and_another_leads() -> None:
    """One-way links, the other way round: its followers stay loyal for as long as it speaks."""
    cluster = Cluster()
    led(cluster)
    cluster.cut = {(sid("b"), sid("a")), (sid("c"), sid("a"))}
    cluster.run(T - 0.01)
    assert cluster.role("a") is Role.LEADER
    cluster.run(6 * T)
    assert cluster.role("a") is not Role.LEADER
    assert [s.id for s in cluster.servers.values() if s.role is Role.LEADER]


def test_rule_61_a_restarted_server_gives_no_vote_for_one_election_timeout() -> None:
    cluster = Cluster()
    led(cluster)
    cluster.crash("b")
    cluster.restart("b")
    cluster.advance(T * 0.9)
    cluster.receive(request(9, "c", "b", (9, 9), pre=True))
    cluster.receive(request(9, "c", "b", (9, 9)))
    cluster.persist("b")
    assert (cluster.network, cluster["b"].replica.term) == ([], 1)
    cluster.advance(T * 0.1 + 1e-6)
    cluster.receive(request(9, "c", "b", (9, 9)))
    cluster.persist("b")
    assert votes(cluster) == [("c", 9, True, False)]


def test_rule_61_a_promise_made_in_a_term_that_was_not_yet_durable_is_kept_too() -> None:
    """A heartbeat is answered before the term is on disk; the restarted server must be deaf all the same."""
    cluster = Cluster()
    cluster.receive(beat(1, "a", "b"))
    assert [m.term for m in cluster.drop(HeartbeatResponse)] == [1]
    cluster.crash("b")
    cluster.restart("b")
    assert cluster["b"].replica.term == 0
    cluster.advance(T / 2)
    cluster.receive(request(2, "c", "b"))
    cluster.persist("b")
    assert cluster.network == []


# --- whole elections --------------------------------------------------------------------------------------------------


def test_a_single_server_leads_at_once_when_started() -> None:
    cluster = Cluster(("a",))
    cluster.run(0)
    assert cluster["a"].role is Role.LEADER
    assert cluster["a"].replica.log.commit == 1
    cluster.crash("a")
    cluster.restart("a")
    cluster.run(0)
    assert cluster["a"].role is Role.LEADER


def test_rule_61_a_sole_voter_by_an_uncommitted_change_waits_like_anybody() -> None:
    """The others may have elected without it: its own configuration may yet be replaced, and they hold a lease."""
    cluster = Cluster(("a", "b"))
    alone = encode_configuration(configuration("a", "b"))
    cluster["a"].disk.entries = [(1, alone)]
    cluster["a"].disk.configurations = {1: configuration("a", "b")}
    cluster["a"].disk.hard_state = HardState(1, None, 0)
    cluster.crash("a")
    cluster.restart("a")
    assert cluster["a"].replica.halves == (("a",),)
    assert cluster["a"].replica.election_due >= cluster.now + T


def test_rule_2_a_candidate_whose_own_vote_is_not_durable_begins_no_newer_term() -> None:
    cluster = Cluster()
    cluster.campaign("a")
    cluster.receive(grant(1, "b", "a", pre=True))
    cluster.network.clear()
    cluster.campaign("a")
    assert (cluster.role("a"), cluster["a"].replica.term, cluster.network) == (Role.CANDIDATE, 1, [])
    cluster.persist("a")
    cluster.network.clear()
    cluster.campaign("a")
    assert cluster.role("a") is Role.PRE_CANDIDATE


def test_rule_28_nobody_takes_office_while_a_snapshot_replaces_its_log() -> None:
    cluster = Cluster()
    cluster.stand("a")
    meta = SnapshotMeta(5, 1, 0, cluster.configuration, 0)
    cluster.step("a", SnapshotReceived(1, sid("b"), 1, meta))
    cluster.receive(grant(1, "b", "a"))
    assert cluster.role("a") is Role.FOLLOWER


def test_dividing_votes_end_in_a_new_election() -> None:
    cluster = Cluster()
    cluster.outwait("a")
    cluster.outwait("b")
    cluster.tick("a")
    cluster.tick("b")
    cluster.settle()
    assert all(server.role is not Role.LEADER for server in cluster.servers.values() if server.id == "c")
    cluster.run(3)
    assert sum(server.role is Role.LEADER for server in cluster.servers.values()) == 1


def test_of_duelling_candidates_the_one_with_the_shorter_log_never_wins() -> None:
    cluster = Cluster()
    cluster.isolate("c")
    led(cluster)
    cluster.propose("a", "x")
    cluster.settle()
    cluster.run(2)
    cluster.heal()
    cluster.crash("a")
    cluster.run(3)
    assert cluster["b"].role is Role.LEADER
    assert cluster["c"].entries() == cluster["b"].entries()


@pytest.mark.parametrize("seed", range(8))
def test_a_cluster_elects_one_leader_and_after_its_crash_another(seed: int) -> None:
    cluster = Cluster(tuple("abcde"), seed=seed)
    lost: list[str] = []
    for _ in range(3):
        cluster.run(3)
        leaders = [s.id for s in cluster.servers.values() if s.up and s.role is Role.LEADER]
        assert len(leaders) == 1, f"seed {seed}: {leaders}"
        lost.append(leaders[0])
        cluster.crash(lost[-1])
    cluster.run(3)
    assert not [s for s in cluster.servers.values() if s.up and s.role is Role.LEADER], "two of five are no quorum"
    for name in lost:
        cluster.restart(name)
    cluster.run(3)
    assert sum(s.role is Role.LEADER for s in cluster.servers.values()) == 1


def test_newer_logs_overwrite_what_an_old_leader_left_behind() -> None:
    """etcd's LeaderElectionOverwriteNewerLogs."""
    logs = {"a": [1], "b": [1], "c": [2], "d": [], "e": []}
    cluster = Cluster(tuple("abcde"), logs=logs, terms={"a": 1, "b": 1, "c": 2, "d": 2, "e": 2})
    cluster.isolate("a", "b", "d", "e")
    cluster.run(3)
    cluster.heal()
    cluster.run(3)
    logs_now = {tuple(server.entries()) for server in cluster.servers.values()}
    assert len(logs_now) == 1


def test_a_message_for_somebody_else_is_not_for_me() -> None:
    cluster = Cluster()
    output = cluster.step("a", _received(append(3, "b", "c", terms=[3])))
    assert (cluster["a"].replica.term, output.write) == (0, None)


def test_two_leaders_in_one_term_are_a_reason_to_stop() -> None:

    cluster = Cluster()
    led(cluster)
    with pytest.raises(InvariantError, match="two leaders in one term"):
        cluster.receive(append(1, "b", "a"))


def test_a_candidate_hears_no_order_and_a_follower_none_of_a_stranger() -> None:
    """Rule 88: TimeoutNow is for a follower, from its leader, in its term."""
    cluster = Cluster()
    led(cluster)
    for message in (order(2, "a", "b"), order(0, "a", "b"), order(1, "c", "b")):
        cluster.receive(message)
        assert (cluster["b"].role, cluster["b"].replica.term) == (Role.FOLLOWER, 1)
    cluster.campaign("b")
    cluster.receive(order(1, "a", "b"))
    assert cluster["b"].role is Role.PRE_CANDIDATE
    assert not cluster.pending(AppendEntries)


def test_an_answer_to_a_heartbeat_is_only_for_a_leader() -> None:
    cluster = Cluster()
    led(cluster)
    message = beat_answered(cluster, "a", "b", 1)
    cluster.receive(type(message)(1, sid("b"), sid("c"), 1, 1, 1))
    assert cluster["c"].role is Role.FOLLOWER
    assert not cluster.pending(Heartbeat)


def _received(message: AppendEntries) -> Received:

    return Received(message)
