"""Quorum arithmetic against its definition, spelled out by brute force (rule 52)."""

from collections.abc import Iterator
from itertools import combinations, product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.raft.quorum import Halves, VoteResult, agreed, count_votes, halves_of, has_quorum
from coordd.types import ServerId
from tests.raft.cluster import configuration, member, sid

SERVERS = [sid(name) for name in "abcdefg"]

half = st.lists(st.sampled_from(SERVERS), min_size=1, max_size=7, unique=True).map(lambda names: tuple(sorted(names)))
halves = st.lists(half, min_size=1, max_size=2).map(tuple)
indexes = st.fixed_dictionaries({server: st.integers(0, 6) for server in SERVERS})
tallies = st.dictionaries(st.sampled_from(SERVERS), st.booleans())


def majorities(voters: tuple[ServerId, ...]) -> Iterator[set[ServerId]]:
    """Every set that is more than half of the voters."""
    for size in range(len(voters) // 2 + 1, len(voters) + 1):
        yield from map(set, combinations(voters, size))


def decide(groups: Halves, agreeing: set[ServerId]) -> bool:
    return all(any(majority <= agreeing for majority in majorities(group)) for group in groups)


@settings(deadline=None)
@given(groups=halves, match=indexes)
def test_agreed_is_the_highest_value_that_a_majority_of_each_half_has_reached(
    groups: Halves, match: dict[ServerId, int]
) -> None:
    reached = [value for value in range(7) if decide(groups, {s for s in SERVERS if match[s] >= value})]
    assert agreed(groups, match.__getitem__) == max(reached)


@settings(deadline=None)
@given(groups=halves, members=st.sets(st.sampled_from(SERVERS)))
def test_has_quorum_is_a_majority_of_each_half(groups: Halves, members: set[ServerId]) -> None:
    assert has_quorum(groups, members.__contains__) is decide(groups, members)


@settings(deadline=None)
@given(groups=halves, votes=tallies)
def test_a_tally_is_won_lost_or_open(groups: Halves, votes: dict[ServerId, bool]) -> None:
    """Lost: not even if everybody who has not answered says yes."""
    won = decide(groups, {server for server, granted in votes.items() if granted})
    lost = not decide(groups, {server for server in SERVERS if votes.get(server, True)})
    expected = VoteResult.WON if won else VoteResult.LOST if lost else VoteResult.PENDING
    assert count_votes(groups, votes) is expected


@settings(deadline=None)
@given(groups=halves, votes=tallies, outsider=st.booleans())
def test_votes_of_others_change_nothing(groups: Halves, votes: dict[ServerId, bool], outsider: bool) -> None:
    assert count_votes(groups, {**votes, sid("z"): outsider}) is count_votes(groups, votes)


@settings(deadline=None)
@given(before=half, after=half, match=indexes)
def test_a_joint_decision_is_one_of_each_of_its_halves(
    before: tuple[ServerId, ...], after: tuple[ServerId, ...], match: dict[ServerId, int]
) -> None:
    joint = agreed((after, before), match.__getitem__)
    assert joint == min(agreed((after,), match.__getitem__), agreed((before,), match.__getitem__))


@pytest.mark.parametrize("size", range(1, 8))
def test_any_two_quorums_meet(size: int) -> None:
    voters = tuple(SERVERS[:size])
    quorums = [
        {s for s, inside in zip(voters, chosen, strict=True) if inside}
        for chosen in product([False, True], repeat=size)
    ]
    deciding = [chosen for chosen in quorums if has_quorum((voters,), chosen.__contains__)]
    assert all(one & other for one, other in combinations(deciding, 2))


@pytest.mark.parametrize("groups", [(), ((),), (("a",), ())])
def test_without_voters_nothing_is_ever_decided(groups: Halves) -> None:
    assert agreed(groups, lambda server: 9) == 0
    assert not has_quorum(groups, lambda server: True)
    assert count_votes(groups, dict.fromkeys(SERVERS, True)) is VoteResult.LOST


def test_the_halves_of_a_configuration_are_its_voters_and_those_of_before() -> None:
    plain = configuration("abc", "d")
    assert halves_of(plain) == ((sid("a"), sid("b"), sid("c")),)
    joint = msgspec.structs.replace(plain, members=(*plain.members, member("e")), outgoing=plain.voters)
    assert halves_of(joint) == (("a", "b", "c", "e"), ("a", "b", "c"))
