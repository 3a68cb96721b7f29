"""Bytes that turn over in the state file of a real server: the server notices, serves nothing of it, and is refilled."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordd.storage.refill import KEPT
from coordd.storage.snapshot_store import EVIDENCE
from tests.integration.cluster import FOR_NOW, ServerCluster, ServerProcess, wait_for
from tests.integration.test_snapshots import cut_behind, figure, fill, state_file

SMALL = """
[raft]
compact_after_entries = 50
trailing_entries = 10

[storage]
state_checkpoint_ms = 100
"""
KEYS = 60


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ServerCluster]:
    """Three servers that have dropped the beginning of their logs."""
    with ServerCluster(tmp_path / "cluster", extra=SMALL) as cluster:
        cluster.bootstrap()
        fill(cluster, "early", KEYS)
        cut_behind(cluster, KEYS)
        cluster.converged()
        yield cluster


def flip(path: Path, text: bytes) -> None:
    """Turn one bit over in each place at which these bytes stand in the file: some may be of no use any more."""
    with path.open("r+b", buffering=0) as file:
        content = file.read()
        at = content.find(text)
        assert at >= 0
        while at >= 0:
            file.seek(at + len(text) - 1)
            file.write(bytes([text[-1] ^ 1]))
            at = content.find(text, at + 1)


def into_file(path: Path) -> None:
    """Everything written stands in the file itself; of a stopped server."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def holds_what_was_written(cluster: ServerCluster, server: ServerProcess, *, replays: bool = False) -> None:
    """`replays`: it applies its log from the beginning, and a stale read may come before the key."""
    with cluster.client(only=server) as client:
        for number in range(KEYS):
            key = f"early{number}"

            def right(key: str = key) -> bool:
                try:
                    pair = client.kv_get(key, consistency="stale")
                except FOR_NOW:
                    return False
                if pair is None and replays:
                    return False
                assert pair is not None
                assert pair.value == key.encode() * 10
                return True

            wait_for(right, f"{key} on {server.name}")


@pytest.mark.parametrize("which", ["follower", "leader"])
def test_a_state_damaged_while_its_server_was_down(small: ServerCluster, which: str) -> None:
    victim = small.leader() if which == "leader" else small.followers()[0]
    assert victim.stop() == 0
    path = state_file(victim)
    into_file(path)
    flip(path, b"early7" * 10)
    victim.start()
    wait_for(lambda: figure(small, victim, "snapshots_installed") == 1, "another state")
    assert "state damaged" in victim.log
    assert (victim.data / EVIDENCE).exists()
    assert state_file(victim) != path
    holds_what_was_written(small, victim)
    fill(small, "later", 10)
    assert len({each["state_digest"] for each in small.converged()}) == 1
    assert victim.stop() == 0
    victim.start()
    wait_for(lambda: figure(small, victim, "applied_index") > KEYS, "the server to be back")
    assert figure(small, victim, "states_lost") == 0
    holds_what_was_written(small, victim)


def test_a_state_that_is_gone(small: ServerCluster) -> None:
    victim = small.followers()[0]
    victim.kill()
    path = state_file(victim)
    for beside in victim.data.glob(f"{path.name}*"):
        beside.unlink()
    victim.start()
    wait_for(lambda: figure(small, victim, "snapshots_installed") == 1, "another state")
    holds_what_was_written(small, victim)


def test_a_damaged_state_is_made_anew_from_a_log_that_is_whole(tmp_path: Path) -> None:
    """Nothing of the log was dropped yet, so nobody needs to be asked."""
    with ServerCluster(tmp_path / "cluster") as cluster:
        cluster.bootstrap()
        fill(cluster, "early", KEYS)
        victim = cluster.followers()[0]
        assert victim.stop() == 0
        into_file(state_file(victim))
        flip(state_file(victim), b"early7" * 10)
        victim.start()
        holds_what_was_written(cluster, victim, replays=True)
        assert figure(cluster, victim, "snapshots_installed") == 0
        assert len({each["state_digest"] for each in cluster.converged()}) == 1


def test_a_damaged_log_is_refilled_on_an_operators_order(small: ServerCluster) -> None:
    victim = small.followers()[0]
    assert victim.stop() == 0
    with closing(sqlite3.connect(victim.data / "raft.db")) as connection, connection:
        connection.execute("UPDATE entries SET chain = chain + 1 WHERE idx = (SELECT max(idx) - 3 FROM entries)")
    command = [sys.executable, "-c", "from coordd.server.main import main; main()", "--config", str(victim.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "--refill" in done.stderr
    done = subprocess.run([*command, "--refill"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert str(victim.data / KEPT) in done.stdout
    victim.start()
    wait_for(lambda: figure(small, victim, "snapshots_installed") == 1, "log and state")
    wait_for(lambda: (small.info(victim) or {}).get("refilling") is False, "all promises to be kept")
    fill(small, "later", 10)
    assert len({each["state_digest"] for each in small.converged()}) == 1
    holds_what_was_written(small, victim)


def test_nobody_could_refill_a_server_without_others(tmp_path: Path) -> None:
    with ServerCluster(tmp_path / "cluster", 1) as cluster:
        [server] = cluster.servers
        command = [sys.executable, "-c", "from coordd.server.main import main; main()", "--config", str(server.config)]
        done = subprocess.run([*command, "--refill"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "nobody could refill" in done.stderr
        assert not server.data.exists()


RUNNING = SMALL + "scrub_interval_s = 1\n"


@pytest.mark.parametrize("which", ["follower", "leader"])
@pytest.mark.parametrize("where", ["", "-wal"])
def test_a_state_damaged_while_its_server_runs(tmp_path: Path, which: str, where: str) -> None:
    """Of the file, or of its write-ahead log: it is read right throughout, and the server is refilled by itself."""
    with ServerCluster(tmp_path / "cluster", extra=RUNNING) as cluster:
        cluster.bootstrap()
        fill(cluster, "early", KEYS)
        cut_behind(cluster, KEYS)
        victim = cluster.leader() if which == "leader" else cluster.followers()[0]
        state = state_file(victim)
        beaten, text = (Path(f"{state}-wal"), b"fresh0" * 10) if where else (state, b"early7" * 10)

        def found() -> bool:
            holds_what_was_written(cluster, victim)
            return (victim.data / EVIDENCE).exists()

        def damaged() -> bool:
            """A checkpoint may just have written right bytes over the wrong ones: then once more."""
            if where:
                fill(cluster, "fresh", 1)
            if text in beaten.read_bytes():
                flip(beaten, text)
            with contextlib.suppress(AssertionError):
                wait_for(found, "the damage to be found", patience=4.0)
            return found()

        wait_for(damaged, "damage that stays")
        wait_for(lambda: figure(cluster, victim, "snapshots_installed") > 0, "another state")
        assert "state lost" in victim.log
        holds_what_was_written(cluster, victim)
        fill(cluster, "later", 10)
        assert len({each["state_digest"] for each in cluster.converged()}) == 1
        assert all(server.running for server in cluster.servers)


def test_a_lone_server_whose_state_was_damaged_ends(tmp_path: Path) -> None:
    with ServerCluster(
        tmp_path / "cluster", 1, extra="[storage]\nscrub_interval_s = 1\nstate_checkpoint_ms = 100"
    ) as cluster:
        cluster.bootstrap()
        fill(cluster, "early", KEYS)
        [server] = cluster.servers
        path = state_file(server)
        wait_for(lambda: b"early59" * 10 in path.read_bytes(), "a checkpoint")
        flip(path, b"early7" * 10)
        wait_for(lambda: not server.running, "the server to end")
        assert server.process is not None
        assert server.process.returncode == 3
        assert "restore a backup" in server.log


def test_scrubbing_and_comparing_find_nothing_where_nothing_is_wrong(tmp_path: Path) -> None:
    with ServerCluster(tmp_path / "cluster", extra=RUNNING + "compare_every_entries = 16\n") as cluster:
        cluster.bootstrap()
        fill(cluster, "early", KEYS)
        for server in cluster.servers:
            wait_for(lambda server=server: figure(cluster, server, "scrubs") > 1, "two scrubs")  # type: ignore[misc]
            figures = cluster.info(server)
            assert figures is not None
            assert figures["digests_compared"] > 2
            assert (figures["digests_differed"], figures["states_lost"]) == (0, 0)


FAULTY_MEMORY = (
    "import coordd.state.machine as machine; apply = machine.Machine.apply; left = [True]; "
    "machine.Machine.apply = lambda self, first, entries: ("
    "apply(self, first, entries), "
    "left and self.applied > 100 and (left.clear(), setattr(self._rows.kv, 'digest', self._rows.kv.digest ^ 1)))[0]"
)
"""For a server's process: a bit of what it keeps in memory of its rows turns over, once."""


def test_a_state_that_most_servers_contradict_is_replaced(tmp_path: Path) -> None:
    with ServerCluster(tmp_path / "cluster", extra=SMALL + "compare_every_entries = 16\n") as cluster:
        cluster.bootstrap()
        victim = cluster.followers()[0]
        victim.stop()
        victim.start([FAULTY_MEMORY])
        fill(cluster, "early", KEYS)

        def replaced() -> bool:
            fill(cluster, "more", 20)
            return "states differ" in victim.log and figure(cluster, victim, "snapshots_installed") > 0

        wait_for(replaced, "another state")
        assert "state lost" in victim.log
        holds_what_was_written(cluster, victim)
        assert len({each["state_digest"] for each in cluster.converged()}) == 1
        assert all(figure(cluster, server, "states_lost") == 0 for server in cluster.servers if server is not victim)
