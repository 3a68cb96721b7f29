"""Replicated time: it goes at the pace of the leader's own clock, never back, and follows the wall clock gently."""

import pytest

from coordd.server.state_time import StateTime

SECOND = 10**9


def test_it_goes_on_from_what_was_applied() -> None:
    time = StateTime(500 * SECOND, since=10.0, wall=500.0)
    assert time.at(10.0, 500.0) == 500 * SECOND
    assert time.at(12.0, 502.0) == 502 * SECOND


def test_a_new_cluster_begins_with_the_wall_clock() -> None:
    assert StateTime(0, since=10.0, wall=1234.5).at(10.0, 1234.5) == int(1234.5 * SECOND)


@pytest.mark.parametrize("wall", [0.0, 1e6, 4e9])
def test_a_wrong_wall_clock_moves_it_by_one_percent_at_most(wall: float) -> None:
    time = StateTime(500 * SECOND, since=0.0, wall=500.0)
    passed = time.at(100.0, wall) - 500 * SECOND
    assert passed == 101 * SECOND if wall > 600 else passed == 99 * SECOND


def test_a_wall_clock_a_little_ahead_is_reached_and_not_passed() -> None:
    time = StateTime(500 * SECOND, since=0.0, wall=500.0)
    assert time.at(100.0, 600.5) == int(600.5 * SECOND)


def test_neither_clock_can_turn_it_back() -> None:
    time = StateTime(500 * SECOND, since=100.0, wall=500.0)
    stamps = [
        time.at(now, wall) for now, wall in [(101.0, 501.0), (100.0, 501.0), (90.0, 10.0), (101.0, -50.0), (101.5, 0.0)]
    ]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] == pytest.approx(0.495 * SECOND)  # half a second after the latest moment seen


def test_it_does_not_run_while_no_time_passes() -> None:
    time = StateTime(500 * SECOND, since=0.0, wall=500.0)
    first = time.at(10.0, 510.0)
    assert [time.at(10.0, 9999.0) for _ in range(5)] == [first] * 5
