"""The Raft paper, sentence by sentence: each test quotes one, with its section in the thesis (Ongaro 2014).

Behind "etcd:" stands what the same test is called in etcd's raft_paper_test.go, the checklist that most others follow.
"""

from collections import Counter
from collections.abc import Sequence

import pytest

from coordd.messages.entry import NOOP_ENTRY
from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    RaftMessage,
    RequestVote,
    VoteResponse,
)
from coordd.raft.output import Accepted, Role
from coordd.raft.settings import RaftSettings
from coordd.types import Index, Term
from tests.raft.cluster import Cluster, command, sid
from tests.raft.words import accepted, append, beat, grant, refusal, rejected, request

FIVE = ("a", "b", "c", "d", "e")


def as_role(cluster: Cluster, name: str, role: Role) -> None:
    """Bring a server into a role by means that leave the others untouched."""
    if role is Role.PRE_CANDIDATE:
        cluster.campaign(name)
    elif role is Role.CANDIDATE:
        cluster.stand(name)
    elif role is Role.LEADER:
        cluster.lead(name)
        cluster.persist(name)
    cluster.network.clear()
    assert cluster[name].role is role


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "leader"),
    [
        (append(9, "b", "a"), "b"),
        (beat(9, "b", "a"), "b"),
        (AppendResponse(9, sid("b"), sid("a"), 1, 1, 0), None),
        (HeartbeatResponse(9, sid("b"), sid("a"), 1, 1, 0), None),
        (refusal(9, "b", "a"), None),
    ],
    ids=lambda given: type(given).__name__,
)
@pytest.mark.parametrize("role", Role)
def test_a_newer_term_is_adopted_from_a_message(role: Role, message: RaftMessage, leader: str | None) -> None:
    """3.3: "if one server's current term is smaller than the other's, then it updates its current term to the larger
    value"; "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state".
    etcd: FollowerUpdateTermFromMessage, CandidateUpdateTermFromMessage, LeaderUpdateTermFromMessage.
    """
    cluster = Cluster()
    as_role(cluster, "a", role)
    cluster.receive(message)
    assert (cluster["a"].replica.term, cluster["a"].role, cluster["a"].replica.leader) == (9, Role.FOLLOWER, leader)
    assert cluster["a"].replica.vote is None


@pytest.mark.parametrize("role", Role)
def test_a_message_with_a_stale_term_is_rejected(role: Role) -> None:
    """3.3: "If a server receives a request with a stale term number, it rejects the request".
    etcd: RejectStaleTermMessage.
    """
    cluster = Cluster(terms={"a": 5})
    as_role(cluster, "a", role)
    before = cluster["a"].log()
    cluster.receive(append(4, "b", "a", terms=[4]))
    cluster.receive(request(4, "b", "a", (9, 4)))
    cluster.persist("a")
    assert cluster["a"].role is role
    assert cluster["a"].log() == before
    assert {answer.term for answer in cluster.pending(sender="a", receiver="b")} == {cluster["a"].replica.term}
    assert [answer.granted for answer in cluster.sent(VoteResponse)] == [False]


# --- election ---------------------------------------------------------------------------------------------------------


def test_a_server_starts_as_follower() -> None:
    """3.4: "When servers start up, they begin as followers".
    etcd: StartAsFollower.
    """
    cluster = Cluster(logs={"a": [1, 2]})
    assert {server.role for server in cluster.servers.values()} == {Role.FOLLOWER}
    assert cluster.network == []


def test_a_leader_sends_heartbeats_to_all_followers_at_intervals() -> None:
    """3.4: "Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all followers".
    etcd: LeaderBcastBeat.
    """
    cluster = Cluster()
    leader = cluster.elect("a")
    cluster.tick("a")
    for _ in range(3):
        assert leader.deadline == pytest.approx(cluster.now + cluster.settings.heartbeat_interval)
        cluster.beat("a")
        beats = cluster.drop(Heartbeat)
        assert [message.receiver for message in beats] == ["b", "c"]
        assert {message.term for message in beats} == {leader.replica.term}


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
def test_without_a_leader_an_election_is_begun(role: Role) -> None:
    """3.4: "If a follower receives no communication over a period of time called the election timeout, then it assumes
    there is no viable leader and begins an election"; "it increments its current term and transitions to candidate state.
    It then votes for itself and issues RequestVote RPCs in parallel to each of the other servers". A candidate that
    times out starts "a new election by incrementing its term". The question of 9.6 goes first.
    etcd: FollowerStartElection, CandidateStartNewElection.
    """
    cluster = Cluster(logs={name: [1, 2] for name in "abc"}, terms={"a": 4, "b": 4, "c": 4})
    as_role(cluster, "a", role)
    term = cluster["a"].replica.term
    server = cluster.stand("a")
    asked = cluster.pending(RequestVote, sender="a")
    assert (server.replica.term, server.role, server.replica.vote) == (term + 1, Role.CANDIDATE, "a")
    assert asked == [request(term + 1, "a", "b", (2, 2)), request(term + 1, "a", "c", (2, 2))]
    assert server.disk.hard_state.vote == "a"


@pytest.mark.parametrize(
    ("voters", "answers", "role"),
    [
        ("a", {}, Role.LEADER),
        ("abc", {"b": True, "c": True}, Role.LEADER),
        ("abc", {"b": True}, Role.LEADER),
        ("abcde", {"b": True, "c": True}, Role.LEADER),
        ("abcde", {"b": True, "c": True, "d": False, "e": False}, Role.LEADER),
        ("abc", {"b": False, "c": False}, Role.FOLLOWER),
        ("abcde", {"b": False, "c": False, "d": False}, Role.FOLLOWER),
        ("abcde", {"b": True, "c": False, "d": False, "e": False}, Role.FOLLOWER),
        ("abc", {}, Role.CANDIDATE),
        ("abcde", {"b": True}, Role.CANDIDATE),
        ("abcde", {"b": False, "c": False}, Role.CANDIDATE),
        ("abcde", {"b": False, "c": True}, Role.CANDIDATE),
    ],
)
def test_an_election_is_decided_by_a_majority(voters: str, answers: dict[str, bool], role: Role) -> None:
    """3.4: "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the
    same term".
    etcd: LeaderElectionInOneRoundRPC.
    """
    cluster = Cluster(tuple(voters))
    server = cluster.stand("a")
    for voter, granted in answers.items():
        message = grant if granted else refusal
        cluster.receive(message(server.replica.term, voter, "a"))
    assert server.role is role


@pytest.mark.parametrize(
    ("voted", "asks", "granted"),
    [(None, "b", True), (None, "c", True), ("b", "b", True), ("c", "c", True), ("b", "c", False), ("c", "b", False)],
)
def test_each_server_votes_for_at_most_one_candidate_in_a_term(voted: str | None, asks: str, granted: bool) -> None:
    """3.4: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis".
    etcd: FollowerVote.
    """
    cluster = Cluster()
    cluster.advance(1)
    if voted is not None:
        cluster.receive(request(1, voted, "a"))
    cluster.receive(request(1, asks, "a"))
    cluster.persist("a")
    assert cluster.pending(VoteResponse)[-1] == (grant if granted else refusal)(1, "a", asks)


@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_falls_back_to_follower_when_another_leads(term: Term) -> None:
    """3.4: "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the
    leader as legitimate and returns to follower state".
    etcd: CandidateFallback.
    """
    cluster = Cluster()
    server = cluster.stand("a")
    assert server.replica.term == 1
    cluster.receive(append(term, "b", "a"))
    assert (server.role, server.replica.term, server.replica.leader) == (Role.FOLLOWER, term, "b")


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_election_timeouts_are_chosen_randomly_from_the_interval(role: Role) -> None:
    """3.4: "election timeouts are chosen randomly from a fixed interval". Here [T, 2T).
    etcd: FollowerElectionTimeoutRandomized, CandidateElectionTimeoutRandomized.
    """
    base = RaftSettings().election_timeout
    seen = Counter[int]()
    for seed in range(200):
        cluster = Cluster(seed=seed)
        as_role(cluster, "a", role)
        waits = cluster["a"].replica.election_due - cluster.now
        assert base <= waits < 2 * base + 1e-9
        seen[int((waits - base) / base * 10)] += 1
    assert len(seen) == 10, f"not spread over the interval: {seen}"


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
def test_random_timeouts_mostly_do_not_collide(role: Role) -> None:
    """3.4: "This spreads out the servers so that in most cases only a single server will time out".
    etcd: FollowersElectionTimeoutNonconflict, CandidatesElectionTimeoutNonconflict.
    """
    collisions = 0
    for seed in range(100):
        cluster = Cluster(FIVE, seed=seed)
        if role is Role.CANDIDATE:
            for name in FIVE:
                cluster.campaign(name)
        dues = sorted(server.replica.election_due for server in cluster.servers.values())
        collisions += dues[1] - dues[0] < 0.01  # two would ask before either hears of the other, on a LAN
    assert collisions < 40


@pytest.mark.parametrize(
    ("own", "last", "granted"),
    [
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([1], (1, 2), True),
        ([1], (2, 2), True),
        ([1, 1], (1, 2), True),
        ([2], (1, 1), False),
        ([2], (9, 1), False),
        ([2, 2], (1, 2), False),
    ],
)
def test_a_voter_denies_its_vote_to_a_less_complete_log(
    own: Sequence[Term], last: tuple[Index, Term], granted: bool
) -> None:
    """3.6.1: "the voter denies its vote if its own log is more up-to-date than that of the candidate"; "If the logs have
    last entries with different terms, then the log with the later term is more up-to-date. If the logs end with the same
    term, then whichever log is longer is more up-to-date".
    etcd: Voter.
    """
    cluster = Cluster(logs={"a": own})
    cluster.advance(1)
    cluster.receive(request(3, "b", "a", last))
    cluster.persist("a")
    assert cluster.pending(VoteResponse) == [(grant if granted else refusal)(3, "a", "b")]


@pytest.mark.parametrize(("log", "last"), [([1], (1, 1)), ([1, 2], (2, 2)), ([1, 2, 2], (3, 2))])
def test_a_vote_request_tells_how_complete_the_log_is(log: Sequence[Term], last: tuple[Index, Term]) -> None:
    """3.6.1: "the RPC includes information about the candidate's log".
    etcd: VoteRequest.
    """
    cluster = Cluster(logs={"a": log})
    server = cluster.stand("a")
    asked = cluster.pending(RequestVote)
    assert asked == [request(server.replica.term, "a", peer, last) for peer in "bc"]


# --- replication ------------------------------------------------------------------------------------------------------


def test_a_leader_appends_a_command_and_sends_it_to_all_in_parallel() -> None:
    """3.5: "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel to each
    of the other servers to replicate the entry". "It includes the index and term of the entry in its log that immediately
    precedes the new entries".
    etcd: LeaderStartReplication.
    """
    cluster = Cluster()
    leader = cluster.elect("a")
    output = cluster.propose("a", "x")
    assert output.proposal == Accepted(2, 1, 1)
    assert leader.entries() == [NOOP_ENTRY, command("x")]
    sent = cluster.sent(AppendEntries)
    assert [(m.receiver, m.previous_index, m.previous_term, m.slice.entries) for m in sent] == [
        ("b", 1, 1, [command("x")]),
        ("c", 1, 1, [command("x")]),
    ]
    assert output.write is not None
    assert output.write.slice is not None
    assert output.write.slice.entries == [command("x")]


def test_a_leader_commits_and_tells() -> None:
    """3.5: "When the entry has been safely replicated, the leader applies the entry to its state machine"; "the leader
    includes [the highest committed index] in future AppendEntries RPCs so that the other servers eventually find out".
    etcd: LeaderCommitEntry.
    """
    cluster = Cluster()
    leader = cluster.elect("a")
    cluster.propose("a", "x")
    cluster.persist("a")
    cluster.network.clear()
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert leader.replica.log.commit == 2
    assert cluster.trace[-1][2].committed == 2
    told = {m.receiver: m.commit for m in cluster.sent(AppendEntries)}
    assert told == {"b": 2}, "c has nothing yet that could be committed"


@pytest.mark.parametrize(
    ("voters", "having", "committed"),
    [
        ("a", "", True),
        ("abc", "", False),
        ("abc", "b", True),
        ("abc", "bc", True),
        ("abcde", "", False),
        ("abcde", "b", False),
        ("abcde", "bc", True),
        ("abcde", "bcd", True),
        ("abcde", "bcde", True),
    ],
)
def test_an_entry_is_committed_once_a_majority_has_it(voters: str, having: str, committed: bool) -> None:
    """3.5: "A log entry is committed once the leader that created the entry has replicated it on a majority".
    etcd: LeaderAcknowledgeCommit.
    """
    cluster = Cluster(tuple(voters))
    cluster.elect("a")
    cluster.propose("a", "x")
    cluster.persist("a")
    for peer in having:
        cluster.receive(accepted(cluster, "a", peer, 2))
    assert (cluster["a"].replica.log.commit == 2) is committed


@pytest.mark.parametrize("log", [[], [2], [1, 2], [1]])
def test_a_commit_includes_all_preceding_entries(log: Sequence[Term]) -> None:
    """3.5: "This also commits all preceding entries in the leader's log, including entries created by previous leaders".
    etcd: LeaderCommitPrecedingEntries.
    """
    cluster = Cluster(logs={"a": log}, terms={"a": 2, "b": 2, "c": 2})
    leader = cluster.elect("a")
    cluster.propose("a", "x")
    cluster.settle()
    assert leader.replica.term == 3
    assert leader.log() == [*log, 3, 3]
    for server in cluster.servers.values():
        assert server.entries() == leader.entries()
        assert server.replica.log.commit == server.disk.applied == len(log) + 2


@pytest.mark.parametrize("commit", [0, 1, 2, 3])
def test_a_follower_applies_what_it_learns_to_be_committed(commit: Index) -> None:
    """3.5: "Once a follower learns that a log entry is committed, it applies the entry to its local state machine (in log
    order)".
    etcd: FollowerCommitEntry.
    """
    cluster = Cluster()
    cluster.receive(append(1, "b", "a", terms=[1, 1, 1], commit=commit))
    assert cluster["a"].to_apply == 0, "not before it is durable"
    cluster.persist("a")
    assert cluster["a"].to_apply == commit


@pytest.mark.parametrize(
    ("previous", "hint"),
    [
        ((0, 0), None),
        ((1, 1), None),
        ((2, 2), None),
        ((1, 2), (1, 1)),
        ((2, 1), (1, 1)),
        ((3, 3), (2, 2)),
        ((9, 1), (1, 1)),
    ],
)
def test_a_follower_refuses_entries_behind_one_it_does_not_have(
    previous: tuple[Index, Term], hint: tuple[Index, Term] | None
) -> None:
    """3.5: "If the follower does not find an entry in its log with the same index and term, then it refuses the new
    entries". The answer says where to try next (the end of 3.5).
    etcd: FollowerCheckMsgApp.
    """
    cluster = Cluster(logs={"a": [1, 2]})
    cluster.receive(append(3, "b", "a", previous))
    cluster.persist("a")
    (answer,) = cluster.sent(AppendResponse)
    if hint is None:
        assert (answer.index, answer.rejected) == (previous[0], None)
    else:
        assert (answer.index, answer.hint_term, answer.rejected) == (*hint, previous[0])


@pytest.mark.parametrize(
    ("previous", "terms", "log", "written"),
    [
        ((2, 2), [3], [1, 2, 3], [3]),
        ((1, 1), [3, 4], [1, 3, 4], [3, 4]),
        ((0, 0), [1], [1, 2], []),
        ((0, 0), [3], [3], [3]),
        ((1, 1), [2, 2], [1, 2, 2], [2]),
    ],
)
def test_a_follower_replaces_from_the_first_conflict_on(
    previous: tuple[Index, Term], terms: Sequence[Term], log: Sequence[Term], written: Sequence[Term]
) -> None:
    """3.5: "conflicting entries in follower logs will be overwritten with entries from the leader's log". Figure 3.1: "If
    an existing entry conflicts with a new one (same index but different terms), delete the existing entry and all that
    follow it"; "Append any new entries not already in the log".
    etcd: FollowerAppendEntries.
    """
    cluster = Cluster(logs={"a": [1, 2]})
    output = cluster.receive(append(4, "b", "a", previous, terms))
    assert output is not None
    assert output.write is not None
    assert list(output.write.slice.terms() if output.write.slice else []) == written
    assert cluster["a"].log() == log


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("follower", FIGURE_7)
def test_a_leader_brings_followers_logs_into_consistency_with_its_own(follower: str) -> None:
    """3.5 and figure 3.6 (figure 7 of the paper): "the leader handles inconsistencies by forcing the followers' logs to
    duplicate its own".
    etcd: LeaderSyncFollowerLog.
    """
    leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    cluster = Cluster(
        ("l", "x", "f"),
        logs={"l": leader_log, "f": FIGURE_7[follower]},
        terms={"l": 8, "f": 8 if follower != "d" else 7},
    )
    leader = cluster.elect("l")
    assert leader.replica.term == 9
    assert cluster["f"].log() == [*leader_log, 9]
    assert cluster["f"].entries() == leader.entries()


def test_a_leader_probes_back_when_a_follower_refuses() -> None:
    """3.5: "After a rejection, the leader decrements the follower's nextIndex and retries"."""
    cluster = Cluster(logs={"a": [1, 1, 1, 4, 4, 5]}, terms={"a": 5})
    cluster.lead("a")
    (probe,) = cluster.sent(AppendEntries, receiver="b")
    assert (probe.previous_index, probe.previous_term) == (6, 5)
    cluster.network.clear()
    cluster.receive(rejected(cluster, "a", "b", 6, (3, 1)))
    (probe,) = cluster.sent(AppendEntries, receiver="b")
    assert (probe.previous_index, probe.previous_term, list(probe.slice.terms())) == (3, 1, [4, 4, 5, 6])


@pytest.mark.parametrize(("index", "commit"), [(1, 0), (2, 0), (3, 3)])
def test_only_entries_of_the_own_term_are_committed_by_counting(index: Index, commit: Index) -> None:
    """3.6.2: "only log entries from the leader's current term are committed by counting replicas; once an entry from the
    current term has been committed in this way, then all prior entries are committed indirectly".
    etcd: LeaderOnlyCommitsLogFromCurrentTerm.
    """
    cluster = Cluster(logs={"a": [1, 2]})
    cluster.lead("a")
    cluster.persist("a")
    assert cluster["a"].log() == [1, 2, 3]
    cluster.receive(accepted(cluster, "a", "b", index))
    assert cluster["a"].replica.log.commit == commit


def test_figure_8_a_new_leader_does_not_commit_what_an_old_one_could_have_lost() -> None:
    """3.6.2, figure 3.7: an entry of term 2 on a majority is not yet committed when a leader of term 4 replicates it."""
    cluster = Cluster(
        FIVE, logs={"a": [1, 2], "b": [1, 2], "c": [1], "d": [1], "e": [1, 3]}, terms=dict.fromkeys(FIVE, 3)
    )
    cluster.isolate("a", "b", "c")
    cluster.lead("a")
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 2))
    cluster.receive(accepted(cluster, "a", "c", 2))
    assert cluster["a"].replica.log.commit == 0, "(c): on a majority, and still replaceable by e"
    cluster.receive(accepted(cluster, "a", "c", 3))
    cluster.receive(accepted(cluster, "a", "b", 3))
    assert cluster["a"].replica.log.commit == 3, "(e): now e can't win any more"


def test_a_follower_hears_of_a_leader_from_a_heartbeat() -> None:
    """3.4: heartbeats establish authority and prevent new elections."""
    cluster = Cluster()
    cluster.advance(0.29)
    cluster.receive(beat(1, "b", "a"))
    assert cluster["a"].replica.leader == sid("b")
    assert cluster["a"].replica.election_due >= cluster.now + cluster.settings.election_timeout
