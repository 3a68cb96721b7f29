"""`python -m tests.bench.failover`: how long nobody can write when the leader dies, and when it is stopped.

Three real servers and eight clients with default settings, each with one write under way. The leader gets SIGKILL, again and
again at a random moment; what is measured is the time from there to the next acknowledged write. Then it gets SIGTERM as often;
there it is the longest silence around it. An acknowledgement that was already on its way when the leader died does not count:
the silence that is measured is the longest one behind the kill, and it ends at its end.

In the end every acknowledged write must be there, and have taken effect once. `--thresholds` makes figures above the targets
fail too.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.integration.cluster import PATIENCE, ServerCluster, ServerProcess, wait_for
from tests.integration.writers import Writers, violations

_AROUND = 0.5
"""Seconds: a silence that begins so long before a graceful stop, or after its end, is part of it."""


class Outage(NamedTuple):
    """Seconds. `everybody`: until any client could write again; `each`: until every client had, one by one."""

    everybody: float
    each: list[float]


def main() -> None:
    options = _parse()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ServerCluster(Path(folder)) as cluster:
        cluster.bootstrap()
        bench = Bench(cluster, random.Random(seed))
        wrong = []
        if options.kills:
            outages = bench.repeat(options.kills, bench.kill)
            report("SIGKILL of the leader, to the next acknowledged write", outages)
            wrong += above_targets([outage.everybody for outage in outages]) if options.thresholds else []
        if options.stops:
            outages = bench.repeat(options.stops, bench.stop)
            report("graceful stop of the leader, longest silence", outages)
            silences = [outage.everybody for outage in outages]
            if options.thresholds and quantile(silences, 0.99) > 0.2:
                wrong.append("graceful stops: p99 is above 0.2 s")
        wrong += bench.end()
    print("\n".join(wrong) or "as it should be")
    sys.exit(bool(wrong))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=100)
    parser.add_argument("--thresholds", action="store_true", help="figures above the targets fail")
    parser.add_argument("--folder", default=None, help="where the servers' data lie")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; what else happens, chance decides")
    return parser.parse_args()


class Bench:
    """A cluster under load whose leader goes and comes back."""

    def __init__(self, cluster: ServerCluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._writers = Writers([(server.client_address, server.keys.public) for server in cluster.servers])
        self._writers.start()
        self._all_have_written(0.0)

    def repeat(self, count: int, once: Callable[[ServerProcess], Outage]) -> list[Outage]:
        outages = []
        for number in range(1, count + 1):
            leader = self._cluster.whole()
            time.sleep(self._chance.uniform(0.5, 1.0))  # the moment is random: nothing is waited for
            outages.append(once(leader))
            print(f"{number:4}: {1000 * outages[-1].everybody:5.0f} ms", flush=True)
            leader.start()
        return outages

    def kill(self, leader: ServerProcess) -> Outage:
        killed = time.monotonic()
        leader.kill()
        self._all_have_written(time.monotonic())
        moments = self._writers.moments(killed)
        everybody = sorted(moment for each in moments.values() for moment in each)
        return Outage(end_of_silence(killed, everybody), [end_of_silence(killed, each) for each in moments.values()])

    def stop(self, leader: ServerProcess) -> Outage:
        asked = time.monotonic()
        leader.signal(signal.SIGTERM)
        assert leader.process is not None
        code = leader.process.wait(PATIENCE)
        if code != 0:
            raise SystemExit(f"{leader.name} ended with {code} after SIGTERM")
        ended = time.monotonic()
        self._all_have_written(ended + _AROUND)
        moments = self._writers.moments(asked - _AROUND)
        everybody = sorted(moment for each in moments.values() for moment in each)
        return Outage(longest_silence(everybody), [longest_silence(each) for each in moments.values()])

    def end(self) -> list[str]:
        """What is wrong with what was written."""
        books = self._writers.finish()
        figures = self._cluster.converged()
        with self._cluster.client(timeout=PATIENCE) as client:
            # In pieces: a long run writes more than fits into one answer.
            prefixes = sorted({key[: key.rindex("/") + 2] for key in books})
            found = [pair for prefix in prefixes for pair in client.kv_list(prefix, consistency="consistent")]
            wrong = violations(books, found)
        if len({each["state_digest"] for each in figures}) != 1:
            wrong.append("the servers' states differ")
        acknowledged = sum(len(book.acknowledged) for book in books.values())
        unknown = sum(len(book.unknown) for book in books.values())
        print(f"{acknowledged} writes acknowledged, {unknown} with unknown outcome, {len(wrong)} things wrong")
        return wrong

    def _all_have_written(self, since: float) -> None:
        """Also some more than once, so that a late acknowledgement of the dead is not taken for one of the living."""
        wait_for(
            lambda: all(len(each) >= 3 for each in self._writers.moments(since).values()), "writes of every client"
        )


def end_of_silence(begin: float, moments: list[float]) -> float:
    """From `begin` to the end of the longest silence behind it."""
    return max(pairwise([begin, *moments]), key=lambda pair: pair[1] - pair[0])[1] - begin


def longest_silence(moments: list[float]) -> float:
    return max(second - first for first, second in pairwise(moments))


def quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    return sorted(values)[max(0, -(-len(values) * int(1000 * share) // 1000) - 1)]


def report(what: str, outages: list[Outage]) -> None:
    print(f"{what}, {len(outages)} times:")
    for name, values in (
        ("of any client", [outage.everybody for outage in outages]),
        ("of each client", [seconds for outage in outages for seconds in outage.each]),
    ):
        p50, p90, p99 = (1000 * quantile(values, share) for share in (0.5, 0.9, 0.99))
        late, very_late = (sum(value > limit for value in values) for limit in (1.5, 3.0))
        print(
            f"  {name:14}  p50 {p50:5.0f} ms   p90 {p90:5.0f} ms   p99 {p99:5.0f} ms   max {1000 * max(values):5.0f} ms"
            f"   above 1.5 s: {late}   above 3 s: {very_late}",
            flush=True,
        )


def above_targets(seconds: list[float]) -> list[str]:
    wrong = []
    if quantile(seconds, 0.5) > 0.6:
        wrong.append("kills: p50 is above 0.6 s")
    if sum(value > 1.5 for value in seconds) > len(seconds) / 100:
        wrong.append("kills: more than one in a hundred is above 1.5 s")
    if max(seconds) > 3.0:
        wrong.append("kills: one is above 3 s")
    return wrong


if __name__ == "__main__":
    main()
