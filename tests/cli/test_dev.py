"""`coordctl dev`: up in a moment, usable by others, and gone without a trace."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dns.message
import dns.query
import pytest

from coordd.client import Client
from tests.cli.small_cluster import coordctl

GENEROUS_SECONDS = 20.0
"""It takes 1.5 s where nothing else runs; a test must bear a busy host."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev(environment: dict[str, str], short_folder: Path, number: signal.Signals) -> None:
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "coordd_cli.main", "dev", "--output", "json"],
        env={**environment, "TMPDIR": str(short_folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, "it ended early"
            text += line
        where = json.loads(text)
        with Client(agent=where["agent"]) as client:
            assert client.kv_put("hello", b"world").ok
        host, port = where["dns"].split(":")
        question = dns.message.make_query("dev.node.coord", "A")
        answer = dns.query.udp(question, host, 10, int(port))
        assert [record.to_text() for record in answer.answer[0]] == ["127.0.0.1"]
        elapsed = time.monotonic() - started
        print(f"first key and first DNS answer after {elapsed:.2f} s")
        assert elapsed < GENEROUS_SECONDS
        for option in (["--agent", where["agent"].removeprefix("ipc://")], ["--server", where["server"]]):
            assert coordctl(*option, "kv", "get", "hello", environment=environment).stdout == "world"
        process.send_signal(number)
        assert process.wait(GENEROUS_SECONDS) == 0
        assert os.listdir(short_folder) == []
    finally:
        process.kill()
        process.communicate()


def test_it_says_what_to_export(environment: dict[str, str], short_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "coordd_cli.main", "dev"],
        env={**environment, "TMPDIR": str(short_folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        export = next(line for line in process.stdout if "export" in line)
        command = f"{export.strip()}; exec {sys.executable} -m coordd_cli.main kv put a b"
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        process.terminate()
        assert process.wait(GENEROUS_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_dies_ends_it_with_its_last_words(environment: dict[str, str], short_folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "coordd_cli.main", "dev"],
        env={**environment, "TMPDIR": str(short_folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert any("Ctrl-C" in line for line in process.stdout)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        server = next(int(pid) for pid in children if b"server.toml" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(server, signal.SIGKILL)
        _, errors = process.communicate(timeout=GENEROUS_SECONDS)
        assert (process.returncode, "server ended with -9" in errors) == (1, True), errors
        assert os.listdir(short_folder) == []
    finally:
        process.kill()
        process.communicate()
