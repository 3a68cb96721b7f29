"""`python -m tests.bench.writes`: acknowledged writes a second of a real three-server cluster.

N independent clients in a process of their own, each with one outstanding write of 256 bytes to one of 10,000 random keys, one
write a message, CURVE, ACLs on, numbered writes. Prints writes/s, p50 and p99 latency and each server's fdatasyncs, and fails if
a server made none: a number without a sync would be worth nothing.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from coordd.messages.command import AclBootstrap, AclPutPolicy, AclPutToken
from tests.integration.cluster import ServerCluster, ServerProcess, wait_for


def main() -> None:
    options = _parse()
    if options.child:
        _child(options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ServerCluster(Path(folder)) as cluster:
        cluster.bootstrap()
        management, token = _tokens(cluster)
        for count in options.clients:
            runs = [_measure(cluster, management, token, count, options) for _ in range(options.runs)]
            _show(count, runs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.writes", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the servers' data lie")
    parser.add_argument("--child", nargs=3, metavar=("ADDRESS", "KEY", "TOKEN"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _tokens(cluster: ServerCluster) -> tuple[str, str]:
    """ACLs on: a management secret, and the secret of a token that may write below bench/."""
    management, token = "management-secret-of-the-bench", "writer-secret-of-the-bench"
    with cluster.client(timeout=30) as client:
        client.write(AclBootstrap("management", hashlib.sha256(management.encode()).digest()))
    with cluster.client(timeout=30, token=management) as client:
        client.write(AclPutPolicy("bench", json.dumps({"key_prefix": {"bench/": "write"}})))
        client.write(AclPutToken("bench", hashlib.sha256(token.encode()).digest(), ("bench",)))
    return management, token


def _measure(
    cluster: ServerCluster, management: str, token: str, count: int, options: argparse.Namespace
) -> dict[str, Any]:
    leader = cluster.leader(management)
    before = _syncs(cluster, management)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.bench.writes", "--clients", str(count), "--seconds", str(options.seconds)]
    command += ["--warm-up", str(options.warm_up), "--child", leader.client_address, leader.keys.public, token]
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    result = dict(json.loads(child.stdout))
    after = _syncs(cluster, management)
    result["fdatasyncs"] = {name: after[name] - before[name] for name in after}
    result["span"] = time.monotonic() - began
    if not all(result["fdatasyncs"].values()):
        raise SystemExit(f"a server made no fdatasync: {result['fdatasyncs']}")
    return result


def _child(options: argparse.Namespace) -> None:
    from tests.bench.load import Load

    address, key, token = options.child
    count, latencies = Load(address, key, token, options.clients[0], seed=1).run(options.warm_up, options.seconds)
    latencies.sort()
    result = {
        "rate": count / options.seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
    }
    json.dump(result, sys.stdout)


def _syncs(cluster: ServerCluster, management: str) -> dict[str, int]:
    def ask(server: ServerProcess) -> int:
        figures = wait_for(lambda: cluster.info(server, management), "figures")
        return int(figures["fdatasyncs"])

    return {server.name: ask(server) for server in cluster.servers}


def _show(count: int, runs: list[dict[str, Any]]) -> None:
    def median(name: str) -> float:
        return statistics.median(float(run[name]) for run in runs)

    syncs = runs[-1]["fdatasyncs"]
    print(
        f"{count:4} clients: {median('rate'):8.0f} writes/s   p50 {median('p50_ms'):7.2f} ms   p99 {median('p99_ms'):7.2f} ms"
        f"   fdatasyncs in the last run {syncs}",
        flush=True,
    )


if __name__ == "__main__":
    main()
