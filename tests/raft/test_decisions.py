"""Whatever a core decides by a quorum, it decides as brute force over the configuration does (rules 52, 53, 67).

One real server, `a`, in configurations of any shape: plain and joint, with learners, with itself in one half alone. The
others exist as messages.
"""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coordd.raft.output import Role
from coordd.raft.quorum import Halves, halves_of
from coordd.types import Configuration, Index
from tests.raft.cluster import Cluster, Server, configuration, sid
from tests.raft.test_quorum import decide
from tests.raft.words import accepted, beat_answered, grant, refusal

PEERS = "bcde"


@dataclass(frozen=True)
class Shape:
    """Who votes now, who voted before a joint change ("" without one), who learns."""

    voters: str
    outgoing: str
    learners: str

    @property
    def configuration(self) -> Configuration:
        leaving = [name for name in self.outgoing if name not in self.voters]
        plain = configuration(self.voters, sorted({*self.learners, *leaving}))
        return msgspec.structs.replace(plain, outgoing=tuple(map(sid, self.outgoing)), leaving=tuple(map(sid, leaving)))

    @property
    def halves(self) -> Halves:
        return halves_of(self.configuration)

    @property
    def members(self) -> list[str]:
        """All but `a`."""
        return [name for name in PEERS if self.configuration.member(sid(name)) is not None]

    def decides(self, agreeing: set[str], *, halves: Halves | None = None) -> bool:
        return decide(halves or self.halves, set(map(sid, agreeing)))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """`a` votes in at least one half: v now, o of old."""
    own = draw(st.sampled_from(["v", "vo", "o"]))
    places = draw(st.tuples(*[st.sampled_from(["", "v", "o", "vo", "learns"])] * len(PEERS)))
    joint = own == "o" or draw(st.booleans())
    placed = {"a": own, **dict(zip(PEERS, places, strict=True))}
    voters = "".join(name for name, place in placed.items() if place in ("v", "vo"))
    outgoing = "".join(name for name, place in placed.items() if place in ("o", "vo"))
    learners = "".join(name for name, place in placed.items() if place == "learns")
    return Shape(voters or "b", outgoing if joint else "", learners.replace("b", "") if not voters else learners)


some = st.sets(st.sampled_from(PEERS))


def alone(shape: Shape) -> Cluster:
    cluster = Cluster(())
    cluster.configuration = shape.configuration
    cluster.add("a")
    return cluster


def asking(shape: Shape, role: Role) -> Cluster:
    """`a` asks for pre-votes, or, granted all of those, for votes; its own one is durable."""
    cluster = alone(shape)
    cluster.campaign("a")
    for name in PEERS:
        if role is Role.CANDIDATE and cluster.role("a") is Role.PRE_CANDIDATE:
            cluster.receive(grant(1, name, "a", pre=True))
    if role is Role.CANDIDATE:
        cluster.persist("a", 1)
    return cluster


def led(shape: Shape) -> tuple[Cluster, Server]:
    """`a` was elected by all, and nothing of its term is durable anywhere."""
    cluster = asking(shape, Role.CANDIDATE)
    for name in PEERS:
        cluster.receive(grant(1, name, "a"))
    assert cluster.role("a") is Role.LEADER
    return cluster, cluster["a"]


@settings(deadline=None)
@given(shape=shapes(), match=st.fixed_dictionaries({name: st.integers(0, 3) for name in PEERS}), own=st.integers(0, 3))
@example(shape=Shape("b", "a", ""), match={"b": 1, "c": 0, "d": 0, "e": 0}, own=0)
@example(shape=Shape("bc", "a", ""), match={"b": 1, "c": 1, "d": 0, "e": 0}, own=1)
def test_committed_is_what_a_majority_of_each_half_holds(shape: Shape, match: dict[str, Index], own: Index) -> None:
    """Learners count for nothing, and the leader, where it is a voter, for what its own disk has."""
    cluster, leader = led(shape)
    cluster.propose("a", "x")
    cluster.propose("a", "y")
    cluster.persist("a", own)
    for name in shape.members:
        cluster.receive(accepted(cluster, "a", name, match[name]))

    def agreed(halves: Halves) -> Index:
        holding = {"a": own, **match}
        return max(at for at in range(4) if at == 0 or decide(halves, {sid(s) for s, m in holding.items() if m >= at}))

    jointly = agreed(shape.halves)
    # The joint configuration ends with the first commit under it; from then on the new voters decide alone.
    assert leader.replica.log.commit == (agreed(halves_of(shape.configuration)[:1]) if jointly else 0)


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
@settings(deadline=None)
@given(shape=shapes(), granting=some, refusing=some)
def test_an_election_is_won_in_both_halves_and_lost_in_one(
    role: Role, shape: Shape, granting: set[str], refusing: set[str]
) -> None:
    """Whatever learners and strangers answer."""
    granting = granting - refusing
    cluster = asking(shape, role)
    pre = role is Role.PRE_CANDIDATE
    own_term = 0 if pre else 1
    for name in sorted(granting):
        cluster.receive(grant(1, name, "a", pre=pre))
    for name in sorted(refusing):
        cluster.receive(refusal(own_term, name, "a", pre=pre))
    won = shape.decides({"a"} | granting)
    open_yet = shape.decides({"a", *PEERS} - refusing)
    above = Role.CANDIDATE if pre else Role.LEADER
    assert cluster.role("a") is (above if won else role if open_yet else Role.FOLLOWER)


@settings(deadline=None)
@given(shape=shapes(), answering=some)
def test_a_round_is_confirmed_by_a_majority_of_each_half(shape: Shape, answering: set[str]) -> None:
    """On it rest reads and the lease."""
    cluster, leader = led(shape)
    cluster.beat("a")
    sent = cluster.now
    for name in shape.members:
        if name in answering:
            cluster.receive(beat_answered(cluster, "a", name, leader.leading.round))
    confirmed = shape.decides({"a"} | answering)
    assert (leader.leading.confirmed_round == leader.leading.round) is confirmed
    if confirmed:
        assert leader.leading.lease_until == sent + cluster.settings.lease_duration
    else:
        assert leader.leading.lease_until <= sent


@settings(deadline=None)
@given(shape=shapes(), answering=some)
def test_reads_and_the_lease_need_a_majority(shape: Shape, answering: set[str]) -> None:
    cluster, leader = led(shape)
    cluster.persist("a")
    for _ in range(2):  # what is begun jointly is ended
        for name in shape.members:
            if cluster.role("a") is Role.LEADER:
                cluster.receive(accepted(cluster, "a", name, leader.replica.log.last))
        cluster.persist("a")
    if cluster.role("a") is not Role.LEADER:
        return  # it was removed, and nobody asks it
    now = leader.replica.halves
    cluster.advance(cluster.settings.lease_duration)
    cluster.read("a", 1)
    for name in shape.members:
        if name in answering and sid(name) in leader.leading.peers:
            cluster.receive(beat_answered(cluster, "a", name, leader.leading.round))
    confirmed = shape.decides({"a"} | answering, halves=now)
    assert (leader.reads.get(1) is not None) is confirmed
    assert leader.raft.lease_valid(cluster.now) is confirmed


@settings(deadline=None)
@given(shape=shapes(), answering=some)
def test_a_leader_goes_on_while_a_majority_of_each_half_answers(shape: Shape, answering: set[str]) -> None:
    cluster, leader = led(shape)
    cluster.advance(cluster.settings.election_timeout * 0.7)
    cluster.tick("a")
    for name in shape.members:
        if name in answering:
            cluster.receive(beat_answered(cluster, "a", name, leader.leading.round))
    cluster.advance(cluster.settings.election_timeout * 0.5)
    cluster.tick("a")
    assert (cluster.role("a") is Role.LEADER) is shape.decides({"a"} | answering)
