"""Settings of a server: the example file is complete and true, and settings that contradict each other are refused."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coordd import server
from coordd.config import build, describe, load
from coordd.errors import ConfigError
from coordd.server.settings import RaftSettings, ServerSettings
from tests.config.examples import CONFIGS, check_complete, check_strict, tables

EXAMPLE = CONFIGS / "server.toml"


def example() -> dict[str, Any]:
    return tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))


def test_the_example_loads() -> None:
    settings = load(ServerSettings, EXAMPLE)
    assert settings.raft == RaftSettings()
    assert (settings.raft.heartbeat_ms, settings.raft.election_ms) == (60, 300)
    assert settings.servers[0].client_address == settings.client_advertised


def test_the_example_shows_every_setting() -> None:
    check_complete(EXAMPLE, ServerSettings)


@pytest.mark.parametrize("table", tables(ServerSettings))
def test_unknown_keys_are_refused_in_every_table(table: str) -> None:
    check_strict(example(), ServerSettings, table)


def test_every_setting_is_used() -> None:
    """One that nothing reads would be a promise that nobody keeps."""
    package = Path(server.__file__).parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in package.glob("*.py"))
    leaves = {row.key.rpartition(".")[2] for row in describe(ServerSettings)}
    assert [leaf for leaf in sorted(leaves) if not re.search(rf"\.{leaf}\b", source)] == []


def put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    inner: Any = values
    for name in parents:
        inner = inner[int(name)] if name.isdigit() else inner.setdefault(name, {})
    inner[leaf] = value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"raft.election_ms": 100}, "raft.election_ms = 100: must be at least 3 heartbeats"),
        ({"raft.max_inflight_bytes": 2048}, "raft.max_inflight_bytes = 2048: must be at least max_append_bytes"),
        ({"clients.beat_timeout_ms": 1500}, "clients.beat_timeout_ms = 1500: must be at least two beats"),
        ({"raft_address": "0.0.0.0:8310"}, "raft_advertise is missing: 0.0.0.0:8310 means every address"),
        ({"client_advertise": "[::]:8311"}, "client_advertise is missing: [::]:8311 means every address"),
        ({"client_address": "10.0.0.1:8310"}, "client_address = '10.0.0.1:8310': must differ from raft_address"),
        ({"name": "beta"}, "servers has no entry for this server, whose name is 'beta'; it has alpha"),
        ({"servers.0.raft_address": "10.0.0.9:1"}, "servers[0].raft_address = '10.0.0.9:1': must be what this server"),
        ({"servers": []}, "servers is missing: list the servers"),
        ({"join": {"address": "10.0.0.2:8310", "public_key": "x" * 40}}, "join can't stand beside [[servers]]"),
        (
            {"servers": [], "bootstrap": True, "join": {"address": "10.0.0.2:8310", "public_key": "x" * 40}},
            "bootstrap = True: must be false beside [join]",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], sentence: str) -> None:
    values = example()
    for dotted, value in changes.items():
        put(values, dotted, value)
    with pytest.raises(ConfigError) as caught:
        build(ServerSettings, values, "server.toml")
    assert str(caught.value).startswith(f"server.toml: {sentence}")


@pytest.mark.parametrize("field", ["name", "raft_address", "client_address", "public_key"])
def test_servers_differ_from_each_other(field: str) -> None:
    values = example()
    other = {"name": "b", "raft_address": "10.0.0.2:1", "client_address": "10.0.0.2:2", "public_key": "y" * 40}
    values["servers"].append(other | {field: values["servers"][0][field]})
    with pytest.raises(ConfigError, match=rf"servers\[1\]\.{field} = .*: must differ from that of servers\[0\]"):
        build(ServerSettings, values, "server.toml")


def test_a_member_moves_to_one_place() -> None:
    values = example()
    values["moved"] = [
        {"name": "beta", "raft_address": f"10.0.1.{n}:1", "client_address": f"10.0.1.{n}:2"} for n in (1, 2)
    ]
    with pytest.raises(ConfigError, match=r"moved\[1\]\.name = 'beta': must differ from that of moved\[0\]"):
        build(ServerSettings, values, "server.toml")


def test_addresses_of_all_interfaces_with_another_to_advertise() -> None:
    values = example()
    values["raft_address"], values["raft_advertise"] = "0.0.0.0:8310", "10.0.0.1:8310"
    assert build(ServerSettings, values, "server.toml").raft_advertised == "10.0.0.1:8310"
