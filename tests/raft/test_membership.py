"""Rules F of the core (rules 65-77): one change at a time, joint majorities, learners first, nobody left behind."""

import msgspec
import pytest

from coordd.messages.entry import encode_configuration
from coordd.messages.peer import AppendEntries, Heartbeat, RequestVote, TimeoutNow
from coordd.raft import events, membership
from coordd.raft.output import Accepted, Output, Refusal, Role
from coordd.types import Configuration, LogSlice, Member, ServerId
from tests.raft.cluster import Cluster, Server, configuration, member, sid
from tests.raft.words import accepted, beat_answered, grant

T = 0.3


def ready(cluster: Cluster, name: str = "a") -> Server:
    server = cluster.elect(name)
    cluster.beat(name)
    cluster.settle()
    return server


def change(cluster: Cluster, wanted: events.Change, leader: str = "a", *, force: bool = False) -> Output:
    return cluster.step(leader, events.ChangeRequested(wanted, force))


def add(name: str, *, promote: bool = False, replaces: str | None = None) -> events.AddServer:
    old = sid(replaces) if replaces else None
    return events.AddServer(member(name, voter=False, promote=promote), old)


def remove(name: str) -> events.RemoveServer:
    return events.RemoveServer(sid(name))


def promote(name: str) -> events.PromoteServer:
    return events.PromoteServer(sid(name))


def move(name: str, raft: str = "10.9.9.9:1", client: str = "10.9.9.9:2") -> events.MoveServer:
    return events.MoveServer(sid(name), raft, client)


def voters(server: Server) -> str:
    assert server.replica.configuration is not None
    return "".join(server.replica.configuration.voters)


def members(server: Server) -> str:
    assert server.replica.configuration is not None
    return "".join(m.id for m in server.replica.configuration.members)


def joint(server: Server) -> bool:
    return server.replica.configuration is not None and server.replica.configuration.joint


# --- the next configuration, pure -------------------------------------------------------------------------------------

ABC = configuration("abc")
ABCD = configuration("abc", "d")


def names(found: Configuration | Refusal) -> tuple[str, str, str, str]:
    """voters, learners, outgoing, leaving"""
    assert isinstance(found, Configuration), found
    learners = "".join(m.id for m in found.members if not m.voter)
    return "".join(found.voters), learners, "".join(found.outgoing), "".join(found.leaving)


def test_a_server_joins_as_a_learner_whatever_is_asked() -> None:
    asked = events.AddServer(member("d", voter=True))
    assert names(membership.changed(ABC, asked)) == ("abc", "d", "", "")


def test_rule_69_a_voter_is_a_learner_before_it_is_gone() -> None:
    begun = membership.changed(ABC, remove("c"))
    assert names(begun) == ("ab", "c", "abc", "c")
    assert isinstance(begun, Configuration)
    assert names(membership.end_joint(begun)) == ("ab", "", "", "")


def test_a_learner_is_removed_in_one_step() -> None:
    assert names(membership.changed(ABCD, remove("d"))) == ("abc", "", "", "")


def test_a_promotion_is_marked_first_and_then_begun() -> None:
    marked = membership.changed(ABCD, promote("d"))
    assert names(marked) == ("abc", "d", "", "")
    assert isinstance(marked, Configuration)
    begun = membership.begin_promotion(marked, sid("d"))
    assert names(begun) == ("abcd", "", "abc", "")
    assert begun.member(sid("d")) == member("d")
    assert names(membership.end_joint(begun)) == ("abcd", "", "", "")


def test_a_replacement_swaps_two_voters_in_one_joint_change() -> None:
    added = membership.changed(ABC, add("d", promote=True, replaces="c"))
    assert names(added) == ("abc", "d", "", "")
    assert isinstance(added, Configuration)
    begun = membership.begin_promotion(added, sid("d"))
    assert names(begun) == ("abd", "c", "abc", "c")
    assert names(membership.end_joint(begun)) == ("abd", "", "", "")


def test_a_learner_is_replaced_at_once() -> None:
    found = membership.changed(ABCD, add("e", replaces="d"))
    assert names(found) == ("abc", "e", "", "")
    assert isinstance(found, Configuration)
    assert found.member(sid("e")) == member("e", voter=False)


def test_a_replacement_whose_old_server_is_gone_meanwhile_is_a_plain_promotion() -> None:
    added = membership.changed(ABC, add("d", promote=True, replaces="c"))
    assert isinstance(added, Configuration)
    gone = membership.end_joint(msgspec.structs.replace(added, outgoing=added.voters, leaving=(sid("c"),)))
    assert names(membership.begin_promotion(gone, sid("d"))) == ("abd", "", "ab", "")


def test_rule_75_a_new_life_of_a_server_replaces_the_old_one_under_the_same_name() -> None:
    def life(n: int, *, voter: bool) -> Member:
        return msgspec.structs.replace(member("x", voter=voter), id=ServerId(f"x#{n}"))

    old = Configuration("id", "test", (member("a"), life(1, voter=True)))
    assert membership.changed(old, events.AddServer(life(2, voter=False))) is Refusal.ALREADY_MEMBER
    added = membership.changed(old, events.AddServer(life(2, voter=False), ServerId("x#1")))
    assert isinstance(added, Configuration)
    assert [m.id for m in added.members] == ["a", "x#1", "x#2"]


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (add("a"), Refusal.ALREADY_MEMBER),
        (add("e", replaces="z"), Refusal.UNKNOWN_SERVER),
        (remove("z"), Refusal.UNKNOWN_SERVER),
        (promote("z"), Refusal.UNKNOWN_SERVER),
        (promote("a"), Refusal.ALREADY_MEMBER),
        (move("z"), Refusal.UNKNOWN_SERVER),
    ],
)
def test_changes_that_make_no_sense_are_refused(asked: events.Change, refusal: Refusal) -> None:
    assert membership.changed(ABCD, asked) is refusal


def test_rule_77_the_last_voter_cannot_be_removed() -> None:
    assert membership.changed(configuration("a", "b"), remove("a")) is Refusal.LAST_VOTER


def test_the_promotion_of_somebody_unknown_changes_nothing() -> None:
    assert membership.begin_promotion(ABC, sid("z")) == ABC


# --- when a change may begin (rules 65, 71) ---------------------------------------------------------------------------


def test_only_a_leader_changes_the_membership() -> None:
    cluster = Cluster()
    ready(cluster)
    assert change(cluster, add("d"), "b").change is Refusal.NOT_LEADER


def test_rule_65_not_before_an_entry_of_the_own_term_is_committed() -> None:
    """Ongaro's bug of 2015."""
    cluster = Cluster()
    cluster.lead("a")
    assert change(cluster, add("d")).change is Refusal.NOT_READY
    cluster.settle()
    assert change(cluster, add("d")).change == Accepted(2, 1, 1)


def test_rule_65_one_change_at_a_time() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, add("d"))
    assert change(cluster, add("e")).change is Refusal.CHANGE_PENDING
    cluster.settle()
    assert isinstance(change(cluster, add("e")).change, Accepted)
    cluster.settle()
    change(cluster, remove("c"))
    cluster.persist("a")
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 4))
    assert joint(leader) is False or change(cluster, add("f")).change is Refusal.CHANGE_PENDING


def test_rule_65_none_while_a_joint_configuration_is_under_way() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, remove("c"))
    assert joint(leader)
    assert change(cluster, add("d")).change is Refusal.CHANGE_PENDING


def test_no_change_while_leadership_is_handed_over() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.propose("a", "x")
    cluster.step("a", events.TransferRequested(sid("b")))
    assert change(cluster, add("d")).change is Refusal.TRANSFERRING


def test_rule_71_a_removal_that_would_cost_the_quorum_is_refused_unless_forced() -> None:
    cluster = Cluster(tuple("abcd"))
    ready(cluster)
    cluster.isolate("d")
    cluster.run(2 * T)
    assert change(cluster, remove("d")).change != Refusal.WOULD_LOSE_QUORUM
    cluster.settle()
    assert voters(cluster["a"]) == "abc"
    cluster = Cluster()
    ready(cluster)
    cluster.isolate("c")
    cluster.run(2 * T)
    assert change(cluster, remove("b")).change is Refusal.WOULD_LOSE_QUORUM
    assert isinstance(change(cluster, remove("b"), force=True).change, Accepted)


def test_rule_71_a_leader_that_has_not_heard_everybody_yet_says_so_in_place_of_judging_their_health() -> None:
    cluster = Cluster()
    cluster.isolate("c")
    leader = cluster.elect("a")
    assert leader.replica.log.commit == 1
    assert change(cluster, remove("b")).change is Refusal.UNHEARD
    cluster.run(2 * T)
    assert change(cluster, remove("b")).change is Refusal.WOULD_LOSE_QUORUM
    cluster = Cluster()
    cluster.elect("a")
    assert isinstance(change(cluster, remove("b")).change, Accepted)


# --- other addresses (rule 78) ----------------------------------------------------------------------------------------


def test_rule_78_a_move_changes_the_addresses_and_nothing_else() -> None:
    moved = membership.changed(ABCD, move("b"))
    assert isinstance(moved, Configuration)
    old, new = ABCD.member(sid("b")), moved.member(sid("b"))
    assert old is not None
    assert new == msgspec.structs.replace(old, raft_address="10.9.9.9:1", client_address="10.9.9.9:2")
    assert [m for m in moved.members if m.id != "b"] == [m for m in ABCD.members if m.id != "b"]
    assert (moved.voters, moved.joint) == (ABCD.voters, False)


def test_rule_78_a_move_is_a_change_like_others() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    assert isinstance(change(cluster, move("b")).change, Accepted)
    assert change(cluster, move("c")).change is Refusal.CHANGE_PENDING
    cluster.settle()
    for name in ("a", "b", "c"):
        known = cluster[name].replica.configuration
        assert known is not None
        found = known.member(sid("b"))
        assert found is not None
        assert found.raft_address == "10.9.9.9:1"
    assert (members(leader), joint(leader)) == ("abc", False)


@pytest.mark.parametrize("moved", ["a", "b"])
def test_rule_78_a_move_that_might_cost_the_quorum_is_refused_unless_forced(moved: str) -> None:
    """The new address may be wrong."""
    cluster = Cluster()
    ready(cluster)
    cluster.isolate("c")
    cluster.run(2 * T)
    assert change(cluster, move(moved)).change is Refusal.WOULD_LOSE_QUORUM
    assert isinstance(change(cluster, move("c")).change, Accepted)  # nobody counts on it
    cluster.settle()
    assert isinstance(change(cluster, move(moved), force=True).change, Accepted)


def test_rule_78_a_learner_and_a_single_server_move_freely() -> None:
    cluster = Cluster(("a",))
    ready(cluster)
    assert isinstance(change(cluster, move("a")).change, Accepted)
    cluster = Cluster(("a", "b"), learners=("d",))
    ready(cluster)
    cluster.isolate("d")
    cluster.run(2 * T)
    assert isinstance(change(cluster, move("d")).change, Accepted)


# --- in effect when appended (rules 66, 74) ---------------------------------------------------------------------------


def test_rule_66_a_configuration_is_in_effect_when_it_is_appended() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    output = change(cluster, add("d"))
    assert (members(leader), output.configuration_changed) == ("abcd", True)
    assert [m.receiver for m in cluster.sent(AppendEntries)] == ["b", "c", "d"]
    cluster.deliver(AppendEntries, receiver="b")
    assert members(cluster["b"]) == "abcd", "on a follower too, committed or not"
    assert cluster["b"].replica.log.commit == 1


def test_rule_66_it_is_rolled_back_when_its_entry_is_replaced() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("a")
    change(cluster, remove("c"))
    cluster.persist("a")
    assert joint(leader)
    cluster.elect("b")
    cluster.heal()
    cluster.beat("b")
    cluster.clear_trace()
    cluster.settle()
    assert (voters(leader), joint(leader), leader.replica.configuration_index) == ("abc", False, 0)
    assert any(output.configuration_changed for who, _, output in cluster.trace if who == "a")


def test_rule_66_only_the_replaced_configuration_goes() -> None:
    cluster = Cluster(logs={"a": [1]})
    first, second = configuration("abc", "d"), configuration("abc", "de")
    entries = [encode_configuration(first), encode_configuration(second)]
    cluster.receive(AppendEntries(2, sid("b"), sid("a"), 1, 1, 1, 0, LogSlice(2, entries, ((2, 2),))))
    assert (members(cluster["a"]), cluster["a"].replica.configuration_index) == ("abcde", 3)
    assert cluster["a"].replica.configuration_at(2) == (2, first)
    cluster.receive(AppendEntries(3, sid("c"), sid("a"), 1, 2, 2, 0, LogSlice(3, [b"\0"], ((3, 3),))))
    assert (members(cluster["a"]), cluster["a"].replica.configuration_index) == ("abcd", 2)


def test_rule_74_a_restarted_server_uses_the_last_configuration_of_its_log_committed_or_not() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("a")
    change(cluster, add("d"))
    cluster.persist("a")
    cluster.crash("a")
    cluster.restart("a")
    assert (members(leader), leader.replica.configuration_index, leader.replica.log.commit) == ("abcd", 2, 1)


def test_news_of_a_configuration_comes_with_its_append_and_with_its_commit() -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.clear_trace()
    change(cluster, add("d"))
    cluster.settle()
    told: dict[str, int] = {}
    for who, _, output in cluster.trace:
        told[who] = told.get(who, 0) + output.configuration_changed
    assert told == {"a": 2, "b": 2, "c": 2}


def test_rule_71_a_learner_that_was_started_again_has_to_catch_up_again() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    cluster.run(T)
    assert leader.progress("d").caught_up
    change(cluster, promote("d"))
    cluster.persist("a")
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 2))
    cluster.receive(beat_answered(cluster, "a", "d", leader.leading.round, boot=2))
    cluster.beat("a")
    assert voters(leader) == "abc"


def test_rule_71_a_learner_that_falls_back_to_a_snapshot_has_not_caught_up() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    cluster.run(T)
    assert leader.progress("d").caught_up
    cluster.isolate("d")
    cluster.propose("a", "x", "y")
    cluster.settle()
    assert cluster.compact("a", 3) == 3
    leader.progress("d").next = 2
    cluster.step("a", events.PeerUnreachable(sid("d")))
    cluster.heal()
    cluster.step("a", events.PeerConnected(sid("d")))
    cluster.network.clear()
    change(cluster, promote("d"))
    cluster.persist("a")
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 4))
    cluster.receive(beat_answered(cluster, "a", "d", leader.leading.round))
    cluster.beat("a")
    assert voters(leader) == "abc"


# --- joint majorities (rules 51, 52, 67) ------------------------------------------------------------------------------


def in_joint(cluster: Cluster) -> Server:
    """a leads abcde, f is to replace e: appended, nothing of it acknowledged."""
    leader = ready(cluster)
    change(cluster, add("f", promote=True, replaces="e"))
    if "f" not in cluster.servers:
        cluster.add("f", empty=True)
    cluster.settle()
    while not joint(leader):
        cluster.beat("a")
        if not joint(leader):
            cluster.settle()
    cluster.drop()
    return leader


def test_rule_67_a_joint_entry_needs_both_majorities() -> None:
    cluster = Cluster(tuple("ab"))
    leader = ready(cluster)
    change(cluster, add("f", promote=True, replaces="b"))
    cluster.add("f", empty=True)
    cluster.settle()
    while not joint(leader):
        cluster.beat("a")
        if not joint(leader):
            cluster.settle()
    cluster.drop()
    cluster.persist("a")
    at = leader.replica.configuration_index
    assert (leader.replica.halves, at) == ((("a", "f"), ("a", "b")), 3)
    cluster.receive(accepted(cluster, "a", "f", at, boot=1))
    assert leader.replica.log.commit == at - 1, "a and f are all of the new, but half of the old"
    cluster.receive(accepted(cluster, "a", "b", at, boot=1))
    assert leader.replica.log.commit == at
    assert (joint(leader), voters(leader)) == (False, "af"), "and the end of it is appended at once"


def test_rule_67_elections_need_both_majorities() -> None:
    cluster = Cluster(tuple("abcde"))
    in_joint(cluster)
    candidate = cluster["b"]
    cluster.receive(cluster_append_of(cluster, "a", "b"))
    assert candidate.replica.halves == (tuple("abcdf"), tuple("abcde"))
    cluster.stand("b")
    for name in "ef":
        cluster.receive(grant(candidate.replica.term, name, "b"))
    assert candidate.role is Role.CANDIDATE, "b and e are two of abcde, b and f two of abcdf"
    cluster.receive(grant(candidate.replica.term, "c", "b"))
    assert cluster.role("b") is Role.LEADER


def test_rule_67_reads_and_check_quorum_need_both_majorities() -> None:
    cluster = Cluster(tuple("ab"))
    leader = ready(cluster)
    change(cluster, add("f", promote=True))
    cluster.add("f", empty=True)
    cluster.settle()
    cluster.beat("a")
    if not joint(leader):
        cluster.settle()
        cluster.beat("a")
    cluster.drop()
    assert leader.replica.halves == (("a", "b", "f"), ("a", "b"))
    cluster.read("a", 1)
    cluster.receive(beat_answered(cluster, "a", "f", leader.leading.round))
    assert leader.reads == {}, "a and f are a majority of abf, not of ab"
    cluster.receive(beat_answered(cluster, "a", "b", leader.leading.round))
    assert leader.reads == {1: 2}
    cluster.isolate("b")
    for _ in range(7):
        cluster.beat("a")
        if leader.role is Role.LEADER:
            cluster.receive(beat_answered(cluster, "a", "f", leader.leading.round))
    assert leader.role is not Role.LEADER


def test_rule_67_only_a_voter_of_both_halves_can_be_handed_leadership() -> None:
    cluster = Cluster(tuple("abcde"))
    in_joint(cluster)
    for name in "ef":
        assert cluster.step("a", events.TransferRequested(sid(name))).transfer is Refusal.NO_TARGET
    assert cluster.step("a", events.TransferRequested(sid("b"))).transfer == "b"


def test_rule_67_a_new_leader_ends_what_it_finds_joint() -> None:
    cluster = Cluster(tuple("abcd"))
    ready(cluster)
    change(cluster, remove("d"))
    cluster.deliver(AppendEntries)
    for name in "bcd":
        cluster.persist(name)
    cluster.drop()
    cluster.crash("a")
    cluster.run(10 * T)
    leader = next(s for s in cluster.servers.values() if s.up and s.role is Role.LEADER)
    assert (voters(leader), joint(leader), members(leader)) == ("abc", False, "abc")
    assert leader.replica.configuration_index <= leader.replica.log.commit


def test_rule_67_the_end_of_a_joint_change_is_not_refused_for_size() -> None:
    settings = msgspec.structs.replace(Cluster().settings, max_uncommitted_bytes=10)
    cluster = Cluster(settings=settings)
    leader = ready(cluster)
    change(cluster, remove("c"))
    cluster.settle()
    assert (voters(leader), joint(leader)) == ("ab", False)


def test_rule_51_what_the_smaller_quorum_has_is_committed_at_once() -> None:
    """The removal of c is itself what lets the entries before it commit with b alone."""
    cluster = Cluster(tuple("abcd"))
    leader = ready(cluster)
    cluster.isolate("c", "d")
    change(cluster, remove("d"), force=True)
    cluster.settle()
    assert leader.replica.log.commit == 1
    cluster.heal()
    cluster.isolate("d")
    cluster.beat("a")
    cluster.settle()
    assert (voters(leader), leader.replica.log.commit) == ("abc", leader.replica.log.last)


def test_rule_51_entries_that_the_new_quorum_has_already_are_committed_with_the_switch() -> None:
    cluster = Cluster(tuple("abcd"))
    leader = ready(cluster)
    change(cluster, remove("d"))
    cluster.propose("a", "x")
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 3))
    assert leader.replica.log.commit == 1
    cluster.receive(accepted(cluster, "a", "c", 2))
    assert (leader.replica.configuration_index, leader.replica.log.commit) == (4, 3), (
        "x: two of abc, but of abcd too few"
    )


def test_rule_52_learners_count_for_nothing() -> None:
    cluster = Cluster(learners=("d", "e"))
    leader = ready(cluster)
    cluster.propose("a", "x")
    cluster.persist("a")
    for name in "de":
        cluster.receive(accepted(cluster, "a", name, 2))
    assert leader.replica.log.commit == 1
    cluster.receive(accepted(cluster, "a", "b", 2))
    assert leader.replica.log.commit == 2


# --- adding and promoting (rules 71, 72) ------------------------------------------------------------------------------


def test_rule_72_a_learner_with_a_wrong_address_costs_nothing() -> None:
    cluster = Cluster(("a",))
    leader = ready(cluster)
    change(cluster, add("d", promote=True))
    cluster.run(10 * T)
    cluster.propose("a", "x")
    cluster.settle()
    assert (leader.replica.log.commit, voters(leader)) == (3, "a")


def test_rule_71_a_marked_learner_becomes_a_voter_once_it_has_caught_up() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    for n in range(50):
        cluster.propose("a", f"{n}")
    cluster.settle()
    cluster.add("d", empty=True)
    assert change(cluster, add("d", promote=True)).change == Accepted(52, 1, 1)
    cluster.settle()
    assert voters(leader) == "abc"
    cluster.run(2 * T)
    assert (voters(leader), joint(leader)) == ("abcd", False)
    assert {s.replica.configuration for s in cluster.servers.values()} == {leader.replica.configuration}
    assert [s.entries() for s in cluster.servers.values()] == [leader.entries()] * 4


def test_rule_71_an_unmarked_learner_stays_one_until_it_is_asked_for() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    cluster.run(3 * T)
    assert voters(leader) == "abc"
    change(cluster, promote("d"))
    cluster.run(3 * T)
    assert voters(leader) == "abcd"


def test_rule_71_a_silent_learner_is_not_promoted() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    cluster.isolate("d")
    cluster.run(2 * T)
    change(cluster, promote("d"))
    cluster.run(3 * T)
    assert voters(leader) == "abc"
    cluster.heal()
    cluster.run(3 * T)
    assert voters(leader) == "abcd"


def test_rule_71_a_learner_that_needs_too_long_for_a_round_is_not_promoted() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, add("d", promote=True))
    cluster.persist("a")
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 2))
    cluster.network.clear()
    for _ in range(6):
        cluster.beat("a")
        for name in "bcd":
            cluster.receive(beat_answered(cluster, "a", name, leader.leading.round))
    cluster.receive(accepted(cluster, "a", "d", 2))
    cluster.beat("a")
    assert voters(leader) == "abc", "its first round took longer than an election timeout"
    for name in "bcd":
        cluster.receive(beat_answered(cluster, "a", name, leader.leading.round))
    cluster.beat("a")
    assert voters(leader) == "abcd", "the second was quick"


def test_rule_71_a_learner_that_fell_behind_again_is_not_promoted() -> None:
    """It caught up once; since then its disk hangs while it answers heartbeats. As a voter it would take the quorum along."""
    cluster = Cluster(("a",), ("d",))
    leader = ready(cluster)
    cluster.run(2 * T)
    assert leader.progress("d").caught_up
    for n in range(20):
        cluster.propose("a", f"{n}")
        cluster.beat("a")
        cluster.persist("a")
        cluster.deliver()
    assert leader.progress("d").match == 1
    change(cluster, promote("d"))
    for _ in range(3):
        cluster.persist("a")
        cluster.beat("a")
        cluster.deliver()
    assert voters(leader) == "a"
    cluster.run(3 * T)
    assert voters(leader) == "ad", "its disk works again"


def test_rule_71_no_promotion_if_the_healthy_voters_would_not_form_a_quorum() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    cluster.isolate("c")
    cluster.run(2 * T)
    change(cluster, promote("d"))
    cluster.run(2 * T)
    assert voters(leader) == "abcd", "a, b and d are three of four"
    cluster = Cluster(tuple("abcde"), ("f",))
    leader = ready(cluster)
    cluster.isolate("d", "e")
    cluster.run(2 * T)
    change(cluster, add("g", promote=True))
    cluster.add("g", empty=True)
    cluster.run(2 * T)
    assert voters(leader) == "abcdeg", "four of six"


def test_rule_71_111_a_learner_that_is_being_refilled_is_not_promoted() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    change(cluster, promote("d"))
    cluster.settle()
    leader.progress("d").refilling = True
    cluster.beat("a")
    assert voters(leader) == "abc"


def test_rule_71_111_a_voter_that_is_being_refilled_is_not_healthy() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    leader.progress("c").refilling = True
    assert change(cluster, remove("b")).change is Refusal.WOULD_LOSE_QUORUM


def test_rule_71_111_no_promotion_while_the_voters_are_being_refilled() -> None:
    cluster = Cluster(learners=("d",))
    leader = ready(cluster)
    change(cluster, promote("d"))
    cluster.settle()
    for name in "bc":
        leader.progress(name).refilling = True
    cluster.beat("a")
    assert voters(leader) == "abc", "a and d would be two of four"
    leader.progress("b").refilling = False
    cluster.beat("a")
    assert voters(leader) == "abcd"


@pytest.mark.parametrize("replaced", ["b", "a"])
def test_a_voter_is_replaced_by_a_new_server(replaced: str) -> None:
    cluster = Cluster()
    ready(cluster)
    cluster.add("d", empty=True)
    change(cluster, add("d", promote=True, replaces=replaced))
    cluster.run(8 * T)
    left = "".join(sorted({"a", "b", "c", "d"} - {replaced}))
    leaders = [s for s in cluster.servers.values() if s.role is Role.LEADER]
    assert [voters(s) for s in leaders] == [left]
    assert [members(cluster[name]) for name in left] == [left] * 3


# --- removing (rules 53, 68 - 70) -------------------------------------------------------------------------------------


def test_rule_68_a_removed_follower_hears_of_it_and_stays_quiet() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, remove("c"))
    cluster.settle()
    assert (voters(leader), members(cluster["c"])) == ("ab", "ab")
    assert cluster["c"].replica.log.commit == leader.replica.log.last
    term = leader.replica.term
    cluster.run(20 * T)
    assert (leader.role, leader.replica.term, cluster["c"].role) == (Role.LEADER, term, Role.FOLLOWER)


def test_rule_68_the_leader_goes_on_telling_a_removed_server_for_a_while() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("c")
    change(cluster, remove("c"))
    cluster.settle()
    assert voters(leader) == "ab"
    cluster.run(1)
    cluster.heal()
    cluster.run(3 * T)
    assert members(cluster["c"]) == "ab"
    cluster.clear_trace()
    cluster.run(cluster.settings.departing_timeout)
    assert sid("c") not in leader.leading.peers
    assert any("c" in out.stop_snapshot and out.configuration_changed for _, _, out in cluster.trace)
    cluster.beat("a")
    assert [m.receiver for m in cluster.sent(Heartbeat)] == ["b"]


def test_rule_68_a_new_leader_tells_those_who_were_removed_before_its_election() -> None:
    cluster = Cluster(tuple("abcd"))
    ready(cluster)
    cluster.isolate("d")
    change(cluster, remove("d"))
    cluster.settle()
    assert members(cluster["b"]) == "abc"
    cluster.crash("a")
    cluster.heal()
    cluster.clear_trace()
    leader = cluster.elect("b")
    assert any(server == "b" and out.configuration_changed for server, _, out in cluster.trace)
    cluster.run(3 * T)
    assert members(cluster["d"]) == "abc"
    cluster.run(cluster.settings.departing_timeout)
    assert sorted(leader.leading.peers) == ["a", "c"]


def test_rule_68_a_removed_server_that_never_heard_of_it_disturbs_nobody() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    cluster.isolate("c")
    change(cluster, remove("c"))
    cluster.run(cluster.settings.departing_timeout + 1)
    cluster.heal()
    term = leader.replica.term
    cluster.run(10 * T)
    assert (leader.role, leader.replica.term, leader.replica.leader) == (Role.LEADER, term, "a")


def test_a_server_that_is_added_again_is_no_longer_departing() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, remove("c"))
    cluster.settle()
    assert leader.progress("c").departing_since is not None
    change(cluster, add("c", promote=True))
    cluster.run(3 * T)
    assert (voters(leader), leader.progress("c").departing_since) == ("abc", None)
    cluster.run(cluster.settings.departing_timeout + 1)
    assert voters(cluster["c"]) == "abc"


def test_rule_53_a_leader_that_is_no_voter_does_not_count_itself() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, remove("a"))
    cluster.persist("a")
    for name in "bc":
        cluster.receive(accepted(cluster, "a", name, 2))
    assert (voters(leader), leader.role) == ("bc", Role.LEADER), "C_new is appended, and a leads on"
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "b", 3))
    assert leader.replica.log.commit == 2, "a has it and b has it, but a does not count"
    cluster.receive(accepted(cluster, "a", "c", 3))
    assert leader.replica.log.commit == 3


def test_rule_70_a_leader_that_is_removed_leads_until_that_is_committed_and_names_a_successor() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    change(cluster, remove("a"))
    cluster.settle()
    assert leader.role is not Role.LEADER
    assert "resigned" in leader.facts
    leaders = [s for s in cluster.servers.values() if s.role is Role.LEADER]
    assert len(leaders) == 1, "without waiting for an election timeout"
    cluster.run(5 * T)
    assert [(s.role, members(s)) for s in (leader, leaders[0])] == [(Role.FOLLOWER, "bc"), (Role.LEADER, "bc")]
    assert leader.disk.applied >= 3, "it has heard of its own removal"
    cluster.run(10 * T)
    assert cluster.role("a") is Role.FOLLOWER


def test_rule_70_the_successor_that_is_named_is_one_that_answers() -> None:
    cluster = Cluster(tuple("abcd"))
    leader = ready(cluster)
    change(cluster, remove("a"))
    cluster.persist("a")
    for name in "bcd":
        cluster.receive(accepted(cluster, "a", name, 2))
    cluster.persist("a")
    cluster.receive(accepted(cluster, "a", "d", 3))
    cluster.advance(2 * T)
    cluster.network.clear()
    cluster.receive(accepted(cluster, "a", "b", 3))
    assert leader.role is Role.FOLLOWER
    assert [m.receiver for m in cluster.sent(TimeoutNow)] == ["b"], "d was silent for long"
    told = [(m.receiver, m.commit) for m in cluster.sent(AppendEntries) if m.commit == 3]
    assert told == [("b", 3), ("d", 3)], "they hear of the commit before they are left alone"


def test_a_cluster_shrinks_to_one_and_grows_again() -> None:
    cluster = Cluster()
    leader = ready(cluster)
    for name in "cb":
        change(cluster, remove(name))
        cluster.run(2 * T)
    assert voters(leader) == "a"
    cluster.propose("a", "alone")
    cluster.settle()
    assert leader.replica.log.commit == leader.replica.log.last
    for name in "bc":
        change(cluster, add(name, promote=True))
        cluster.run(3 * T)
    assert voters(leader) == "abc"
    assert [s.entries() for s in cluster.servers.values()] == [leader.entries()] * 3


def test_a_learner_that_leads_nothing_is_not_considered_for_its_own_promotion() -> None:
    """A leader that became a learner in its own joint change, and is marked to be promoted, can't be its own follower."""
    cluster = Cluster()
    leader = ready(cluster)
    odd = configuration("bc")
    odd = msgspec.structs.replace(
        odd, members=(member("a", voter=False, promote=True), *odd.members), outgoing=(), leaving=()
    )
    leader.replica.configurations = [(0, odd)]
    leader.replica.configurations_moved()
    membership.consider_promotions(leader.replica, leader.leading, cluster.now)
    assert voters(leader) == "bc"


# --- founding (rule 77) -----------------------------------------------------------------------------------------------


def test_rule_77_a_cluster_is_founded_once_on_an_empty_server() -> None:
    cluster = Cluster(())
    for name in "abc":
        cluster.add(name, empty=True)
    cluster.run(5)
    assert {s.replica.term for s in cluster.servers.values()} == {0}, "an empty server never campaigns"
    assert cluster.step("a", events.Founded(configuration("abc"))).change == Accepted(1, 1, 1)
    assert cluster.step("a", events.Founded(configuration("abc"))).change is Refusal.HAS_LOG
    cluster.run(3)
    assert cluster["a"].role is Role.LEADER
    assert [members(s) for s in cluster.servers.values()] == ["abc"] * 3
    assert cluster.step("b", events.Founded(configuration("abc"))).change is Refusal.HAS_LOG


def test_rule_77_a_server_that_has_voted_founds_nothing() -> None:
    cluster = Cluster(())
    cluster.add("a", empty=True)
    cluster.advance(1)
    cluster.receive(RequestVote(1, sid("b"), sid("a"), 1, 1))
    assert cluster.step("a", events.Founded(configuration("a"))).change is Refusal.HAS_LOG


def cluster_append_of(cluster: Cluster, leader: str, follower: str) -> AppendEntries:
    """The append that a leader would send this follower now."""
    log = cluster[leader].replica.log
    progress = cluster[leader].progress(follower)
    return AppendEntries(
        cluster[leader].replica.term,
        sid(leader),
        sid(follower),
        progress.session,
        progress.match,
        log.term(progress.match) or 0,
        log.commit,
        log.slice(progress.match + 1, 100, 10_000),
    )
