"""Real servers on disks without space: writes are refused with a reason, reads go on, and all goes on by itself once there is
space again. Nothing acknowledged is lost meanwhile.

Each server's data lie on a small file system of their own, which is filled up with a ballast file.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordd.client import Client
from coordd.errors import BusyError, CoorddError, OutcomeUnknownError
from coordd.messages.client import Consistency
from tests.integration.cluster import ServerCluster, ServerProcess, wait_for
from tests.integration.writers import Writers, violations
from tests.storage.test_full_disk import fill

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount small file systems"),
]

SETTINGS = """
[storage]
wal_limit_bytes = 1048576
state_checkpoint_ms = 200
"""


@contextmanager
def small_disks(folder: Path, count: int) -> Iterator[ServerCluster]:
    """A cluster, founded, with sixteen MiB for each server's data."""
    with ServerCluster(folder / "cluster", count, SETTINGS) as cluster:
        try:
            for server in cluster.servers:
                server.data.mkdir(mode=0o700)
                subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(server.data)], check=True
                )
            cluster.bootstrap()
            yield cluster
        finally:
            for server in cluster.servers:
                server.kill()
                subprocess.run(["umount", "-l", str(server.data)], check=False)


def writers_of(cluster: ServerCluster) -> Writers:
    return Writers([(server.client_address, server.keys.public) for server in cluster.servers])


def progress(writers: Writers, count: int = 50) -> None:
    before = writers.count
    wait_for(lambda: writers.count >= before + count, "acknowledged writes")


def read(cluster: ServerCluster, server: ServerProcess, consistency: Consistency) -> bytes | None:
    with cluster.client(only=server, timeout=5.0) as client:
        pair = client.kv_get("known", consistency=consistency)
    return pair.value if pair else None


def judge(cluster: ServerCluster, writers: Writers) -> None:
    books = writers.finish()
    figures = cluster.converged()
    assert len({each["state_digest"] for each in figures}) == 1
    with cluster.client(timeout=30.0) as client:
        pairs = [pair for pair in client.kv_list(consistency="consistent") if pair.key != "known"]
    assert not violations(books, pairs)


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_one_full_disk_of_three(tmp_path: Path, role: str) -> None:
    """The others go on. The full one neither ends nor answers wrongly, and catches up when there is space."""
    with small_disks(tmp_path, 3) as cluster:
        with cluster.client() as client:
            client.kv_put("known", b"value")
        writers = writers_of(cluster)
        writers.start()
        progress(writers)
        leader = cluster.whole()
        victim = leader if role == "leader" else cluster.followers()[0]
        ballast = fill(victim.data)
        wait_for(lambda: (cluster.info(victim) or {}).get("disk_full"), "the disk to be full")
        progress(writers, 500)
        assert victim.running
        assert read(cluster, victim, "stale") == b"value"
        ballast.unlink()
        cluster.whole()
        progress(writers)
        assert victim.running
        assert "disk full" in victim.log
        judge(cluster, writers)


def test_all_disks_full(tmp_path: Path) -> None:
    with small_disks(tmp_path, 3) as cluster:
        with cluster.client() as client:
            client.kv_put("known", b"value")
        writers = writers_of(cluster)
        writers.start()
        progress(writers)
        cluster.whole()
        ballast = [fill(server.data) for server in cluster.servers]
        last = [writers.count, time.monotonic()]

        def silent() -> bool:
            if writers.count != last[0]:
                last[:] = [writers.count, time.monotonic()]
            return time.monotonic() - last[1] > 1.0

        wait_for(silent, "an end of writes")
        for server in cluster.servers:
            assert server.running
            assert read(cluster, server, "stale") == b"value"
        with cluster.client(timeout=2.0) as client:
            error = refused(client)
            assert "no space" in str(error)
            assert client.kv_get("known") is not None
            assert client.kv_get("known", consistency="consistent") is not None
        for path in ballast:
            path.unlink()
        cluster.whole()
        progress(writers)
        judge(cluster, writers)
        assert any("disk full" in server.log for server in cluster.servers)


def test_the_only_server_with_a_full_disk(tmp_path: Path) -> None:
    """Nobody can take over: it says why it refuses, and answers reads."""
    with small_disks(tmp_path, 1) as cluster:
        [server] = cluster.servers
        with cluster.client(timeout=2.0) as client:
            client.kv_put("known", b"value")
            ballast = fill(server.data)
            error = refused(client)
            assert "no space" in str(error)
            assert read(cluster, server, "default") == b"value"
            assert read(cluster, server, "consistent") == b"value"
            ballast.unlink()
            wait_for(lambda: accepted(client), "a write")
        assert server.running


def accepted(client: Client) -> bool:
    try:
        return client.kv_put("new", b"value").ok
    except CoorddError:
        return False


def refused(client: Client) -> BusyError:
    """The error of a put that was refused for want of space, after others whose outcome may be unknown."""

    def attempt() -> BusyError | None:
        try:
            client.kv_put("big", os.urandom(100_000))
        except BusyError as error:
            return error
        except OutcomeUnknownError:
            pass
        return None

    return wait_for(attempt, "a refusal")
