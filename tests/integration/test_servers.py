"""Three real servers: founded once, in every operator's hands, and what clients notice of it."""

import contextlib
import dataclasses
import shutil
import signal
import time
from pathlib import Path
from typing import TypeVar

import pytest

from coordd.client import Ask, Client, asks
from coordd.errors import (
    BusyError,
    ConflictError,
    NoLeaderError,
    NotFoundError,
    OutcomeUnknownError,
    RequestError,
    TimedOutError,
)
from coordd.messages.client import (
    AddServerRequest,
    BootstrapRequest,
    Error,
    Read,
    RemoveServerRequest,
    TransferRequest,
    View,
)
from coordd.messages.command import KvPut
from coordd.messages.query import KvGet, KvList, KvPairs
from coordd.transport.security import generate
from tests.integration.cluster import FOR_NOW, PATIENCE, ServerCluster, ServerProcess, Straight, wait_for

T = TypeVar("T")

HANDOVER_SECONDS = 3.0


def put(client: Client, key: str, value: bytes) -> None:
    """Written, whatever elections there are."""

    def attempt() -> bool:
        try:
            return client.kv_put(key, value).ok
        except FOR_NOW:
            return False

    wait_for(attempt, f"a put of {key}")


def addition(server: ServerProcess, replaces: str = "") -> AddServerRequest:
    return AddServerRequest(
        server.name, server.raft_address, server.client_address, server.keys.public, replaces=replaces
    )


def is_voter(cluster: ServerCluster, server: ServerProcess) -> bool:
    member = cluster.members().get(server.name)
    return member is not None and member.voter and member.public_key == server.keys.public


# --- a cluster comes to be ------------------------------------------------------------------------------------------


def test_a_cluster_is_founded_once(cluster: ServerCluster) -> None:
    with cluster.client() as client:
        founded = client.servers()
        put(client, "a", b"1")
    assert founded.cluster_id
    assert founded.cluster_name == "test"
    assert sorted(member.id.partition("#")[0] for member in founded.servers) == ["s1", "s2", "s3"]
    assert all(member.voter for member in founded.servers)
    for server in cluster.servers:
        with cluster.client(only=server) as client, pytest.raises(ConflictError, match="belongs to a cluster already"):
            client.request(BootstrapRequest(), server=server.client_address)
    with cluster.client() as client:
        assert client.servers().cluster_id == founded.cluster_id
        pair = client.kv_get("a")
        assert pair is not None
        assert pair.value == b"1"


def test_nobody_leads_before_the_founding_and_it_waits_for_everybody(tmp_path: Path) -> None:
    with ServerCluster(tmp_path) as cluster:
        first, second, third = cluster.servers
        first.start()
        second.start()
        with cluster.client(only=first) as client:
            with pytest.raises(OutcomeUnknownError, match="hello of: s3"):
                client.request(BootstrapRequest(), timeout=3.0, server=first.client_address)
            with pytest.raises((NoLeaderError, TimedOutError)):
                client.write(KvPut("a", b"x"), timeout=1.0)
            assert cluster.info(first)["last_index"] == 0  # type: ignore[index]
            third.start()
            wait_for(lambda: client.servers().cluster_id, "the founding, which was asked for")
            put(client, "a", b"1")


def test_put_and_get_through_each_server(cluster: ServerCluster) -> None:
    for server in cluster.servers:
        with cluster.client(only=server) as client:
            put(client, f"by-{server.name}", server.name.encode())
    for server in cluster.servers:
        with cluster.client(only=server) as client:
            for other in cluster.servers:
                ask = asks.read(KvGet(f"by-{other.name}"), consistency="consistent")
                found = retried(client, dataclasses.replace(ask, server=server.client_address))
                assert isinstance(found.value, KvPairs)
                assert [pair.value for pair in found.value.pairs] == [other.name.encode()]


def retried(client: Client, ask: Ask[T]) -> T:
    """The answer, whatever elections there are."""

    def attempt() -> T | None:
        try:
            return client.ask(ask)
        except FOR_NOW:
            return None

    found = wait_for(attempt, "an answer")
    assert found is not None
    return found


def test_a_follower_names_the_leader(cluster: ServerCluster) -> None:
    def named() -> bool:
        leader = cluster.leader()
        with Straight(cluster.followers()[0]) as straight:
            answer = straight.ask(Read(KvGet("a")))
        return isinstance(answer, Error) and answer.code == "not-leader" and answer.hint == leader.client_address

    wait_for(named, "the leader's address from a follower")


# --- and stops, and comes back --------------------------------------------------------------------------------------


def test_sigterm_hands_leadership_over(cluster: ServerCluster) -> None:
    leader = cluster.leader()
    began = time.monotonic()
    assert leader.stop() == 0
    took = time.monotonic() - began
    assert took < HANDOVER_SECONDS
    assert "event=transfer" in leader.log
    assert "event=stopped" in leader.log
    assert cluster.leader() is not leader
    with cluster.client() as client:
        put(client, "a", b"1")


def test_a_follower_stops_at_once_and_cleanly(cluster: ServerCluster) -> None:
    follower = cluster.followers()[0]
    began = time.monotonic()
    assert follower.stop() == 0
    assert time.monotonic() - began < HANDOVER_SECONDS


def test_a_second_sigterm_ends_a_server_at_once(cluster: ServerCluster) -> None:
    """Both signals come while it is stopped, so that it meets the second before it is done with the first."""
    leader = cluster.leader()
    assert leader.process is not None
    leader.signal(signal.SIGSTOP)
    leader.signal(signal.SIGTERM)
    leader.signal(signal.SIGINT)
    leader.signal(signal.SIGCONT)
    assert leader.process.wait(HANDOVER_SECONDS) == 1
    assert "event=stopped" not in leader.log


def test_all_servers_stop_and_start_again(cluster: ServerCluster) -> None:
    with cluster.client() as client:
        founded = client.servers().cluster_id
        for number in range(20):
            put(client, f"k{number}", str(number).encode())
    for server in cluster.servers:
        assert server.stop() == 0
    cluster.start()
    cluster.leader()
    with cluster.client() as client:
        found = retried(client, asks.kv_list("k", "default"))
        assert {pair.key: pair.value for pair in found} == {f"k{n}": str(n).encode() for n in range(20)}
        assert client.servers().cluster_id == founded
    figures = cluster.converged()
    assert len({each["state_digest"] for each in figures}) == 1


# --- members come and go --------------------------------------------------------------------------------------------


def test_a_server_joins_and_learns_and_votes(cluster: ServerCluster) -> None:
    with cluster.client() as client:
        put(client, "before", b"1")
        joining = cluster.join("s4")
        answer = cluster.operate(addition(joining))
        assert "learner" in answer.text or "member already" in answer.text
        wait_for(lambda: is_voter(cluster, joining), "the learner to become a voter")
        cluster.converged()
        put(client, "after", b"2")
        lead(cluster, joining)
        # The client was told of three servers: when the fourth leads, it must have learned of that one.
        put(client, "later", b"3")
    with cluster.client(only=joining) as client:
        found = retried(client, asks.kv_list("", "default"))
    assert {pair.key: pair.value for pair in found} == {"before": b"1", "after": b"2", "later": b"3"}


def lead(cluster: ServerCluster, server: ServerProcess) -> None:
    """Have this server lead."""

    def led() -> bool:
        if cluster.leader() is server:
            return True
        with contextlib.suppress(ConflictError):  # it leads already
            cluster.operate(TransferRequest(server.name))
        return cluster.leader() is server

    wait_for(led, f"{server.name} to lead")


def test_a_member_is_not_added_again(cluster: ServerCluster) -> None:
    with cluster.client() as client, pytest.raises(ConflictError, match="is a member already"):
        client.request(addition(cluster.servers[0]))


def test_who_does_not_say_hello_is_not_added(cluster: ServerCluster) -> None:
    keys = generate()
    nobody = AddServerRequest("s9", "127.0.0.1:1", "127.0.0.1:2", keys.public)
    with cluster.client() as client:
        with pytest.raises(ConflictError, match="s9 has not said hello"):
            client.request(nobody, timeout=2.0)
        assert "s9" not in cluster.members()
        put(client, "a", b"1")


@pytest.mark.parametrize("who", ["follower", "leader"])
def test_a_removed_server_says_so_and_disturbs_nobody(cluster: ServerCluster, who: str) -> None:
    leader = cluster.leader()
    leaving = leader if who == "leader" else cluster.followers()[0]
    with cluster.client() as client:
        put(client, "a", b"1")
        cluster.operate(RemoveServerRequest(leaving.name))
        wait_for(lambda: "event=removed" in leaving.log, "the removed server to say so")
        said = leaving.log
        stay = [server for server in cluster.servers if server is not leaving]
        wait_for(lambda: leads_among(cluster, stay), "a leader among those that stay")
        assert leaving.name not in cluster.members()
        for number in range(20):
            put(client, f"k{number}", b"2")
        with pytest.raises(NotFoundError):
            client.request(RemoveServerRequest(leaving.name))
    assert leaving.running
    assert "event=candidate" not in leaving.log[len(said) :]
    assert "event=leader" not in leaving.log[len(said) :]


def leads_among(cluster: ServerCluster, servers: list[ServerProcess]) -> bool:
    return any((figures := cluster.info(server)) and figures["role"] == "leader" for server in servers)


def test_leadership_goes_to_whom_it_is_given(cluster: ServerCluster) -> None:
    for _ in range(3):
        target = cluster.followers()[0]
        lead(cluster, target)
        with cluster.client() as client:
            put(client, "a", target.name.encode())
    with cluster.client() as client, pytest.raises(NotFoundError, match="no server s9"):
        client.request(TransferRequest("s9"))


def test_a_client_told_of_one_server_outlives_it(cluster: ServerCluster) -> None:
    told = cluster.servers[0]
    with cluster.client(only=told) as client:
        put(client, "a", b"1")
        told.kill()
        put(client, "a", b"2")
        pair = retried(client, asks.kv_get("a", "consistent"))
        assert pair is not None
        assert (pair.value, pair.version) == (b"2", 2)


# --- a wiped disk is no old friend ----------------------------------------------------------------------------------


def test_a_wiped_server_is_not_taken_for_the_old_one(cluster: ServerCluster) -> None:
    with cluster.client() as client:
        put(client, "a", b"1")
        cluster.converged()
        wiped, other = cluster.followers()
        wiped.kill()
        shutil.rmtree(wiped.data)
        wiped.start()
        wait_for(lambda: "message of another cluster or life" in wiped.log, "the wiped server to be addressed")
        figures = cluster.info(wiped)
        assert figures is not None
        assert (figures["last_index"], figures["role"]) == (0, "follower")
        old = cluster.members()[wiped.name].id
        assert old != figures["server"]
        # Its vote and its acknowledgements must not count: with one more server away there is no quorum.
        other.kill()
        with pytest.raises((NoLeaderError, OutcomeUnknownError, TimedOutError, BusyError)):
            client.write(KvPut("b", b"2"), timeout=4.0)
        assert cluster.info(wiped)["last_index"] == 0  # type: ignore[index]
        other.start()
        cluster.operate(addition(wiped, replaces=wiped.name))
        wait_for(lambda: is_voter(cluster, wiped) and cluster.members()[wiped.name].id != old, "its new life to vote")
        put(client, "c", b"3")
    digests = {each["state_digest"] for each in cluster.converged()}
    assert len(digests) == 1


# --- those who wait for changes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_a_blocking_read_wakes_when_its_key_changes(cluster: ServerCluster, exists: bool) -> None:
    with cluster.client() as client, cluster.client() as reader:
        if exists:
            put(client, "a", b"1")
        before = retried(reader, asks.read(KvGet("a")))
        waiting = reader.start(asks.read(KvGet("a"), index=before.index, wait=PATIENCE))
        put(client, "another", b"x")
        assert not waiting.done()
        put(client, "a", b"2")
        after = waiting.result(timeout=PATIENCE / 2)
    assert after.index > before.index
    assert isinstance(after.value, KvPairs)
    assert [pair.value for pair in after.value.pairs] == [b"2"]


def test_a_subscription_sees_changes_whoever_dies(cluster: ServerCluster) -> None:
    """Each server is killed once, so the leader and the one at which the subscription lives are among them."""
    seen: dict[str, bytes] = {}
    errors: list[RequestError] = []

    def look(view: View | RequestError) -> None:
        if isinstance(view, RequestError):
            errors.append(view)
            return
        assert isinstance(view.value, KvPairs)
        seen.clear()
        seen.update({pair.key: pair.value for pair in view.value.pairs})

    with cluster.client() as client:
        client.subscribe(KvList("watched/"), look)
        expected = {}
        for round_, server in enumerate(cluster.servers):
            for key in ("before", "after"):
                if key == "after":
                    server.kill()
                expected[f"watched/{key}"] = str(round_).encode()
                put(client, f"watched/{key}", str(round_).encode())
                wait_for(lambda: seen == expected, f"the view to show {expected}")
            server.start()
            cluster.converged()
    assert not errors
