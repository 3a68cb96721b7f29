"""`python -m tests.sim --seeds A..B --seconds N`: run seeds, print what happened, fail if anything broke or too little did."""

import argparse
import sys
from pathlib import Path

from tests.sim.run import replay_line, run
from tests.sim.summary import Summary
from tests.sim.surroundings import Options


def main(arguments: list[str] | None = None) -> int:
    settings = _parser().parse_args(arguments)
    first, last = _seeds(settings.seeds)
    total = Summary()
    failed = 0
    for seed in range(first, last + 1):
        options = Options(seed, settings.seconds, settings.servers, settings.paranoid)
        if settings.trace is None:
            outcome = run(options)
        else:
            with settings.trace.open("w", encoding="utf-8") as file:
                outcome = run(options, file)
        total.add(outcome.summary)
        if outcome.failure:
            failed += 1
            print(
                f"seed {seed} FAILED: {outcome.failure}\n{outcome.report}\nreplay: {replay_line(options)}", flush=True
            )
        elif not settings.quiet:
            print(f"seed {seed}: {outcome.summary.line()}", flush=True)
    print(total.table())
    shortfalls = total.shortfalls()
    for shortfall in shortfalls:
        print(f"too little: {shortfall}")
    print(f"{failed} of {total.runs} runs failed")
    return 1 if failed or (shortfalls and not settings.no_floors) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="1..10", help="A..B, or one seed")
    parser.add_argument("--seconds", type=float, default=20.0, help="simulated seconds of each run (default 20)")
    parser.add_argument("--servers", type=int, default=5, help="founding voters (default 5)")
    parser.add_argument("--paranoid", action="store_true", help="messages as bytes, all invariants from scratch")
    parser.add_argument("--trace", type=Path, help="write the whole trace of the (last) run to this file")
    parser.add_argument("--quiet", action="store_true", help="no line for each run that passes")
    parser.add_argument("--no-floors", action="store_true", help="don't fail if too little happened")
    return parser


def _seeds(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    return int(first), int(last or first)


if __name__ == "__main__":
    sys.exit(main())
