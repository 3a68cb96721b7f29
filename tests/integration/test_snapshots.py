"""A server that was away for long is refilled by a snapshot; and what lies on disk can be read with SQL, also meanwhile."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.cluster import FOR_NOW, ServerCluster, ServerProcess, wait_for

SMALL = """
[raft]
compact_after_entries = 50
trailing_entries = 10
snapshot_chunk_bytes = 4096

[storage]
state_checkpoint_ms = 100
"""

DROP_SOON = "import coordd.server.snapshots as s; s._KEEP_SECONDS = 0.5"
"""Snapshots that nobody needs any more do not lie around for a minute."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ServerCluster]:
    """Three servers that soon drop what they have applied."""
    with ServerCluster(tmp_path / "cluster", extra=SMALL) as cluster:
        cluster.bootstrap(preload=[DROP_SOON])
        yield cluster


def fill(cluster: ServerCluster, prefix: str, count: int) -> None:
    with cluster.client() as client:
        for number in range(count):

            def attempt(key: str = f"{prefix}{number}") -> bool:
                try:
                    return client.kv_put(key, key.encode() * 10).ok
                except FOR_NOW:
                    return False

            wait_for(attempt, "a put")


def cut_behind(cluster: ServerCluster, index: int) -> None:
    """Wait until all running servers have dropped their logs beyond this index. A cut follows writes, not time."""

    def cut() -> bool:
        figures = [cluster.info(server) for server in cluster.servers if server.running]
        if all(each is not None and int(each["base_index"]) > index for each in figures):
            return True
        fill(cluster, "more", 5)
        return False

    wait_for(cut, f"logs cut behind {index}")


def figure(cluster: ServerCluster, server: ServerProcess, name: str) -> int:
    figures = cluster.info(server)
    return int(figures[name]) if figures else 0


def read(path: Path, query: str) -> list[tuple[object, ...]]:
    """As `sqlite3 -readonly` would."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def state_file(server: ServerProcess) -> Path:
    found = list(server.data.glob("state-*.db"))
    assert len(found) == 1, found
    return found[0]


def test_a_server_that_missed_too_much_is_refilled(small: ServerCluster) -> None:
    fill(small, "early", 20)
    small.converged()
    absent = small.followers()[0]
    last = figure(small, absent, "last_index")
    absent.kill()
    fill(small, "missed", 300)
    cut_behind(small, last)
    absent.start()
    wait_for(lambda: figure(small, absent, "snapshots_installed") == 1, "a snapshot to be installed")
    fill(small, "later", 100)
    figures = small.converged()
    assert len({each["state_digest"] for each in figures}) == 1
    wait_for(lambda: not list(small.folder.glob("*/data/snapshot-*")), "what was built for the server to be dropped")
    for server in small.servers:
        assert server.stop() == 0
    for server in small.servers:
        check_files(server, int(figures[0]["applied_index"]))
    absent.start()
    small.named(next(server.name for server in small.servers if server is not absent)).start()
    small.leader()
    with small.client() as client:
        pair = client.kv_get("missed7", consistency="consistent")
        assert pair is not None
        assert pair.value == b"missed7" * 10


def check_files(server: ServerProcess, applied: int) -> None:
    """What a stopped server leaves behind is what an operator would expect, and nothing else."""
    state = state_file(server)
    names = {path.name for path in server.data.iterdir()}
    assert names <= {"raft.db", "raft.db-wal", "high_water", "identity.json", "lock", state.name, f"{state.name}-wal"}
    for path in (state, server.data / "raft.db"):
        assert read(path, "PRAGMA integrity_check") == [("ok",)]
    [(index, name, configuration)] = read(server.data / "raft.db", "SELECT idx, state_file, configuration FROM base")
    assert name == state.name
    [(first, last)] = read(server.data / "raft.db", "SELECT min(idx), max(idx) FROM entries")
    assert isinstance(index, int)
    assert isinstance(last, int)
    assert index + 1 == first
    assert last >= applied
    assert len(json.loads(str(configuration))["members"]) == 3
    [(held, cluster)] = read(state, "SELECT applied, json_extract(configuration, '$.cluster_name') FROM meta")
    assert (held, cluster) == (last, "test")
    assert read(state, "SELECT count(*) FROM kv WHERE key LIKE 'missed%' AND version = 1") == [(300,)]
    assert read(state, "SELECT CAST(value AS TEXT) FROM kv WHERE key = 'missed7'") == [("missed7" * 10,)]


def test_a_server_killed_while_it_is_refilled_begins_again(small: ServerCluster) -> None:
    fill(small, "early", 20)
    absent = small.followers()[0]
    last = figure(small, absent, "last_index")
    absent.kill()
    fill(small, "missed", 200)
    cut_behind(small, last)
    for _ in range(3):
        before = len(absent.log)
        absent.start()

        def begun(before: int = before) -> bool:
            return "snapshot coming" in absent.log[before:] or figure(small, absent, "base_index") > last

        wait_for(begun, "a snapshot on its way")
        absent.kill()
    absent.start()
    fill(small, "later", 10)
    assert len({each["state_digest"] for each in small.converged()}) == 1
    assert absent.stop() == 0
    assert read(state_file(absent), "PRAGMA integrity_check") == [("ok",)]
    assert not list(absent.data.glob("incoming-*"))


def test_a_running_server_can_be_looked_into(small: ServerCluster) -> None:
    """While one reader comes and goes, and one keeps a transaction open, the servers go on."""
    fill(small, "early", 20)
    small.converged()
    stop = threading.Event()
    counts: list[int] = []
    failures: list[Exception] = []
    server = small.leader()

    def look() -> None:
        try:
            while not stop.is_set():
                [(count,)] = read(state_file(server), "SELECT count(*) FROM kv")
                assert isinstance(count, int)
                counts.append(count)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        with closing(sqlite3.connect(f"{state_file(server).as_uri()}?mode=ro", uri=True)) as held:
            held.execute("BEGIN")
            assert held.execute("SELECT count(*) FROM kv").fetchone() == (20,)
            fill(small, "during", 200)
            assert held.execute("SELECT count(*) FROM kv").fetchone() == (20,)
        fill(small, "after", 50)
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert counts == sorted(counts)
    small.converged()
    wait_for(
        lambda: read(state_file(server), "SELECT count(*) FROM kv") == [(270,)], "the file to show what was written"
    )
