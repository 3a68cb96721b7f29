"""A rolling upgrade of real servers: the cluster's feature level rises after the last, and no older version comes back.

The "next version" is today's code that supports one level more, at which prefixes can be deleted.
"""

import subprocess
from typing import Any

import pytest

from coordd.client import asks
from coordd.errors import ConflictError
from coordd.messages.client import TransferRequest
from coordd.messages.command import KvDeleteTree
from tests.integration.cluster import FOR_NOW, ServerCluster, ServerProcess, wait_for

NEXT_VERSION = [
    "from coordd.messages import command, levels",
    "levels.SUPPORTED = 2",
    "levels.INTRODUCED[command.KvDeleteTree] = 2",
]
UNSUPPORTED = 5


def upgrade(cluster: ServerCluster, server: ServerProcess) -> None:
    assert server.stop() == 0
    server.start(preload=NEXT_VERSION)
    wait_for(lambda: figures(cluster, server).get("feature_level_supported") == 2, f"{server.name} is up")


def figures(cluster: ServerCluster, server: ServerProcess) -> dict[str, Any]:
    return cluster.info(server) or {}


def levels(cluster: ServerCluster) -> list[int]:
    return [figures(cluster, server).get("feature_level", 0) for server in cluster.servers]


def delete_tree(cluster: ServerCluster, prefix: str) -> str:
    """How it ended: "" or the reason."""

    def attempt() -> str | None:
        with cluster.client() as client:
            try:
                client.ask(asks.write(KvDeleteTree(prefix)))
            except ConflictError as error:
                return error.text if "is not reached" not in error.text else None
            except FOR_NOW:
                return None
        return "done"

    return wait_for(attempt, "an answer to the deletion")


def test_rule_95_a_rolling_upgrade(cluster: ServerCluster) -> None:
    first, second, third = cluster.servers
    with cluster.client(timeout=60) as client:
        for number in range(3):
            client.kv_put(f"tree/{number}", b"x")
    upgrade(cluster, first)
    upgrade(cluster, second)
    cluster.operate(TransferRequest("s1"))
    assert "not until every server has been upgraded: s3 supports level 1 only" in delete_tree(cluster, "tree/")
    assert levels(cluster) == [1, 1, 1]
    with cluster.client(timeout=60) as client:
        assert len(client.kv_list("tree/")) == 3
    upgrade(cluster, third)
    wait_for(lambda: levels(cluster) == [2, 2, 2], "all servers at level 2")
    assert delete_tree(cluster, "tree/") == "done"
    cluster.converged()

    assert third.stop() == 0
    third.start()
    assert third.process is not None
    try:
        assert third.process.wait(30) == UNSUPPORTED
    except subprocess.TimeoutExpired:
        pytest.fail("an older version went on with the state of a newer one")
    assert "is of feature level 2, this version of coordd supports level 1: install" in third.log
