"""The promise under a power cut of all servers at once: what was acknowledged was synced, on a majority.

A SIGKILL leaves the kernel's cache alive and can't show a missing fsync; this can. COORDD_CUTS=20 makes it a longer run.
"""

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordd.storage.log_store import LogStore
from tests.integration.cluster import ServerCluster
from tests.integration.disk import LoopDisk
from tests.integration.logs import differences
from tests.integration.test_kills import Storm, read_all
from tests.integration.writers import violations

CUTS = int(os.environ.get("COORDD_CUTS", "5"))
NOT_SYNCED = (
    "import coordd.storage.log_store as store; opened = store.open_database; "
    "store.open_database = lambda *a: (lambda c: (c.execute('PRAGMA synchronous=NORMAL'), c)[1])(opened(*a))"
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mkfs.ext4") is None, reason="needs root and e2fsprogs"),
]


@contextmanager
def cluster_on(disk: LoopDisk, folder: Path, preload: list[str] | None = None) -> Iterator[ServerCluster]:
    """All data folders lie on that disk; keys and logs do not."""
    with ServerCluster(folder / "cluster") as cluster:
        for server in cluster.servers:
            (disk.path / server.name).mkdir(mode=0o700)
            server.data.symlink_to(disk.path / server.name)
        os.sync()
        cluster.bootstrap(preload=preload)
        yield cluster
        for server in cluster.servers:
            server.kill()


def cut(disk: LoopDisk, cluster: ServerCluster) -> None:
    """Power off, and on again; the servers are not started yet."""
    disk.cut()
    for server in cluster.servers:
        server.kill()
    disk.unmount()
    disk.mount()


def forgetful(cluster: ServerCluster, folder: Path) -> list[str]:
    """Servers whose log lacks what their high-water mark says they acknowledged."""
    found = []
    for server in cluster.servers:
        copy = folder / f"look-{server.name}"
        shutil.copytree(server.data, copy)
        store = LogStore.open(copy, server.name)
        recovered = store.recover()
        if recovered.promised > recovered.tail.last:
            found.append(f"{server.name} promised {recovered.promised}, has {recovered.tail.last}")
        store.close()
        shutil.rmtree(copy)
    return found


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * CUTS)
def test_no_power_cut_loses_an_acknowledged_write(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with LoopDisk(tmp_path) as disk, cluster_on(disk, tmp_path) as cluster:
        storm = Storm(cluster, chance)
        storm.begin()
        for _ in range(CUTS):
            time.sleep(chance.uniform(0.2, 1.0))  # the moment is random: nothing is waited for
            cut(disk, cluster)
            assert forgetful(cluster, tmp_path) == []
            cluster.start()
            storm.progress()
        books = storm.end()
        cluster.converged()
        assert not violations(books, read_all(cluster))
        print(f"{sum(len(book.acknowledged) for book in books.values())} writes acknowledged, {CUTS} cuts")
        committed = min(int(each["commit_index"]) for each in cluster.converged())
        for server in cluster.servers:
            assert server.stop() == 0
        assert not differences([server.data for server in cluster.servers], committed)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_check_sees_a_log_that_is_not_synced(tmp_path: Path) -> None:
    """synchronous=NORMAL is planted: commits stay in the kernel's cache, and a majority forgets what was acknowledged."""
    chance = random.Random(1)
    with LoopDisk(tmp_path) as disk, cluster_on(disk, tmp_path, [NOT_SYNCED]) as cluster:
        storm = Storm(cluster, chance, [NOT_SYNCED])
        storm.begin()
        found: list[str] = []
        for _ in range(5):
            time.sleep(chance.uniform(0.2, 1.0))  # the moment is random: nothing is waited for
            cut(disk, cluster)
            found = forgetful(cluster, tmp_path)
            if len(found) >= 2:
                break
            cluster.start(preload=[NOT_SYNCED])
            storm.progress()
        storm.abandon()
    print("\n".join(found))
    assert len(found) >= 2
