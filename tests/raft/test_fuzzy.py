"""Work goes on while leadership is handed over, members come and go, leaders are cut off and votes are slow.

Named after hashicorp/raft's fuzzy tests; like theirs each ends with equal logs, and with every acknowledged command in them.
"""

import os

import pytest

from coordd.raft import events
from coordd.raft.output import Accepted, Role
from tests.raft.cluster import command, member, sid
from tests.raft.lab import UNRELIABLE, Lab

seeds = pytest.mark.parametrize("seed", range(int(os.environ.get("COORDD_LAB_SEEDS", "5"))))


class Work:
    """A client that wants one thing after the other, and remembers what it was told."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.told: list[str] = []

    def some(self, count: int = 3) -> None:
        for _ in range(count):
            text = f"work {len(self.told)}."
            self.lab.agree(text, 1)
            self.told.append(text)

    def end(self) -> None:
        """Everything works again: all members are equal, and nothing that was acknowledged is missing."""
        self.lab.heal()
        self.some()
        self.lab.all_equal()
        entries = self.lab.committed_texts()
        places = [entries.index(command(text)) for text in self.told]
        assert places == sorted(places)


def change(lab: Lab, wanted: events.Change, within: float = 10.0) -> None:
    """Ask whoever leads until the change is taken up."""
    end = lab.now + within
    while lab.now < end:
        for name in lab.leaders():
            if isinstance(lab.step(name, events.ChangeRequested(wanted)).change, Accepted):
                return
        lab.run(0.05)
    raise AssertionError(f"seed {lab.seed}: {wanted} was never accepted")


def voters(lab: Lab) -> set[str]:
    """Once no change is under way."""
    for _ in range(100):
        found = lab[lab.leader()].replica.configuration
        if found is not None and not found.joint:
            return set(map(str, found.voters))
    raise AssertionError(f"seed {lab.seed}: jointly for ever")


def until_voters(lab: Lab, wanted: set[str], within: float = 10.0) -> None:
    end = lab.now + within
    while voters(lab) != wanted:
        assert lab.now < end, f"seed {lab.seed}: {voters(lab)} in place of {wanted}"
        lab.run(0.1)


def gone(lab: Lab, *names: str) -> None:
    """A server that is removed and switched off is no part of the room any more."""
    for name in names:
        del lab.servers[sid(name)]
    lab.unplugged -= set(names)


@seeds
def test_leadership_transfers(seed: int) -> None:
    """FuzzyLeadershipTransfer."""
    lab = Lab(5, seed)
    work = Work(lab)
    for _ in range(15):
        leader = lab.leader()
        target = lab.chance.choice([name for name in lab.names if name != leader])
        output = lab.step(leader, events.TransferRequested(sid(target)))
        assert output.transfer == target
        lab.run(0.1)
        assert lab.leader() == target, "nobody is slow, so it is taken over at once"
        work.some()
    work.end()


@seeds
def test_members_are_added(seed: int) -> None:
    """AddMembership: one by one, under load, over lines that lose."""
    lab = Lab(3, seed, UNRELIABLE, compact_every=10)
    work = Work(lab)
    for name in "def":
        work.some()
        lab.add(name, empty=True)
        change(lab, events.AddServer(member(name, voter=False, promote=True)))
        work.some()
    until_voters(lab, set("abcdef"))
    work.end()


@seeds
def test_followers_are_removed_and_added_again(seed: int) -> None:
    """AddRemoveNodesNotLeader: each time as another server with an empty disk."""
    lab = Lab(5, seed, compact_every=10)
    work = Work(lab)
    for fresh in "fgh":
        work.some()
        leader = lab.leader()
        members = voters(lab)
        leaving = lab.chance.choice(sorted(members - {leader}))
        change(lab, events.RemoveServer(sid(leaving)))
        until_voters(lab, members - {leaving})
        lab.run(0.2)
        gone(lab, leaving)
        lab.add(fresh, empty=True)
        change(lab, events.AddServer(member(fresh, voter=False, promote=True)))
        until_voters(lab, members - {leaving} | {fresh})
    work.end()


@seeds
def test_the_leader_is_removed_again_and_again(seed: int) -> None:
    """RemoveLeader: of seven servers four leaders in turn; the others go on."""
    lab = Lab(7, seed)
    work = Work(lab)
    for _ in range(4):
        work.some()
        leader = lab.leader()
        change(lab, events.RemoveServer(sid(leader)))
        lab.run(0.2)
        assert lab.role(leader) is not Role.LEADER
        assert leader not in voters(lab)
        gone(lab, leader)
    work.end()


@seeds
def test_a_partitioned_server_is_removed(seed: int) -> None:
    """RemovePartitionedNode: it never hears of it, campaigns for ever, and disturbs nobody when it is back."""
    lab = Lab(5, seed)
    work = Work(lab)
    away = next(name for name in lab.names if name != lab.leader())
    lab.unplug(away)
    lab.run(0.5)
    change(lab, events.RemoveServer(sid(away)))
    until_voters(lab, set(lab.names) - {away})
    work.some()
    lab.run(lab.settings.departing_timeout + 1)
    leader, term = lab.leader(), lab[lab.leader()].replica.term
    lab.plug(away)
    lab.run(3)
    assert lab.role(away) is not Role.LEADER
    assert (lab.role(leader), lab[leader].replica.term) == (Role.LEADER, term)
    gone(lab, away)
    work.end()


@seeds
def test_the_leader_is_cut_off_with_a_part_of_the_others(seed: int) -> None:
    """LeaderPartitions."""
    lab = Lab(5, seed)
    work = Work(lab)
    for _ in range(10):
        leader = lab.leader()
        away = {leader, *lab.chance.sample([name for name in lab.names if name != leader], lab.chance.randrange(2))}
        lab.isolate(*away)
        lab.unplug(*away)  # clients don't reach them either
        work.some()
        lab.cut.clear()
        lab.plug(*away)
        lab.run(lab.chance.uniform(0, 0.5))
    work.end()


@seeds
@pytest.mark.parametrize("slow", ["abcde", "ab"])
def test_slow_votes(slow: str, seed: int) -> None:
    """SlowSendVote, SlowRecvVote: requests and votes that take most of an election timeout still elect somebody."""
    lab = Lab(5, seed)
    work = Work(lab)
    lab.slow_voters = dict.fromkeys(slow, lab.settings.election_timeout * 0.4)
    for _ in range(5):
        leader = lab.leader(within=20)
        work.some()
        lab.unplug(leader)
        lab.leader(within=20)
        work.some()
        lab.plug(leader)
    work.end()


@seeds
def test_without_trouble_there_is_none(seed: int) -> None:
    """NoIssueSanity."""
    lab = Lab(5, seed)
    work = Work(lab)
    leader, term = lab.leader(), lab[lab.leader()].replica.term
    work.some(50)
    assert (lab.leader(), lab[leader].replica.term) == (leader, term)
    work.end()
