"""What a server is after a snapshot took the place of its log: what the snapshot's configuration says, whatever it was before.

etcd: TestRestore, …WithLearner, …WithVotersOutgoing, …VoterToLearner, …LearnerPromotion, TestLearnerReceiveSnapshot.
"""

import msgspec
import pytest

from coordd.raft import events
from coordd.raft.output import Role
from coordd.types import Configuration, SnapshotMeta
from tests.raft.cluster import Cluster, configuration, sid
from tests.raft.words import SESSION, beat, install

JOINT = msgspec.structs.replace(configuration("bcd", "a"), outgoing=(sid("a"), sid("b"), sid("c")), leaving=(sid("a"),))
BEFORE = {"a voter": ("abc", ""), "a learner": ("bcd", "a")}
AFTER = {
    "a voter": configuration("abc"),
    "a learner": configuration("bcd", "a"),
    "a voter of the old half": JOINT,
    "no member": configuration("bcd"),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("after", AFTER)
def test_a_server_is_what_the_snapshot_says(before: str, after: str) -> None:
    known: Configuration = AFTER[after]
    cluster = Cluster(*BEFORE[before])
    server = cluster["a"]
    cluster.receive(beat(3, "b", "a"))
    snapshot = SnapshotMeta(11, 3, 0, known, 9)
    cluster.receive(install(3, "b", "a", snapshot))
    cluster.step("a", events.SnapshotReceived(3, sid("b"), SESSION, snapshot))
    cluster.persist("a")
    log = server.replica.log
    assert (log.base_index, log.base_term, log.last, log.commit, log.applied) == (11, 3, 11, 11, 11)
    assert (server.replica.configuration, server.replica.configuration_index) == (known, 9)
    votes = "voter" in after
    assert server.replica.is_voter is votes
    cluster.campaign("a")
    assert server.role is (Role.PRE_CANDIDATE if votes else Role.FOLLOWER)
    asked = {str(message.receiver) for message in cluster.pending(sender="a") if message.term == 4}
    assert asked == ({str(s) for half in server.replica.halves for s in half} - {"a"} if votes else set())


@pytest.mark.parametrize("after", AFTER)
def test_and_still_is_after_a_restart(after: str) -> None:
    cluster = Cluster(("b", "c", "d"), ("a",))
    cluster.receive(beat(3, "b", "a"))
    snapshot = SnapshotMeta(11, 3, 0, AFTER[after], 9)
    cluster.step("a", events.SnapshotReceived(3, sid("b"), SESSION, snapshot))
    cluster.persist("a")
    before = cluster["a"].replica.configurations
    cluster.crash("a")
    cluster.restart("a")
    assert cluster["a"].replica.configurations == before == [(9, AFTER[after])]
    assert cluster["a"].replica.log.last_term == 3
