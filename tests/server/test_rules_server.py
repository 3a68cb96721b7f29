"""Rules of the list (docs/rules.md) that live in the server's room and have no other test."""

import time

import pytest

from coordd.config import load
from coordd.messages.client import Read, ReadResult
from coordd.messages.command import KvPut
from coordd.messages.query import KvGet
from coordd.server import daemon
from coordd.server.settings import ServerSettings
from tests.config.test_server_settings import EXAMPLE
from tests.server.conftest import MakeDesk


def test_rule_59_the_lease_leaves_a_tenth_of_the_election_timeout_to_clocks_that_drift() -> None:
    core = daemon._core_settings(load(ServerSettings, EXAMPLE))
    assert 0 < core.lease_duration < 0.9 * core.election_timeout


def test_rule_60_the_clock_counts_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {time.CLOCK_BOOTTIME: 5000.0, time.CLOCK_MONOTONIC: 1.0}  # a host that slept for long
    with monkeypatch.context() as patched:
        patched.setattr(time, "clock_gettime", clocks.__getitem__)
        assert daemon.clock() == 5000.0


@pytest.mark.parametrize("consistency", ["default", "consistent", "stale"])
def test_rule_64_reads_leave_the_log_alone(make_desk: MakeDesk, consistency: str) -> None:
    desk = make_desk()
    desk.write(KvPut("a", b"1"))
    log = desk.world.node.raft.replica.log
    before = log.last
    for _ in range(20):
        if consistency == "default":
            desk.world.node.raft.replica.leading.lease_until = 0.0  # type: ignore[union-attr]
        assert isinstance(desk.answer(Read(KvGet("a"), consistency)), ReadResult)  # type: ignore[arg-type]
    assert log.last == before
