"""Commands against a small cluster: what they send, print, and end with."""

import json
import os
import re
import stat
from pathlib import Path

import pytest

from coordd.acl.rules import parse_rules
from coordd.messages.client import (
    AddServerRequest,
    Error,
    InfoRequest,
    LogRecord,
    LogRequest,
    LogTail,
    MoveServerRequest,
    Ok,
    Read,
    ReadResult,
    TransferRequest,
    Write,
)
from coordd.messages.command import CheckDefinition, KvPut, Register, ServiceDefinition
from coordd.messages.local import (
    CheckSpec,
    DeregisterService,
    ListLocalChecks,
    ListLocalServices,
    RegisterService,
    UpdateTtlCheck,
)
from coordd.messages.query import Catalog, CatalogEntry, CheckInfo, Checks, NodeInfo, ServiceInfo
from tests.cli.small_cluster import SmallCluster, coordctl

Environment = dict[str, str]


def test_keys_and_values(server: SmallCluster, environment: Environment) -> None:
    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        done = coordctl(*server.option, "kv", *arguments, environment=environment, stdin=stdin)
        return done.returncode, done.stdout

    assert run("get", "a/x") == (3, "")
    assert run("put", "a/x", "first")[0] == 0
    assert run("get", "a/x") == (0, "first")
    assert run("put", "a/y", "-", stdin=b"\xff\n\0")[0] == 0
    assert run("get", "a/y") == (0, "\udcff\n\0")
    status, text = run("get", "a/x", "--output", "json")
    pair = json.loads(text)
    assert (status, pair["key"], pair["value"], pair["version"]) == (0, "a/x", "first", 1)
    assert json.loads(run("get", "a/y", "--output", "json")[1])["value_base64"] == "/woA"
    assert run("put", "a/x", "no", "--cas", "0")[0] == 1
    assert run("put", "a/x", "second", "--cas", str(pair["modify_index"]))[0] == 0
    assert run("list", "a/", "--keys")[1].split() == ["KEY", "a/x", "a/y"]
    assert [row["value"] for row in json.loads(run("list", "--output", "json")[1])] == ["second", None]
    assert "\\xff\\n\\x00" in run("list")[1]
    assert run("put", "a/long", "v" * 1000)[0] == 0
    assert run("list", "a/long")[1].splitlines()[1].split()[1] == "v" * 119 + "…"
    assert json.loads(run("list", "a/long", "--output", "json")[1])[0]["value"] == "v" * 1000
    assert run("delete", "a/x")[0] == 0
    assert run("delete", "a/", "--recurse")[0] == 0
    assert run("list", "--output", "json")[1].strip() == "[]"


def test_a_key_that_is_no_text_is_a_usage_error(server: SmallCluster, environment: Environment) -> None:
    done = coordctl(*server.option, "kv", "put", "\udcff", "v", environment=environment)
    assert (done.returncode, done.stderr) == (2, "coordctl: an argument is not valid UTF-8\n")


def test_a_value_that_is_too_large_is_told_of_before_anything_is_sent(
    server: SmallCluster, environment: Environment
) -> None:
    done = coordctl(*server.option, "kv", "put", "k", "-", environment=environment, stdin=bytes(512 * 1024 + 1))
    assert (done.returncode, "at most 524288 bytes, not 524289" in done.stderr) == (1, True)
    assert not server.seen


def test_a_fence_that_is_not_held_is_refused(server: SmallCluster, environment: Environment) -> None:
    done = coordctl(*server.option, "kv", "put", "a", "b", "--fence", "no:such:7", environment=environment)
    assert done.returncode == 1
    assert "no:such" in done.stderr
    wrong = coordctl(*server.option, "kv", "put", "a", "b", "--fence", "lock", environment=environment)
    assert wrong.returncode == 2
    assert "NAME:TOKEN" in wrong.stderr


def test_options_stand_before_or_behind_the_command(server: SmallCluster, environment: Environment) -> None:
    before = coordctl("--output", "json", *server.option, "kv", "list", environment=environment)
    behind = coordctl("--output", "table", "kv", "list", "--output", "json", *server.option, environment=environment)
    assert (before.stdout, behind.stdout) == ("[]\n", "[]\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("not-found", 3),
        ("denied", 4),
        ("invalid", 1),
        ("conflict", 1),
        ("lock-lost", 6),
    ],
)
def test_exit_codes(server: SmallCluster, environment: Environment, code: str, status: int) -> None:
    server.errors[Read] = Error(code, "because")
    done = coordctl(*server.option, "--output", "json", "kv", "get", "a", environment=environment)
    assert done.returncode == status
    error = json.loads(done.stderr)
    assert (error["error"], error["exit"]) == (code, status)
    assert error["text"].startswith("because")


def test_no_leader_and_no_answer(server: SmallCluster, environment: Environment) -> None:
    server.errors[Write] = Error("no-leader", "the cluster has no leader")
    done = coordctl(*server.option, "--timeout", "0.5", "kv", "put", "a", "b", environment=environment)
    assert (done.returncode, "no server has led" in done.stderr) == (5, True), done.stderr
    server.errors = {KvPut: Error("outcome-unknown", "the leader has changed")}
    unknown = coordctl(*server.option, "--timeout", "0.5", "kv", "put", "a", "b", environment=environment)
    assert unknown.returncode == 7, unknown.stderr
    server.hold_replies = True
    silent = coordctl(*server.option, "--timeout", "0.5", "kv", "get", "a", environment=environment)
    assert silent.returncode == 124, silent.stderr


def test_without_an_agent_the_error_comes_at_once_and_names_the_place(environment: Environment, tmp_path: Path) -> None:
    default = coordctl("kv", "list", environment=environment)
    assert default.returncode == 1
    assert re.search(r"no agent can be reached at \S+/agent\.sock \(default\): No such file", default.stderr)
    named = coordctl("kv", "list", environment={**environment, "COORD_AGENT": str(tmp_path / "a.sock")})
    assert f"{tmp_path}/a.sock (COORD_AGENT)" in named.stderr


def test_a_denied_command_names_the_source_of_its_token(server: SmallCluster, environment: Environment) -> None:
    server.errors[Read] = Error("denied", "permission denied")
    done = coordctl(*server.option, "kv", "get", "a", environment={**environment, "COORD_TOKEN": "s3cret"})
    assert done.stderr == "coordctl: permission denied (token: COORD_TOKEN)\n"
    assert server.tokens[-1] == "s3cret"


def test_a_wrong_setting_is_a_usage_error(environment: Environment) -> None:
    done = coordctl("kv", "list", environment={**environment, "COORD_OUTPUT": "xml"})
    assert (done.returncode, done.stderr) == (
        2,
        "coordctl: COORD_OUTPUT: output = 'xml': must be one of table, json\n",
    )


def test_services_go_to_the_agent(agent: SmallCluster, server: SmallCluster, environment: Environment) -> None:
    agent.replies = {RegisterService: Ok(7), DeregisterService: Ok(0, "no server can be reached")}
    register = ["services", "register", "web", "--port", "80", "--tag", "v1", "--meta", "a=b", "--http", "http://x/"]
    done = coordctl(*agent.option, *register, "--interval", "500ms", environment=environment)
    assert (done.returncode, done.stdout) == (0, "service web is registered\n")
    assert agent.seen[-1] == RegisterService(
        ServiceDefinition("web", "web", ("v1",), "", 80, {"a": "b"}), (CheckSpec(http="http://x/", interval_ms=500),)
    )
    gone = coordctl(*agent.option, "services", "deregister", "web", environment=environment)
    assert (gone.returncode, gone.stderr) == (0, "the catalog does not know yet: no server can be reached\n")
    direct = coordctl(*server.option, *register, environment=environment)
    assert direct.returncode == 2
    assert "option --server names servers; name the agent with --agent" in direct.stderr
    both = coordctl(*agent.option, *register, "--ttl", "10s", environment=environment)
    assert (both.returncode, "give one of --http, --tcp and --ttl" in both.stderr) == (2, True)


def test_what_the_agent_has_itself(agent: SmallCluster, environment: Environment) -> None:
    web = ServiceDefinition("web1", "web", ("v1",), port=80)
    check = CheckInfo("h1", CheckDefinition("c1", "well", "passing", "web1"), "web", (), 0, 0)
    node = NodeInfo("h1", "10.0.0.1", "", {}, {}, 0, 0)
    agent.replies = {
        ListLocalServices: ReadResult(1, Catalog((CatalogEntry(node, (ServiceInfo("h1", web, 0, 0),), (check,)),))),
        ListLocalChecks: ReadResult(1, Checks((check,))),
    }
    services = coordctl(*agent.option, "services", "list", "--local", environment=environment)
    assert services.stdout.splitlines()[1].split() == ["web", "web1", "80", "v1"]
    checks = coordctl(*agent.option, "checks", "list", "--local", environment=environment)
    assert checks.stdout.splitlines()[1].split() == ["h1", "c1", "web", "passing"]


def test_members_are_listed_without_a_leader(server: SmallCluster, environment: Environment) -> None:
    server.errors[Read] = Error("no-leader", "the cluster has no leader")
    done = coordctl(*server.option, "--timeout", "0.5", "members", environment=environment)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split() == ["s1", "server", server.address, "alive", "leader"]
    assert "no agents are listed" in done.stderr


def test_a_server_that_tells_us_nothing_of_itself_is_alive(server: SmallCluster, environment: Environment) -> None:
    server.errors[InfoRequest] = Error("denied", "operator:read is needed")
    done = coordctl(*server.option, "members", environment=environment)
    assert done.stdout.splitlines()[1].split() == ["s1", "server", server.address, "alive", "leader"]


def test_reports_for_ttl_checks(agent: SmallCluster, environment: Environment) -> None:
    agent.replies = {UpdateTtlCheck: Ok(7)}
    for word, status in (("pass", "passing"), ("warn", "warning"), ("fail", "critical")):
        done = coordctl(*agent.option, "checks", word, "service:web", "--note", "so so", environment=environment)
        assert done.returncode == 0
        assert agent.seen[-1] == UpdateTtlCheck("service:web", status, "so so")  # type: ignore[arg-type]


def seed(server: SmallCluster) -> None:
    """A catalog with a node, a service that warns, and output that would play with the terminal."""
    web = ServiceDefinition("web1", "web", ("v1",), port=80)
    checks = (
        CheckDefinition("serfHealth", "Agent alive", "passing"),
        CheckDefinition("c1", "is it well", "warning", "web1", "slow\x1b[31m\n"),
    )
    server.seed(Register("h1", "10.0.0.1", services=(web,), checks=checks))


def test_the_catalog(server: SmallCluster, environment: Environment) -> None:
    seed(server)

    def run(*arguments: str) -> str:
        done = coordctl(*server.option, *arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def cells(*arguments: str) -> list[list[str]]:
        return [line.split() for line in run(*arguments).splitlines()]

    assert cells("services", "list") == [["SERVICE", "TAGS"], ["web", "v1"]]
    assert cells("services", "list", "web")[1] == ["web", "web1", "h1", "10.0.0.1", "80", "warning", "v1"]
    checks = json.loads(run("services", "list", "web", "--output", "json"))[0]["checks"]
    assert {one["check"]: one["output"] for one in checks}["c1"] == "slow\x1b[31m\n"
    assert cells("checks", "list", "--service", "web")[1] == ["h1", "c1", "web", "warning", r"slow\x1b[31m\n"]
    assert cells("checks", "list", "--status", "passing")[1][:2] == ["h1", "serfHealth"]
    assert cells("nodes")[1] == ["h1", "10.0.0.1", "passing"]
    assert cells("members") == [
        ["NAME", "KIND", "ADDRESS", "STATE", "ROLE"],
        ["s1", "server", server.address, "alive", "leader"],
        ["h1", "agent", "10.0.0.1", "alive"],
    ]
    assert cells("info", "term") == [["1"]]
    assert ["role", "leader"] in cells("info")


def test_the_operators_commands(server: SmallCluster, environment: Environment) -> None:
    server.replies[LogRequest] = LogTail((LogRecord(3, 1, "KvPut", "key a"),))
    server.replies[AddServerRequest] = Ok(4)

    def run(*arguments: str) -> str:
        done = coordctl(*server.option, "operator", "raft", *arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "founded" in run("bootstrap")
    peers = json.loads(run("list-peers", "--output", "json"))
    assert [(one["name"], one["role"], one["match"]) for one in peers] == [("s1", "leader", 9)]
    assert run("log").splitlines()[1].split() == ["3", "1", "KvPut", "key", "a"]
    server.replies[TransferRequest] = Ok(0, "s2#0 leads now")
    assert run("transfer-leader") == "s2 leads\n"
    assert json.loads(run("transfer-leader", "--output", "json")) == {"leader": "s2"}
    run("add-peer", "s4", "--raft", "1.1.1.1:1", "--client", "1.1.1.1:2", "--public-key", "k" * 40)
    assert server.seen[-1] == AddServerRequest("s4", "1.1.1.1:1", "1.1.1.1:2", "k" * 40)
    server.replies[MoveServerRequest] = Ok(5)
    assert run("move-peer", "s4", "--raft", "1.1.1.2:1", "--force") == "the cluster knows the addresses of s4\n"
    assert MoveServerRequest("s4", "1.1.1.2:1", "", force=True) in server.seen


def test_access_control(server: SmallCluster, environment: Environment, tmp_path: Path) -> None:
    def run(*arguments: str, status: int = 0) -> str:
        done = coordctl(*server.option, *arguments, environment=environment)
        assert done.returncode == status, done.stderr
        return done.stdout

    root, narrow = tmp_path / "root", tmp_path / "narrow"
    shown = json.loads(run("acl", "bootstrap", "--out", str(root), "--output", "json"))
    assert stat.S_IMODE(root.stat().st_mode) == 0o600
    assert "secret" not in shown
    run("acl", "bootstrap", status=4)
    run("kv", "put", "a", "b", status=4)
    as_root = ["--token-file", str(root)]
    run(*as_root, "acl", "policy", "put", "p", '{"key": {"a": "write"}}')
    run(*as_root, "acl", "token", "create", "--policy", "p", "--out", str(narrow))
    run(*as_root, "acl", "token", "create", "--policy", "p", "--out", str(narrow), status=2)
    run("--token-file", str(narrow), "kv", "put", "a", "b")
    run("--token-file", str(narrow), "kv", "put", "b", "b", status=4)
    tokens = json.loads(run(*as_root, "acl", "token", "list", "--output", "json"))
    accessor = next(one["accessor"] for one in tokens if one["policies"] == ["p"])
    run(*as_root, "acl", "token", "update", "anonymous", "--policy", "p")
    run("kv", "put", "a", "anybody")
    run(*as_root, "acl", "token", "update", "anonymous")
    run("kv", "put", "a", "anybody", status=4)
    run(*as_root, "acl", "token", "delete", accessor)
    run(*as_root, "acl", "token", "delete", accessor, status=3)
    run(*as_root, "acl", "policy", "delete", "no-such", status=3)
    run(*as_root, "acl", "policy", "delete", "p")
    run("--token-file", str(narrow), "kv", "put", "a", "b", status=4)
    secret = root.read_text().strip()
    assert secret not in json.dumps(tokens)


def test_wrong_rules_are_refused_before_anything_is_sent(server: SmallCluster, environment: Environment) -> None:
    done = coordctl(*server.option, "acl", "policy", "put", "p", '{"kye": {}}', environment=environment)
    assert (done.returncode, "kye" in done.stderr) == (1, True)
    assert not [body for body in server.seen if isinstance(body, Write)]
    parse_rules('{"key_prefix": {"app/": "write"}, "service": {"web": "read"}}')  # as the help says


def test_key_pairs(environment: Environment, tmp_path: Path) -> None:
    out = tmp_path / "server.key"
    done = coordctl("keys", "generate", "--out", str(out), environment=environment)
    public = done.stdout.strip()
    assert len(public) == 40
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert public in out.read_text()
    again = coordctl("keys", "generate", "--out", str(out), environment=environment)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_sessions(server: SmallCluster, environment: Environment) -> None:
    empty = coordctl(*server.option, "session", "list", "--output", "json", environment=environment)
    assert json.loads(empty.stdout) == []
    assert coordctl(*server.option, "session", "destroy", "none", environment=environment).returncode == 0


def test_help_loads_neither_zeromq_nor_rich(environment: Environment) -> None:
    done = coordctl("--help", environment={**environment, "PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "typer" in loaded
    assert not loaded & {"zmq", "rich", "dnslib", "asyncio", "aiohttp", "sqlite3"}


def test_a_reader_that_goes_away_is_no_traceback(server: SmallCluster, environment: Environment) -> None:
    import subprocess
    import sys

    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "coordd_cli.main", *server.option, "kv", "list"]
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert "Traceback" not in done.stderr
