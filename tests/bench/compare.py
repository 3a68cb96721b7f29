"""`python -m tests.bench.compare --against COMMIT`: is this checkout slower at writing than another commit?

Runs `tests.bench.writes` of both in turns, since what else a machine does changes from minute to minute, and prints the ratio of
each pair and their median. Each commit brings its own benchmark and speaks its own protocol; the interpreter and its packages are
this one's. The other commit lies in a worktree that is removed in the end.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).resolve().parents[2]


def main() -> None:
    options = _parse()
    with _worktree(options.against) as other:
        ratios = []
        for pair in range(options.pairs):
            order = [_HERE, other] if pair % 2 == 0 else [other, _HERE]
            rates = {tree: _measure(tree, options) for tree in order}
            ratios.append(rates[_HERE] / rates[other])
            print(f"{rates[_HERE]:8.0f} here   {rates[other]:8.0f} there   ratio {ratios[-1]:.3f}", flush=True)
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f} of {len(ratios)} pairs, {options.clients} clients, against {options.against}")
    sys.exit(median < options.least)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one measurement")
    parser.add_argument("--least", type=float, default=0.0, help="a median ratio below this fails")
    return parser.parse_args()


@contextlib.contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(_HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _measure(tree: Path, options: argparse.Namespace) -> float:
    """Writes a second."""
    path = os.pathsep.join(str(tree / room) for room in ("coordd", "agent", "cli"))
    environment = os.environ | {"PYTHONPATH": path}
    found = _run(tree, environment, "-c", "import coordd; print(coordd.__file__)").strip()
    if tree not in Path(found).parents:
        raise SystemExit(f"the coordd that is measured would be {found}, not the one in {tree}")
    seconds, clients = str(options.seconds), str(options.clients)
    text = _run(
        tree, environment, "-m", "tests.bench.writes", "--clients", clients, "--seconds", seconds, "--runs", "1"
    )
    match = re.search(r"(\d+) writes/s", text)
    if match is None:
        raise SystemExit(f"no figure in what the benchmark of {tree} printed: {text}")
    return float(match[1])


def _run(tree: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
