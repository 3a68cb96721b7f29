"""Short runs of the whole simulator: nothing breaks, one seed is one run, and the counts are real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.run import replay_line, run
from tests.sim.summary import Summary
from tests.sim.surroundings import Options

ROOT = Path(__file__).parents[2]


def test_a_handful_of_seeds_keeps_every_invariant() -> None:
    total = Summary()
    for seed in range(1, 7):
        outcome = run(Options(seed, seconds=10))
        assert not outcome.failure, f"{outcome.failure}\n{outcome.report}\n{replay_line(outcome.options)}"
        total.add(outcome.summary)
    assert total.counts["operations"] > 10 * total.simulated, total.table()  # shorter runs do less than the floors ask


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_small_clusters_work_too(servers: int) -> None:
    outcome = run(Options(5, seconds=6, servers=servers))
    assert not outcome.failure, f"{outcome.failure}\n{outcome.report}\n{replay_line(outcome.options)}"


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_a_paranoid_run_agrees(seed: int) -> None:
    fast = run(Options(seed, seconds=5))
    paranoid = run(Options(seed, seconds=5, paranoid=True))
    assert (fast.failure, paranoid.failure) == ("", "")
    assert fast.summary.counts == paranoid.summary.counts


def test_one_seed_is_one_run_in_every_process(tmp_path: Path) -> None:
    traces = []
    for hash_seed in ("1", "2"):
        trace = tmp_path / hash_seed
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seeds", "8", "--seconds", "5", "--no-floors", "--trace", str(trace)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            timeout=60,
        )
        traces.append(trace.read_bytes())
    assert len(traces[0]) > 100_000
    assert traces[0] == traces[1]
