"""The agent's token and its heartbeats: what is said about them, and how often."""

from pathlib import Path

import pytest

from coordd.errors import ConfigError, DeniedError, NoLeaderError, NotFoundError
from coordd.messages.client import AgentBeat
from coordd.messages.query import TokenRules
from coordd_agent.beats import Beats
from coordd_agent.rights import Rights, read_token
from tests.agent.fakes import FakeCluster, eventually, running

OFF = TokenRules("", False, False, ())
ANONYMOUS = TokenRules("", True, False, ())
VALID = TokenRules("accessor", True, False, ())


@pytest.mark.asyncio
async def test_each_state_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    cluster = FakeCluster()
    cluster.rules = OFF
    answers: list[str] = []
    rights = Rights(cluster, lambda: answers.append(rights.state))
    async with running() as group:
        group.create_task(rights.run())
        await eventually(lambda: rights.acl_enabled is False)
        assert not answers
        for rules, state in ((OFF, "anonymous"), (ANONYMOUS, "anonymous"), (VALID, "valid"), (VALID, "valid")):
            cluster.rules = rules
            before = len(answers)
            rights.ask_again()
            await eventually(lambda before=before: len(answers) > before)  # type: ignore[misc]
            assert answers[-1] == state
        assert rights.trusted()
        cluster.fault = lambda thing: DeniedError("no such token")
        rights.ask_again()
        await eventually(lambda: rights.state == "denied")
        assert not rights.trusted()
    said = [record.message.split(":")[0] for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["everything is allowed", "the agent has no token", "the agent's token is not valid"]


@pytest.mark.asyncio
async def test_without_servers_nothing_is_concluded() -> None:
    cluster = FakeCluster()
    cluster.down()
    cluster.rules = VALID
    rights = Rights(cluster, lambda: None)
    async with running() as group:
        group.create_task(rights.run())
        rights.ask_again()
        assert rights.state == "unknown"
        cluster.up()
        await eventually(lambda: rights.state == "valid")


def test_token_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert read_token(None) == ""
    file.write_text("  secret\n")
    assert read_token(file) == "secret"
    file.write_text("two tokens")
    with pytest.raises(ConfigError, match="more than one token"):
        read_token(file)
    with pytest.raises(ConfigError, match="can't be read: no such file"):
        read_token(tmp_path / "none")


def test_a_token_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.write_text("secret")
    file.chmod(0o600)
    assert read_token(file) == "secret"
    assert not caplog.messages
    file.chmod(0o640)
    assert read_token(file) == "secret"
    (message,) = caplog.messages
    assert "mode 0640" in message
    assert "secret" not in message


@pytest.mark.asyncio
async def test_heartbeats(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    cluster = FakeCluster()
    told: list[str] = []
    beats = Beats(
        "h1",
        cluster,
        on_taken=lambda at: None,
        on_unknown=lambda: told.append("unknown"),
        on_denied=lambda: told.append("denied"),
    )
    async with running() as group:
        group.create_task(beats.run())
        # The server tells an interval of 100 ms.
        await eventually(lambda: cluster.asked.count(AgentBeat("h1")) >= 4, within_s=5)
        assert beats.taken_at is not None
        cluster.fault = lambda thing: NotFoundError("no such node")
        await eventually(lambda: told.count("unknown") >= 2)
        cluster.fault = lambda thing: DeniedError("node:write is needed")
        await eventually(lambda: "denied" in told)
        cluster.fault = lambda thing: NoLeaderError("none")
        cluster.up()
        await eventually(lambda: any("taken again" in record.message for record in caplog.records))
    assert told.count("denied") == 1
    assert sum("not taken" in record.message for record in caplog.records) == 1
