"""`python -m tests.sim --seeds A..B --seconds N`: run seeds, print what happened, fail if anything broke or too little did."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.sim import campaign
from tests.sim.campaign import Book
from tests.sim.children import in_children
from tests.sim.run import Outcome, replay_line, run
from tests.sim.summary import Summary
from tests.sim.surroundings import Options


def main(arguments: list[str] | None = None) -> int:
    settings = _parser().parse_args(arguments)
    book = Book(settings.results) if settings.results else None
    seeds = _seeds(settings, book)
    total = Summary()
    failed: list[int] = []
    for piece in campaign.pieces(seeds, settings.chunk if book else len(seeds)):
        of_piece = Summary()
        failed_here = _run_all(piece, settings, of_piece)
        failed += failed_here
        total.add(of_piece)
        if book is not None:
            book.append(campaign.chunk(piece, settings.seconds, of_piece, failed_here))
            print(f"seeds {piece[0]}..{piece[-1]}: {of_piece.line()}, {len(failed_here)} failed", flush=True)
    print(total.table())
    shortfalls = total.shortfalls()
    for shortfall in shortfalls:
        print(f"too little: {shortfall}")
    print(f"{len(failed)} of {len(seeds)} runs failed" + (f": seeds {sorted(failed)}" if failed else ""))
    if book is not None:
        print(f"{settings.results}: {book.total()}; {book.total(campaign.commit())}")
    return 1 if failed or (shortfalls and not settings.no_floors) else 0


def _run_all(seeds: list[int], settings: argparse.Namespace, total: Summary) -> list[int]:
    """Run these, print and count; returns those that failed."""
    failed = []
    every = [Options(seed, settings.seconds, settings.servers, settings.paranoid) for seed in seeds]
    outcomes: Iterable[tuple[Options, Outcome | None]]
    if settings.trace is not None:
        outcomes = ((options, _traced(options, settings.trace)) for options in every)
    elif settings.jobs == 1:
        outcomes = ((options, run(options)) for options in every)
    else:
        outcomes = in_children(run, every, settings.jobs)
    for options, outcome in outcomes:
        if outcome is None:
            outcome = Outcome(options, Summary(runs=1), "the process that ran it died")
        total.add(outcome.summary)
        if outcome.failure:
            failed.append(options.seed)
            print(f"seed {options.seed} FAILED: {outcome.failure}\n{outcome.report}", flush=True)
            print(f"replay: {replay_line(options)}", flush=True)
        elif not (settings.quiet or settings.results):
            print(f"seed {options.seed}: {outcome.summary.line()}", flush=True)
    return failed


def _traced(options: Options, path: Path) -> Outcome:
    with path.open("w", encoding="utf-8") as file:
        return run(options, file)


def _seeds(settings: argparse.Namespace, book: Book | None) -> list[int]:
    if settings.next:
        if book is None:
            raise SystemExit("--next needs --results: the file that knows which seeds were run")
        return list(range(book.next, book.next + settings.next))
    first, _, last = settings.seeds.partition("..")
    asked = range(int(first), int(last or first) + 1)
    return list(asked) if book is None else book.unused(asked[0], asked[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="1..10", help="A..B, or one seed")
    parser.add_argument("--seconds", type=float, default=20.0, help="simulated seconds of each run (default 20)")
    parser.add_argument("--servers", type=int, default=5, help="founding voters (default 5)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each in a process of its own (default 1)")
    parser.add_argument("--paranoid", action="store_true", help="messages as bytes, all invariants from scratch")
    parser.add_argument("--trace", type=Path, help="write the whole trace of the (last) run to this file")
    parser.add_argument("--quiet", action="store_true", help="no line for each run that passes")
    parser.add_argument("--no-floors", action="store_true", help="don't fail if too little happened")
    parser.add_argument("--results", type=Path, help="append what came of it to this file; run only what it lacks")
    parser.add_argument("--next", type=int, default=0, metavar="N", help="the N seeds behind those in the results")
    parser.add_argument("--chunk", type=int, default=50, help="seeds for one line of the results (default 50)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
