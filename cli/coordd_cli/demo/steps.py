"""The play: what the demo shows, one function a step, listed in `STEPS` in their order.

A step does what it is there to do and then says, by one `stage.expect`, what must now be true. What a later step needs is
left in `stage.notes`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordd_cli.demo import changes, failures
from coordd_cli.demo.stage import FOUNDERS, ROOT, Stage
from coordd_cli.dns_query import DnsAnswer
from coordd_cli.processes import wait_for

__all__ = ["STEPS", "Step"]

PASSING_SECONDS = 8.0
DNS_SECONDS = 5.0


@dataclass(frozen=True)
class Step:
    """One scene. `needs`: programs without which it can't be shown yet."""

    name: str
    title: str
    play: Callable[[Stage], None]
    needs: tuple[str, ...] = ("coordd",)


def start_http(stage: Stage) -> None:
    stage.notes["http"] = stage.start_http()
    stage.expect(stage.notes["http"].alive, "the HTTP server runs")


def start_servers(stage: Stage) -> None:
    hosts = [stage.servers[name] for name in FOUNDERS]
    changes.make_keys(stage, *hosts)
    for host in hosts:
        stage.start_server(host, {"servers": [one.entry for one in hosts]})
    stage.wait_ready(*(host.daemon for host in hosts))
    stage.expect(all(host.daemon and host.daemon.alive for host in hosts), "three servers are ready")


def bootstrap(stage: Stage) -> None:
    stage.run("--server", stage.address_of(stage.servers["s1"]), "operator", "raft", "bootstrap")
    stage.export_servers()
    peers = stage.poll("electing a leader", with_leader, 10.0, "operator", "raft", "list-peers")
    stage.show(", ".join(f"{peer['name']}: {peer['role']}" for peer in peers))
    stage.expect(sorted(peer["role"] for peer in peers) == ["leader", "voter", "voter"], "three voters, one leads")


def with_leader(peers: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    return peers if any(peer["role"] == "leader" for peer in peers) else None


def bootstrap_acl(stage: Stage) -> None:
    file = stage.folder / f"{ROOT}.token"
    stage.run("acl", "bootstrap", "--out", str(file))
    stage.show(f"the secret is in {file}; from now on, what no token allows is denied")
    again = stage.run("acl", "bootstrap", status=None)
    stage.expect(again.status == 4, "a second bootstrap is denied with exit code 4")


POLICIES: dict[str, dict[str, Any]] = {
    "h1": {
        "node": {"h1": "write"},
        "service": {"web": "write", "api": "write"},
        "node_prefix": {"": "read"},
        "service_prefix": {"": "read"},
    },
    "h2": {"node": {"h2": "write"}, "node_prefix": {"": "read"}, "service_prefix": {"": "read"}},
    "backup": {
        "lock_prefix": {"backup": "write"},
        "session_prefix": {"": "write"},
        "key_prefix": {"backup/": "write"},
    },
}


def make_tokens(stage: Stage) -> None:
    root = stage.as_token()
    stage.run_all(*([*root, "acl", "policy", "put", name, json.dumps(rules)] for name, rules in POLICIES.items()))
    files = {name: str(stage.folder / f"{name}.token") for name in POLICIES}
    stage.run_all(*([*root, "acl", "token", "create", "--policy", name, "--out", file] for name, file in files.items()))
    tokens = stage.run(*stage.as_token(), "acl", "token", "list", "--output", "json").json()
    policies = [policy for token in tokens for policy in token["policies"]]
    stage.expect(sorted(policies) == sorted(POLICIES), "there is a token for each policy")


def start_agents(stage: Stage) -> None:
    for host in stage.agents.values():
        stage.start_agent(host)
    stage.wait_ready(*(host.daemon for host in stage.agents.values()))

    def both(members: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        alive = [one["name"] for one in members if one["kind"] == "agent" and one["state"] == "alive"]
        return members if alive == sorted(stage.agents) else None

    members = stage.poll("both agents being alive", both, 10.0, *stage.via_agent("h1"), "members")
    stage.show(", ".join(f"{one['name']} ({one['kind']}): {one['state']}" for one in members))
    stage.expect(len(members) == 5, "three servers and two agents are members")


def deny(stage: Stage) -> None:
    done = stage.run(*stage.as_token("h1"), "kv", "put", "backup/done", "no", status=None)
    stage.show(done.errors.strip())
    stage.expect(done.status == 4, "the agent's token may not write keys: exit code 4")


def register(stage: Stage) -> None:
    agent = stage.via_agent("h1", "h1")
    url = f"http://127.0.0.1:{stage.http_port}/"
    port = str(stage.http_port)
    stage.run(*agent, "services", "register", "web", "--port", port, "--tag", "v1", "--http", url, "--interval", "1s")
    stage.run(*agent, "services", "register", "api", "--port", "9000")

    def passing(instances: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        return instances if [one["status"] for one in instances] == ["passing"] else None

    found = stage.poll("the check passing", passing, PASSING_SECONDS, *stage.via_agent("h2"), "services", "list", "web")
    stage.expect(found[0]["node"] == "h1", "web on h1 is passing, as h2 sees it")


def resolve(stage: Stage) -> None:
    found = {}
    for record_type, name in (("A", "web.service.coord"), ("SRV", "_web._tcp.service.coord"), ("A", "h1.node.coord")):
        answer = until_dns(stage, "h2", name, record_type, lambda answer: bool(answer.answers))
        found[name] = [one.data for one in answer.answers]
        stage.show(f"{name} {record_type} {found[name]}")
    unknown = stage.ask_dns("h2", "nothing.service.coord", "A")
    stage.show(f"nothing.service.coord A {unknown.status}")
    srv = f"1 1 {stage.http_port} "
    right = found["web.service.coord"] == ["127.0.0.1"] and found["_web._tcp.service.coord"][0].startswith(srv)
    stage.expect(right and unknown.status == "NXDOMAIN", "h2 answers A and SRV for h1's service, and NXDOMAIN")


def until_dns(stage: Stage, host: str, name: str, kind: str, wanted: Callable[[DnsAnswer], bool]) -> DnsAnswer:
    """Ask until the answer is as wanted; the question is printed once."""
    first = stage.ask_dns(host, name, kind)
    if wanted(first):
        return first

    def look() -> DnsAnswer | None:
        answer = stage.ask_dns(host, name, kind, printed=False)
        return answer if wanted(answer) else None

    return wait_for(f"the answer to {name} {kind} on {host}", look, DNS_SECONDS)


HOLD = ["sh", "-c", "echo $COORD_LOCK_TOKEN; exec sleep 600"]


def queue_for_lock(stage: Stage) -> None:
    lock = [*stage.via_agent("h1", "backup"), "lock", "backup", "--ttl", "10s"]
    first = stage.start(*lock, "--", "sh", "-c", "echo $COORD_LOCK_TOKEN; sleep 1")
    stage.poll("the first being granted", held_by("backup"), 5.0, *stage.via_agent("h2"), "lock", "list")
    other = [*stage.via_agent("h2", "backup"), "lock", "backup", "--ttl", "10s", "--wait", "10s"]
    second = stage.start(*other, "--", "sh", "-c", "echo $COORD_LOCK_TOKEN")
    tokens = [int(stage.finish(process).output or 0) for process in (first, second)]
    stage.show(f"tokens: first {tokens[0]}, then {tokens[1]}")
    stage.expect(0 < tokens[0] < tokens[1], "the second waited, and its fencing token is higher")


def hold_lock(stage: Stage) -> None:
    """For the rest of the play: leaders will fall, the lock must stay."""
    lock = [*stage.as_token("backup"), "lock", "backup-long", "--ttl", "15s"]
    stage.notes["holder"] = stage.start(*lock, "--", *HOLD)
    held = stage.poll("being granted", held_by("backup-long"), 5.0, *stage.as_token(), "lock", "list")
    stage.notes["token"] = held["token"]
    fence = ["--fence", f"backup-long:{held['token']}"]
    stage.run(*stage.as_token("backup"), "kv", "put", "backup/done", "yesterday", *fence)
    stale = ["--fence", f"backup-long:{held['token'] - 1}"]
    refused = stage.run(*stage.as_token("backup"), "kv", "put", "backup/done", "never", *stale, status=None)
    stage.show(refused.errors.strip())
    stage.expect(refused.status == 1, "a write with an older token is refused")


def held_by(name: str) -> Callable[[list[dict[str, Any]]], dict[str, Any] | None]:
    def look(locks: list[dict[str, Any]]) -> dict[str, Any] | None:
        return next((one for one in locks if one["name"] == name and one["holder"]), None)

    return look


STEPS: tuple[Step, ...] = (
    Step("http", "Start a small HTTP server", start_http, ()),
    Step("servers", "Start three servers", start_servers),
    Step("bootstrap", "Found the cluster", bootstrap),
    Step("acl", "Turn access control on", bootstrap_acl),
    Step("tokens", "Make narrow tokens for agents and lock users", make_tokens),
    Step("agents", "Start agents on two hosts", start_agents, ("coordd", "coordd-agent")),
    Step("denied", "Try what the token does not allow", deny),
    Step("register", "Register a service with an HTTP check", register, ("coordd", "coordd-agent")),
    Step("dns", "Ask the other host's DNS", resolve, ("coordd", "coordd-agent")),
    Step("locks", "Two take a lock in turn", queue_for_lock, ("coordd", "coordd-agent")),
    Step("fence", "Hold a lock, and write under its fencing token", hold_lock),
    Step("transfer", "Hand leadership over", changes.transfer_leadership),
    Step("kill", "Kill the leader", failures.kill_leader),
    Step("survival", "Look what survived", failures.show_survival),
    Step("restart", "Start the killed server again", failures.restart_server),
    Step("add", "Add a fourth server", changes.add_server),
    Step("remove", "Remove a server", changes.remove_server),
    Step("drop", "Stop the HTTP server", failures.stop_http, ("coordd", "coordd-agent")),
    Step("lose", "Kill the first host's agent", failures.kill_agent, ("coordd", "coordd-agent")),
)
