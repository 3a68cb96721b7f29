"""A server that can't start says why in one sentence that names the thing, ends with the right code, and touches nothing."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordd.transport.security import generate, write_key_file
from tests.integration.cluster import ServerCluster, ServerProcess

CONFIG, STORAGE, IN_USE = 2, 3, 4
NOBODY = 65534


def fingerprints(folder: Path) -> dict[str, str]:
    """Name → checksum of every file; the lock's content is of no weight, its name is."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(server: ServerProcess, code: int, *words: str, user: int | None = None) -> None:
    """It must end with this code and a sentence with these words, and leave all its files as they were."""
    before = fingerprints(server.folder)
    # Everything is imported before the user changes: the interpreter itself may be out of another user's reach.
    become = f"import os, shutil, tempfile; os.setuid({user}); " if user else ""
    program = f"from coordd.server.main import main; {become}main()"
    command = [sys.executable, "-c", program, "--config", str(server.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("coordd: ")]
    assert done.returncode == code, done.stderr
    assert len(sentences) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in sentences[0]
    assert fingerprints(server.folder) == before


@pytest.fixture
def used(tmp_path: Path) -> Iterator[ServerProcess]:
    """A stopped server that has served, of a cluster of one."""
    with ServerCluster(tmp_path / "cluster", 1) as cluster:
        cluster.bootstrap()
        with cluster.client(timeout=30) as client:
            for number in range(20):
                client.kv_put(f"key{number}", b"x" * 100)
        server = cluster.servers[0]
        assert server.stop() == 0
        yield server


def edit(server: ServerProcess, old: str, new: str) -> None:
    text = server.config.read_text()
    assert old in text
    server.config.write_text(text.replace(old, new, 1))


def test_an_unknown_setting(used: ServerProcess) -> None:
    edit(used, "cluster_name", "cluster_nane")
    refused(used, CONFIG, str(used.config), "cluster_nane", "nearest is cluster_name")


def test_a_setting_out_of_range(used: ServerProcess) -> None:
    used.config.write_text(used.config.read_text() + "\n[raft]\nheartbeat_ms = 1\n")
    refused(used, CONFIG, str(used.config), "raft.heartbeat_ms", "10 to 5000")


def test_no_key_file(used: ServerProcess) -> None:
    edit(used, str(used.folder / "key"), str(used.folder / "nokey"))
    refused(used, CONFIG, "nokey")


def test_a_key_file_that_others_may_read(used: ServerProcess) -> None:
    (used.folder / "key").chmod(0o644)
    refused(used, CONFIG, str(used.folder / "key"))


def test_another_servers_key(used: ServerProcess) -> None:
    (used.folder / "key").unlink()
    write_key_file(used.folder / "key", generate())
    refused(used, CONFIG, "key")


@pytest.mark.parametrize("which", ["raft_address", "client_address"])
def test_a_port_in_use(used: ServerProcess, which: str) -> None:
    address: str = getattr(used, which)
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        refused(used, IN_USE, address)


def test_a_folder_in_use(used: ServerProcess, tmp_path: Path) -> None:
    """Another process has it: the same folder under another configuration's ports."""
    with ServerCluster(tmp_path / "other", 1) as other:
        rival = other.servers[0]
        edit(rival, str(rival.data), str(used.data))
        used.start()
        used_ready(used)
        before = fingerprints(rival.folder)
        command = [sys.executable, "-c", "from coordd.server.main import main; main()", "--config", str(rival.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == IN_USE, done.stderr
        assert str(used.data) in done.stderr
        assert fingerprints(rival.folder) == before
        assert used.running
        assert used.stop() == 0


def used_ready(server: ServerProcess) -> None:
    from tests.integration.cluster import wait_for

    wait_for(lambda: len(re.findall("event=ready", server.log)) >= 2, "the server to be ready again")


def test_another_servers_folder(used: ServerProcess) -> None:
    used.config.write_text(used.config.read_text().replace('"s1"', '"other"'))
    refused(used, STORAGE, str(used.data), "belongs to server s1")


def test_another_clusters_folder(used: ServerProcess) -> None:
    edit(used, 'cluster_name = "test"', 'cluster_name = "elsewhere"')
    refused(used, CONFIG, str(used.data), "elsewhere")


def test_a_damaged_log(used: ServerProcess) -> None:
    path = used.data / "raft.db"
    content = bytearray(path.read_bytes())
    at = content.rindex(b"x" * 50)
    content[at] ^= 1
    path.write_bytes(content)
    refused(used, STORAGE, str(path), "damaged")


def test_a_log_that_is_gone(used: ServerProcess) -> None:
    (used.data / "raft.db").unlink()
    refused(used, STORAGE, str(used.data / "raft.db"), "missing")


def test_a_high_water_mark_that_is_gone(used: ServerProcess) -> None:
    (used.data / "high_water").write_bytes(b"\0" * 4608)
    refused(used, STORAGE, str(used.data / "high_water"))


def test_a_damaged_state(used: ServerProcess) -> None:
    [path] = used.data.glob("state-*.db")
    content = bytearray(path.read_bytes())
    at = content.rindex(b"x" * 50)
    content[at] ^= 1
    path.write_bytes(content)
    refused(used, STORAGE, str(path), "damaged")


def test_a_damaged_wal(tmp_path: Path) -> None:
    """Its header is gone, and with it entries that were acknowledged."""
    with ServerCluster(tmp_path / "cluster", 1) as cluster:
        cluster.bootstrap()
        server = cluster.servers[0]
        with cluster.client(timeout=30) as client:
            client.kv_put("key", b"value")
        server.kill()
        wal = server.data / "raft.db-wal"
        content = bytearray(wal.read_bytes())
        assert len(content) > 32
        content[:32] = b"\xa5" * 32
        wal.write_bytes(content)
        refused(server, STORAGE, str(wal), "damaged")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("what", ["data", "key"])
def test_no_permission(used: ServerProcess, what: str) -> None:
    """As a user who owns the configuration but not the data, or not the key."""
    for folder in [used.folder, *used.folder.parents]:
        if Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o055)
    used.config.chmod(0o644)
    if what == "data":
        shutil.chown(used.folder / "key", NOBODY)
    refused(used, STORAGE if what == "data" else CONFIG, str(used.folder / what), user=NOBODY)
