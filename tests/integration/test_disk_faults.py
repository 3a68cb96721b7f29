"""Real servers on disks that fail: what can't be made durable ends the process, a full disk is waited out, and nothing
acknowledged is lost meanwhile.

One cluster serves all tests of a kind. Each has writers of its own, whose books must agree in the end, and leaves the cluster
whole. The faults are those of `shim.c`.
"""

import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import shim
from tests.integration.cluster import ServerCluster, ServerProcess, wait_for
from tests.integration.shim import Shim
from tests.integration.writers import Writers, violations

SETTINGS = """
[storage]
wal_limit_bytes = 1048576
state_checkpoint_ms = 200
"""
"""So that databases are written to every moment, not only their write-ahead logs."""

STORAGE = 3

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(shim.missing()), reason=shim.missing() or "never"),
]


class Faulty:
    """A cluster whose disks are at our mercy."""

    def __init__(self, cluster: ServerCluster, library: Path) -> None:
        self.cluster = cluster
        self._tests = 0
        self._shims: dict[str, Shim] = {}
        for server in cluster.servers:
            self._shims[server.name] = Shim(library, server.folder / "rule")
            server.environment = self._shims[server.name].environment

    def shim(self, server: ServerProcess) -> Shim:
        return self._shims[server.name]

    def server(self, role: str) -> ServerProcess:
        """The leader, or a follower."""
        leader = self.cluster.whole()
        return leader if role == "leader" else next(each for each in self.cluster.servers if each is not leader)

    @contextmanager
    def load(self) -> Iterator[Writers]:
        """Writers at work; behind the block everything is mended, and their books must agree with what is there."""
        self._tests += 1
        prefix = f"test{self._tests}/"
        writers = Writers([(s.client_address, s.keys.public) for s in self.cluster.servers], prefix=prefix)
        writers.start()
        try:
            progress(writers)
            yield writers
            self.mend()
            progress(writers)
        finally:
            writers.stop()
        books = writers.finish()
        figures = self.cluster.converged()
        assert len({each["state_digest"] for each in figures}) == 1
        with self.cluster.client(timeout=30.0) as client:
            assert not violations(books, client.kv_list(prefix, consistency="consistent"))

    def mend(self) -> None:
        for each in self._shims.values():
            each.clear()
        for server in self.cluster.servers:
            if not server.running:
                server.start()
        self.cluster.whole()


def progress(writers: Writers, count: int = 50) -> None:
    """The cluster takes writes."""
    before = writers.count
    wait_for(lambda: writers.count >= before + count, "acknowledged writes")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def shared(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with ServerCluster(tmp_path_factory.mktemp("faulty") / "cluster", extra=SETTINGS) as cluster:
        faulty = Faulty(cluster, library)
        cluster.bootstrap()
        yield faulty


@pytest.fixture
def faulty(shared: Faulty) -> Faulty:
    shared.mend()
    return shared


def ended(server: ServerProcess, since: int, *words: str) -> None:
    """The process has ended by itself, with the storage's exit code and a line that says why."""
    assert server.process is not None
    assert server.process.wait(30) == STORAGE
    told = server.log[since:]
    assert "Traceback" not in told
    [line] = [line for line in told.splitlines() if re.search(r"\bstopped\b", line)]
    for word in words:
        assert word in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "operation", "pattern", "action", "skip"),
    [
        ("leader", "sync", "raft.db-wal", "EIO", 3),
        ("follower", "sync", "raft.db", "EIO", 0),
        ("leader", "sync", "high_water", "EIO", 3),
        ("follower", "sync", "state-*.db", "EIO", 0),
        ("leader", "sync", "state-*.db-wal", "EIO", 0),
        ("follower", "write", "raft.db-wal", "EIO", 5),
        ("leader", "write", "raft.db-wal", "tear", 5),
        ("follower", "write", "raft.db", "tear", 2),
        ("follower", "write", "high_water", "EIO", 3),
        ("leader", "write", "high_water", "tear", 3),
        ("follower", "write", "state-*.db-wal", "EIO", 5),
        ("leader", "write", "state-*.db-wal", "tear", 5),
        ("leader", "write", "state-*.db", "tear", 2),
    ],
)
def test_what_cannot_be_stored_ends_the_process(
    faulty: Faulty, role: str, operation: str, pattern: str, action: str, skip: int
) -> None:
    with faulty.load() as writers:
        victim = faulty.server(role)
        since = len(victim.log)
        faulty.shim(victim).rule(operation, pattern, action, skip)
        ended(victim, since, pattern.removesuffix("-wal").partition("-")[0])
        progress(writers)


@pytest.mark.slow
def test_what_cannot_be_stored_at_the_end_is_told_too(faulty: Faulty) -> None:
    with faulty.load():
        victim = faulty.server("follower")
        since = len(victim.log)
        faulty.shim(victim).rule("sync", "raft.db", "EIO")
        victim.signal(signal.SIGTERM)
        ended(victim, since, "raft.db")


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["raft.db-wal", "raft.db", "high_water", "state-*.db-wal", "state-*.db"])
def test_a_write_torn_by_a_kill_loses_nothing(faulty: Faulty, pattern: str) -> None:
    """Half of some write is there, and the process is gone; three times, at moments of chance."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with faulty.load() as writers:
        for _ in range(3):
            victim = faulty.server(chance.choice(["leader", "follower"]))
            faulty.shim(victim).rule("write", pattern, "die", chance.randrange(60))
            assert victim.process is not None
            assert victim.process.wait(30) == -signal.SIGKILL
            faulty.shim(victim).clear()
            victim.start()
            progress(writers)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["raft.db-wal", "high_water"])
def test_a_leader_whose_disk_hangs_is_replaced(faulty: Faulty, pattern: str) -> None:
    """Its process lives and its network works; only its fsync does not return. Afterwards it goes on as a follower."""
    with faulty.load() as writers:
        victim = faulty.server("leader")
        faulty.shim(victim).rule("sync", pattern, "stall")
        began = time.monotonic()
        wait_for(lambda: faulty.shim(victim).hits > 0, "a sync that hangs")
        progress(writers)
        print(f"written again {time.monotonic() - began:.2f} s after the disk hung")
        assert victim.running
        assert faulty.cluster.leader() is not victim
        faulty.shim(victim).clear()
        faulty.cluster.whole()
        assert victim.running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "pattern"),
    [
        ("read", "raft.db"),
        ("read", "raft.db-wal"),
        ("read", "high_water"),
        ("read", "state-*.db"),
        ("read", "identity.json"),
    ],
)
def test_a_file_that_cannot_be_read_is_no_start(faulty: Faulty, operation: str, pattern: str) -> None:
    with faulty.load():
        victim = faulty.server("follower")
        victim.kill()
        since = len(victim.log)
        faulty.shim(victim).rule(operation, pattern, "EIO")
        victim.start()
        assert victim.process is not None
        assert victim.process.wait(30) == STORAGE, victim.log[since:]
        told = victim.log[since:]
        [sentence] = [line for line in told.splitlines() if line.startswith("coordd: ")]
        assert pattern.removesuffix("-wal").partition("*")[0] in sentence
        assert "Traceback" not in told
