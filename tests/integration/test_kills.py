"""The promise: whoever is killed and whenever, an acknowledged write is there, and each took effect at most once.

Eight clients with default settings write while servers get SIGKILL. COORDD_KILLS=30,5 makes it a longer run: thirty
kills of one server, five of all three.
"""

import os
import random
import time
from pathlib import Path

import pytest

from coordd.messages.query import KvPair
from tests.integration.cluster import ServerCluster, ServerProcess, wait_for
from tests.integration.logs import differences
from tests.integration.writers import Book, Writers, violations

ONE, ALL = (int(number) for number in os.environ.get("COORDD_KILLS", "10,2").split(","))
EXACTLY_ONCE_OFF = "from coordd.state.clients import Clients; Clients.known_result = lambda self, header: None"


class Storm:
    """Writers at work on a cluster whose servers are killed by chance."""

    def __init__(self, cluster: ServerCluster, chance: random.Random, preload: list[str] | None = None) -> None:
        self._cluster = cluster
        self._chance = chance
        self._preload = preload
        self._writers = Writers([(server.client_address, server.keys.public) for server in cluster.servers])

    def begin(self) -> None:
        self._writers.start()
        self.progress()

    def kill(self, victims: list[ServerProcess]) -> None:
        """At some moment; they come back at some later one."""
        self._pause(0.3)
        for server in victims:
            server.kill()
        self._pause(0.5)
        for server in victims:
            server.start(preload=self._preload)
        self.progress()

    def victim(self) -> ServerProcess:
        """The leader as often as all others together."""
        leader = self._cluster.leader()
        return self._chance.choice([leader, self._chance.choice(self._cluster.followers())])

    def end(self) -> dict[str, Book]:
        return self._writers.finish()

    def abandon(self) -> None:
        """End the writers, whatever their writes came to."""
        self._writers.stop()

    def progress(self) -> None:
        """The cluster takes writes again."""
        before = self._writers.count
        wait_for(lambda: self._writers.count >= before + 50, "acknowledged writes")

    def _pause(self, seconds: float) -> None:
        """The moment is random: nothing is waited for."""
        time.sleep(self._chance.uniform(0, seconds))


def read_all(cluster: ServerCluster) -> tuple[KvPair, ...]:
    with cluster.client(timeout=30.0) as client:
        return client.kv_list(consistency="consistent")


@pytest.mark.slow
@pytest.mark.timeout(60 + 12 * (ONE + ALL))
def test_no_kill_loses_or_doubles_a_write(cluster: ServerCluster) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    storm = Storm(cluster, chance)
    storm.begin()
    kills = ["one"] * ONE + ["all"] * ALL
    chance.shuffle(kills)
    for kill in kills:
        storm.kill(list(cluster.servers) if kill == "all" else [storm.victim()])
    books = storm.end()
    figures = cluster.converged()
    assert not violations(books, read_all(cluster))
    assert len({each["state_digest"] for each in figures}) == 1
    written = sum(len(book.acknowledged) for book in books.values())
    unknown = sum(len(book.unknown) for book in books.values())
    print(f"{written} writes acknowledged, {unknown} unknown")
    committed = min(int(each["commit_index"]) for each in cluster.converged())
    for server in cluster.servers:
        assert server.stop() == 0
    assert not differences([server.data for server in cluster.servers], committed)


@pytest.mark.slow
def test_the_check_sees_a_cluster_that_does_not_remember_numbers(tmp_path: Path) -> None:
    """Exactly-once is planted off: a write that is sent again after a lost answer takes effect again."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    with ServerCluster(tmp_path) as cluster:
        cluster.bootstrap(preload=[EXACTLY_ONCE_OFF])
        storm = Storm(cluster, random.Random(seed), [EXACTLY_ONCE_OFF])
        storm.begin()
        for _ in range(8):
            storm.kill([cluster.leader()])
        books = storm.end()
        cluster.converged()
        found = violations(books, read_all(cluster))
    print("\n".join(found))
    assert found
