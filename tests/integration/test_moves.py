"""Servers whose addresses have changed: all at once, with nobody left to agree on it, and one at a time."""

from coordd.messages.client import MoveServerRequest
from tests.integration.cluster import ServerCluster, ServerProcess, free_ports


def renumber(servers: list[ServerProcess]) -> None:
    """Their host gives them other ports."""
    ports = free_ports(2 * len(servers))
    for server, raft_port, client_port in zip(servers, ports[::2], ports[1::2], strict=True):
        server.raft_address, server.client_address = f"127.0.0.1:{raft_port}", f"127.0.0.1:{client_port}"


def known(cluster: ServerCluster) -> dict[str, tuple[str, str]]:
    return {name: (one.raft_address, one.client_address) for name, one in cluster.members().items()}


def now(cluster: ServerCluster) -> dict[str, tuple[str, str]]:
    return {server.name: (server.raft_address, server.client_address) for server in cluster.servers}


def put(cluster: ServerCluster, key: str) -> None:
    with cluster.client(timeout=60) as client:
        client.kv_put(key, b"x")


def test_rule_78_a_cluster_whose_addresses_have_all_changed_comes_together_again(cluster: ServerCluster) -> None:
    put(cluster, "before")
    for server in cluster.servers:
        assert server.stop() == 0
    before = now(cluster)
    renumber(cluster.servers)
    moved = "".join(
        f'[[moved]]\nname = "{s.name}"\nraft_address = "{s.raft_address}"\nclient_address = "{s.client_address}"\n'
        for s in cluster.servers
    )
    cluster.configure(moved)
    cluster.start()
    cluster.leader()
    put(cluster, "by the file")
    assert known(cluster) == now(cluster)  # what clients are told is of use to them
    for server in cluster.servers:
        cluster.operate(MoveServerRequest(server.name, server.raft_address, server.client_address))

    for server in cluster.servers:
        server.stop()
    cluster.configure()
    cluster.start()
    cluster.leader()
    put(cluster, "by the configuration")
    assert known(cluster) == now(cluster) != before
    with cluster.client(timeout=60) as client:
        assert client.kv_keys("") == ("before", "by the configuration", "by the file")


def test_one_server_moves_while_the_others_work(cluster: ServerCluster) -> None:
    follower = cluster.followers()[0]
    assert follower.stop() == 0
    renumber([follower])
    cluster.configure()
    follower.start()
    put(cluster, "meanwhile")
    cluster.operate(MoveServerRequest(follower.name, follower.raft_address, follower.client_address))
    assert known(cluster) == now(cluster)
    put(cluster, "after")
    cluster.converged()
