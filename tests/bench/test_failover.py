"""The figures of a fail-over, from when acknowledgements came."""

import pytest

from tests.bench.failover import above_targets, end_of_silence, longest_silence, quantile


def test_an_acknowledgement_on_its_way_does_not_end_an_outage() -> None:
    """The dead leader's last words come a moment after its death; what counts is the silence behind them."""
    assert end_of_silence(10.0, [10.01, 10.02, 10.5, 10.51, 10.6]) == pytest.approx(0.5)
    assert end_of_silence(10.0, [10.4, 10.41]) == pytest.approx(0.4)


def test_a_graceful_stop_is_judged_by_the_longest_silence_around_it() -> None:
    assert longest_silence([1.0, 1.01, 1.09, 1.1]) == pytest.approx(0.08)


def test_quantiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.5, 0.9, 0.99)] == [50.0, 90.0, 99.0]
    assert quantile([7.0], 0.5) == quantile([7.0], 0.99) == 7.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_targets() -> None:
    assert above_targets([0.5] * 99 + [2.0]) == []
    assert len(above_targets([0.5] * 98 + [2.0] * 2)) == 1
    assert len(above_targets([0.7] * 99 + [3.1])) == 2
