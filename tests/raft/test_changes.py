"""Chains of membership changes, of any kind and in any order, against what a configuration must be (rules 65, 67, 69)."""

import functools
from itertools import chain, combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.raft.events import AddServer, Change, PromoteServer, RemoveServer
from coordd.raft.membership import begin_promotion, changed, end_joint
from coordd.raft.output import Refusal
from coordd.raft.quorum import Halves, halves_of, has_quorum
from coordd.types import Configuration, ServerId
from tests.raft.cluster import configuration, member, sid

NAMES = "abcde"

names = st.sampled_from(NAMES)
additions = st.builds(
    lambda name, promote, replaces: AddServer(
        member(name, voter=False, promote=promote), sid(replaces) if replaces else None
    ),
    names,
    st.booleans(),
    st.none() | names,
)
changes = st.one_of(
    additions,
    st.builds(RemoveServer, names.map(sid)),
    st.builds(PromoteServer, names.map(sid)),
)


def steps(start: Configuration, wanted: list[Change]) -> list[Configuration]:
    """What a leader that heeds rule 65 appends, one after the other: each change to its end, and every promotion at once."""
    history = [start]
    for change in wanted:
        begun = changed(history[-1], change)
        if isinstance(begun, Refusal):
            continue
        history.append(begun)
        if begun.joint:
            history.append(end_joint(begun))
        for learner in [m.id for m in history[-1].members if m.promote]:
            history.append(begin_promotion(history[-1], learner))
            history.append(end_joint(history[-1]))
    return history


@functools.cache
def deciding(halves: Halves) -> list[frozenset[ServerId]]:
    """Every set of servers that may decide under a configuration, by trying all."""
    everybody = [sid(name) for name in NAMES]
    subsets = chain.from_iterable(combinations(everybody, size) for size in range(len(everybody) + 1))
    return [frozenset(chosen) for chosen in subsets if has_quorum(halves, chosen.__contains__)]


@settings(deadline=None, max_examples=60)
@given(st.lists(changes, max_size=6))
def test_rule_65_67_neighbouring_configurations_have_no_disjoint_quorums(wanted: list[Change]) -> None:
    """The leader may be in the older one and a candidate in the newer one: they must not decide apart."""
    history = steps(configuration("abc"), wanted)
    for before, after in pairwise(history):
        older, newer = deciding(halves_of(before)), deciding(halves_of(after))
        assert all(one & other for one in older for other in newer), (before, after)


@settings(deadline=None)
@given(st.lists(changes, max_size=12))
def test_every_configuration_on_the_way_is_sound(wanted: list[Change]) -> None:
    for known in steps(configuration("abc", "d"), wanted):
        ids = [m.id for m in known.members]
        assert ids == sorted(set(ids))
        assert known.voters, "somebody can always decide"
        assert not any(m.voter and (m.promote or m.replaces) for m in known.members)
        if known.joint:
            assert set(known.outgoing) <= set(ids), "who is leaving is still told"
            assert set(known.leaving) == set(known.outgoing) - set(known.voters)
            assert not any(known.member(server).voter for server in known.leaving)  # type: ignore[union-attr]
        else:
            assert known.leaving == ()


@settings(deadline=None)
@given(st.lists(changes, max_size=6), changes)
def test_a_change_that_was_made_can_not_be_made_again(wanted: list[Change], change: Change) -> None:
    """Asking twice, because the first answer was lost, is refused or is another change; it never undoes anything."""
    history = steps(configuration("abc"), wanted)
    once = steps(history[-1], [change])
    twice = steps(once[-1], [change])
    if len(once) > 1:
        assert twice == [once[-1]]
