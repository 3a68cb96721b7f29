"""Who is right when replicas differ: the majority of the voters, or nobody."""

import itertools
from collections.abc import Iterable

import pytest

from coordd.raft.quorum import has_quorum
from coordd.server.comparison import Comparison, Verdict
from tests.server.words import sid

ME, TWO, THREE, FOUR, FIVE = (sid(f"s{n}") for n in range(1, 6))
X, Y, Z = b"x", b"y", b"z"


def of(*voters: Iterable[object]) -> Comparison:
    halves = tuple(tuple(half) for half in voters)
    return Comparison(ME, lambda holds: has_quorum(halves, holds))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("digests", "verdict"),
    [
        ((X, X, X), None),
        ((X, Y, Y), Verdict.WRONG),
        ((X, X, Y), Verdict.OTHERS_WRONG),
        ((X, Y, Z), Verdict.UNDECIDED),
    ],
)
def test_of_three_two_decide_in_whatever_order_they_are_heard(
    digests: tuple[bytes, ...], verdict: Verdict | None
) -> None:
    for order in itertools.permutations(zip((ME, TWO, THREE), digests, strict=True)):
        comparison = of((ME, TWO, THREE))
        told = [comparison.note(server, 10, digest) for server, digest in order]
        assert [each for each in told if each is not None] == ([verdict] if verdict else [])


def test_two_of_three_that_differ_wait_for_the_third() -> None:
    comparison = of((ME, TWO, THREE))
    assert comparison.note(ME, 10, X) is None
    assert comparison.note(TWO, 10, Y) is None
    for index in range(11, 18):
        assert comparison.note(ME, index, X) is None
    assert comparison.note(ME, 18, X) is Verdict.UNDECIDED  # it never came


def test_of_two_nobody_can_tell() -> None:
    comparison = of((ME, TWO))
    comparison.note(TWO, 10, Y)
    assert comparison.note(ME, 10, X) is Verdict.UNDECIDED
    assert comparison.note(TWO, 10, Y) is None  # told once


def test_both_halves_of_a_joint_configuration_must_agree() -> None:
    comparison = of((ME, TWO, THREE), (TWO, FOUR, FIVE))
    comparison.note(ME, 10, X)
    comparison.note(TWO, 10, Y)
    assert comparison.note(THREE, 10, Y) is None
    assert comparison.note(FOUR, 10, Y) is Verdict.WRONG


def test_a_learner_has_no_say_and_is_judged_all_the_same() -> None:
    comparison = of((TWO, THREE, FOUR))
    comparison.note(ME, 10, X)
    comparison.note(TWO, 10, Y)
    assert comparison.note(THREE, 10, Y) is Verdict.WRONG
    comparison = of((ME, TWO, THREE))
    comparison.note(ME, 10, X)
    comparison.note(FOUR, 10, Y)
    comparison.note(FIVE, 10, Y)
    assert comparison.note(TWO, 10, X) is Verdict.OTHERS_WRONG


def test_what_a_replaced_state_was_counts_no_more() -> None:
    comparison = of((ME, TWO, THREE))
    comparison.note(ME, 10, X)
    comparison.forget_own()
    comparison.note(TWO, 10, Y)
    assert comparison.note(THREE, 10, Y) is None


def test_memory_is_bounded() -> None:
    comparison = of((ME, TWO, THREE))
    for index in range(1000):
        comparison.note(ME, index, X)
        comparison.note(TWO, index, Y)
    comparison.keep_only({ME, TWO})
    assert {len(digests) for digests in comparison._digests.values()} == {8}
    assert len(comparison._told) <= 8
    comparison.keep_only({ME})
    assert list(comparison._digests) == [ME]
