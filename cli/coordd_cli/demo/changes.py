"""Steps in which the cluster changes by order: leadership, a new server, a removed one."""

import time
from typing import Any

from coordd_cli.demo.stage import ServerHost, Stage

__all__ = ["add_server", "leader_of", "make_keys", "remove_server", "transfer_leadership"]

CATCH_UP_SECONDS = 10.0
CALM_SECONDS = 1.0
"""Several election timeouts: a removed server that campaigned would have been noticed."""


def make_keys(stage: Stage, *hosts: ServerHost) -> None:
    files = [str(host.folder / "server.key") for host in hosts]
    made = stage.run_all(*(("keys", "generate", "--out", file, "--output", "json") for file in files))
    for host, finished in zip(hosts, made, strict=True):
        host.public_key = finished.json()["public_key"]


def peers_of(stage: Stage) -> list[dict[str, Any]]:
    found = stage.run(*stage.as_token(), "operator", "raft", "list-peers", "--output", "json").json()
    stage.show(", ".join(f"{peer['name']}: {peer['role']}" for peer in found))
    peers: list[dict[str, Any]] = found
    return peers


def leader_of(peers: list[dict[str, Any]]) -> str:
    return next((str(peer["name"]) for peer in peers if peer["role"] == "leader"), "")


def term_of(stage: Stage, host: ServerHost) -> int:
    """The term that this server is in."""
    asked = ["--server", stage.address_of(host), *stage.as_token()]
    return int(stage.run(*asked, "info", "term").output)


def transfer_leadership(stage: Stage) -> None:
    before = leader_of(peers_of(stage))
    done = stage.run(*stage.as_token(), "operator", "raft", "transfer-leader")
    stage.show(f"took {done.seconds:.2f} s with the start of coordctl")
    after = leader_of(peers_of(stage))
    stage.expect(after not in ("", before), f"another server leads than {before}")


def add_server(stage: Stage) -> None:
    host, member = stage.servers["s4"], stage.servers["s1"]
    make_keys(stage, host)
    stage.start_server(host, {"join": {"address": member.client_address, "public_key": member.public_key}})
    stage.wait_ready(host.daemon)
    where = ["--raft", host.raft_address, "--client", host.client_address, "--public-key", host.public_key]
    asked = [*stage.as_token(), "operator", "raft"]
    added = stage.run(*asked, "add-peer", host.name, *where)
    stage.show(added.output.strip())

    def voting(peers: list[dict[str, Any]]) -> bool:
        return any(peer["name"] == host.name and peer["role"] == "voter" for peer in peers)

    stage.poll("s4 becoming a voter", lambda peers: voting(peers) or None, CATCH_UP_SECONDS, *asked, "list-peers")
    stage.expect(len(peers_of(stage)) == 4, "s4 is a voter")


def remove_server(stage: Stage) -> None:
    peers = peers_of(stage)
    leader = stage.servers[leader_of(peers)]
    name = next(str(peer["name"]) for peer in peers if peer["role"] == "voter")
    removed = stage.servers[name]
    term = term_of(stage, leader)
    stage.run(*stage.as_token(), "operator", "raft", "remove-peer", name)
    said = stage.until_logged(removed, "removed", CATCH_UP_SECONDS)
    stage.show(f"{name} logs: {said['event']} ({said.get('advice', '')})")
    time.sleep(CALM_SECONDS)
    if removed.daemon is not None:
        removed.daemon.end()
    undisturbed = term_of(stage, leader) == term
    left = peers_of(stage)
    names = [peer["name"] for peer in left]
    stage.expect(
        undisturbed and name not in names and leader_of(left) == leader.name, f"{name} left, {leader.name} leads on"
    )
