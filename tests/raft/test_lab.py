"""The tests of MIT's course 6.5840 (labs 3A to 3D), by their names there, for cores in memory and with several seeds.

Where the course counts remote calls, messages are counted; where it persists to a disk that never fails, a crash here also
takes what was not yet durable. COORDD_LAB_SEEDS=500 in the environment takes so many seeds for each.
"""

import os

import pytest

from coordd.raft import events
from coordd.raft.output import Role
from tests.raft.cluster import command
from tests.raft.lab import RELIABLE, REORDERING, UNRELIABLE, Lab, Wire

seeds = pytest.mark.parametrize("seed", range(int(os.environ.get("COORDD_LAB_SEEDS", "5"))))


def others(lab: Lab, name: str) -> list[str]:
    return [other for other in lab.names if other != name]


# --- 3A: elections ----------------------------------------------------------------------------------------------------


@seeds
def test_initial_election(seed: int) -> None:
    """TestInitialElection: a leader is elected, all agree on its term, and without failures nothing changes."""
    lab = Lab(3, seed)
    leader = lab.leader(within=2)
    term = lab[leader].replica.term
    lab.run(0.1)
    assert {lab[name].replica.term for name in lab.names} == {term}
    assert {lab[name].replica.leader for name in lab.names} == {leader}
    lab.run(3)
    assert (lab.leader(), lab[leader].replica.term) == (leader, term)


@seeds
def test_re_election(seed: int) -> None:
    """TestReElection: a leader that is gone is replaced; its return disturbs nobody; without a quorum nobody leads."""
    lab = Lab(3, seed)
    first = lab.leader()
    lab.unplug(first)
    second = lab.leader()
    assert second != first
    lab.plug(first)
    assert lab.leader() == second
    term = lab[second].replica.term
    lab.run(2)
    assert (lab.leader(), lab[second].replica.term) == (second, term)
    lab.unplug(second, others(lab, second)[0])
    lab.run(2)
    assert lab.leaders() == []
    lab.plug(others(lab, second)[0])
    lab.leader()
    lab.plug(second)
    lab.leader()


@seeds
def test_many_elections(seed: int) -> None:
    """TestManyElections: of seven servers any three are cut off, again and again."""
    lab = Lab(7, seed)
    lab.leader()
    for _ in range(10):
        away = lab.chance.sample(lab.names, 3)
        lab.unplug(*away)
        lab.leader()
        lab.plug(*away)
    lab.all_equal()


# --- 3B: agreement ----------------------------------------------------------------------------------------------------


@seeds
def test_basic_agree(seed: int) -> None:
    """TestBasicAgree: commands take their places one after the other; nothing is applied before it was proposed."""
    lab = Lab(3, seed)
    first = lab.agree("0", 3)
    assert lab.having(first + 1, "1") == 0
    assert lab.agree_on(["1", "2"], 3) == [first + 1, first + 2]


@seeds
def test_rpc_bytes(seed: int) -> None:
    """TestRPCBytes: each command travels to each follower once."""
    lab = Lab(3, seed)
    lab.agree("0", 3)
    before = lab.entry_bytes_sent
    texts = [letter * 5_000 for letter in "abcdefgh"]
    lab.agree_on(texts, 3)
    assert lab.entry_bytes_sent - before == 2 * sum(len(command(text)) for text in texts)


@seeds
def test_follower_failure(seed: int) -> None:
    """TestFollowerFailure: with one follower gone there is progress, with both there is none."""
    lab = Lab(3, seed)
    lab.agree("0", 3)
    leader = lab.leader()
    one, other = others(lab, leader)
    lab.unplug(one)
    lab.agree_on(["1", "2"], 2)
    lab.run(1)
    lab.agree("3", 2)
    lab.unplug(other)
    place = lab.propose_at(leader, "4")
    assert place is not None
    lab.run(2)
    assert lab.having(place[0], "4") == 0
    assert place[0] not in lab.checks.committed


@seeds
def test_leader_failure(seed: int) -> None:
    """TestLeaderFailure: the same, when it is the leader that goes."""
    lab = Lab(3, seed)
    lab.agree("0", 3)
    first = lab.leader()
    lab.unplug(first)
    lab.agree_on(["1", "2"], 2)
    second = lab.leader()
    lab.unplug(second)
    committed = max(lab.checks.committed)
    for name in lab.names:
        lab.propose_at(name, "lost")
    lab.run(2)
    assert max(lab.checks.committed) == committed


@seeds
def test_fail_agree(seed: int) -> None:
    """TestFailAgree: a follower that comes back is brought up to date."""
    lab = Lab(3, seed)
    lab.agree("0", 3)
    away = others(lab, lab.leader())[0]
    lab.unplug(away)
    lab.agree_on(["1", "2"], 2)
    lab.run(1)
    lab.agree_on(["3", "4"], 2)
    lab.plug(away)
    lab.agree("5", 3)
    lab.all_equal()


@seeds
def test_fail_no_agree(seed: int) -> None:
    """TestFailNoAgree: with three of five gone nothing is committed, and what waited may or may not be there later."""
    lab = Lab(5, seed)
    lab.agree("0", 5)
    leader = lab.leader()
    away = others(lab, leader)[:3]
    lab.unplug(*away)
    place = lab.propose_at(leader, "20")
    assert place is not None
    lab.run(2)
    assert place[0] not in lab.checks.committed
    lab.plug(*away)
    lab.agree("30", 5)
    lab.all_equal()


@seeds
def test_concurrent_starts(seed: int) -> None:
    """TestConcurrentStarts: what is proposed at one moment takes places of its own in one term, and all is committed."""
    lab = Lab(3, seed)
    leader = lab.leader()
    places = [lab.propose_at(leader, str(number)) for number in range(5)]
    assert None not in places
    assert len({place[0] for place in places if place}) == 5
    assert len({place[1] for place in places if place}) == 1
    lab.run(1)
    assert all(lab.having(place[0], str(number)) == 3 for number, place in enumerate(places) if place)


@seeds
def test_rejoin(seed: int) -> None:
    """TestRejoin: of leaders that were cut off in turn, what was committed stays and what was not goes."""
    lab = Lab(3, seed)
    lab.agree("101", 3)
    first = lab.leader()
    lab.unplug(first)
    for number in range(3):
        lab.propose_at(first, f"lost {number}")
    lab.agree("103", 2)
    second = lab.leader()
    lab.unplug(second)
    lab.plug(first)
    lab.agree("104", 2)
    lab.plug(second)
    lab.agree("105", 3)
    lab.all_equal()
    assert not [entry for entry in lab.committed_texts() if b"lost" in entry]


@seeds
def test_backup(seed: int) -> None:
    """TestBackup: logs that differ over many entries agree quickly."""
    lab = Lab(5, seed)
    lab.agree("0", 5)
    first = lab.leader()
    partner = others(lab, first)[0]
    majority = [name for name in lab.names if name not in (first, partner)]
    lab.unplug(*majority)
    for number in range(50):
        lab.propose_at(first, f"lost {number}")
    lab.run(0.5)
    lab.unplug(first, partner)
    lab.plug(*majority)
    lab.agree_on([f"kept {number}" for number in range(5)], 3)
    second = lab.leader()
    away = next(name for name in majority if name != second)
    lab.unplug(away)
    for number in range(50):
        lab.propose_at(second, f"lost too {number}")
    lab.run(0.5)
    lab.unplug(*lab.names)
    lab.plug(first, partner, away)
    lab.agree_on([f"kept, too {number}" for number in range(5)], 3)
    lab.plug(*lab.names)
    before = lab.sent_by_kind["AppendEntries"]
    lab.agree("last", 5)
    lab.all_equal()
    assert lab.sent_by_kind["AppendEntries"] - before < 60, "at most one probe for each term"
    assert not [entry for entry in lab.committed_texts() if b"lost" in entry]


@seeds
@pytest.mark.parametrize("count", [3, 5])
def test_count(count: int, seed: int) -> None:
    """TestCount: how many messages it takes to elect, to agree, and to do nothing."""
    lab = Lab(count, seed)
    followers = count - 1
    leader = lab.leader()
    lab.run(0.05)
    election = lab.sent_by_kind.total()
    # Asking ahead, asking, answers, the first heartbeats and the first entry; three times that where two stood at once.
    assert 8 * followers <= election <= 30 * followers
    before = lab.sent_by_kind.copy()
    for number in range(10):
        lab.propose_at(leader, str(number))
    lab.run(0.04)
    agreement = lab.sent_by_kind - before
    assert lab.having(lab[leader].replica.log.last, "9") == count
    assert agreement["AppendEntries"] <= 20 * followers, "each command, and word of each commit"
    assert agreement["AppendResponse"] <= agreement["AppendEntries"]
    before = lab.sent_by_kind.copy()
    output = lab.step(leader, events.Proposed([command(str(number)) for number in range(100)]))
    assert output.proposal
    lab.run(0.04)
    batch = lab.sent_by_kind - before
    assert batch["AppendEntries"] <= 3 * followers, "a batch is one append, then word of its commit"
    before = lab.sent_by_kind.copy()
    lab.run(1.2)
    idle = lab.sent_by_kind - before
    assert set(idle) == {"Heartbeat", "HeartbeatResponse"}
    assert idle.total() <= 2 * followers * (1.2 / lab.settings.heartbeat_interval + 1)


# --- 3C: crashes, losses, reordering ----------------------------------------------------------------------------------


@seeds
def test_persist_1(seed: int) -> None:
    """TestPersist1: everybody, the leader, or a follower is started again."""
    lab = Lab(3, seed)
    lab.agree("11", 3)
    for name in lab.names:
        lab.crash(name)
    lab.start(*lab.names)
    lab.agree("12", 3)
    first = lab.leader()
    lab.crash(first)
    lab.start(first)
    lab.agree("13", 3)
    second = lab.leader()
    lab.crash(second)
    lab.agree("14", 2)
    lab.start(second)
    lab.agree("15", 3)
    follower = others(lab, lab.leader())[0]
    lab.crash(follower)
    lab.agree("16", 2)
    lab.start(follower)
    lab.agree("17", 3)
    lab.all_equal()


@seeds
def test_persist_2(seed: int) -> None:
    """TestPersist2: minorities and majorities come and go."""
    lab = Lab(5, seed)
    for number in range(5):
        lab.agree(f"{number} all", 5)
        leader = lab.leader()
        one, two, three, four = others(lab, leader)
        lab.crash(one)
        lab.crash(two)
        lab.agree(f"{number} three", 3)
        for name in (leader, three, four):
            lab.crash(name)
        lab.start(one, two)
        lab.run(1)
        lab.start(three)
        lab.agree(f"{number} other three", 3)
        lab.start(leader, four)
    lab.agree("last", 5)
    lab.all_equal()


@seeds
def test_persist_3(seed: int) -> None:
    """TestPersist3: a leader and a follower crash, the leader alone returns, and the second follower was cut off."""
    lab = Lab(3, seed)
    lab.agree("101", 3)
    leader = lab.leader()
    one, other = others(lab, leader)
    lab.unplug(other)
    lab.agree("102", 2)
    lab.crash(leader)
    lab.crash(one)
    lab.plug(other)
    lab.start(leader)
    lab.agree("103", 2)
    lab.start(one)
    lab.agree("104", 3)
    lab.all_equal()


@seeds
def test_figure_8(seed: int) -> None:
    """TestFigure8: leaders crash just before or after their entries are committed."""
    lab = Lab(5, seed)
    lab.agree("first", 5)
    for number in range(200):
        for name in lab.leaders():
            lab.propose_at(name, str(number))
        lab.run(lab.chance.uniform(0, 0.5) if lab.chance.random() < 0.1 else lab.chance.uniform(0, 0.013))
        for name in lab.leaders():
            lab.crash(name)
        down = [name for name in lab.names if not lab[name].up]
        if len(down) > 2:
            lab.start(lab.chance.choice(down))
    lab.heal()
    lab.agree("last", 5)
    lab.all_equal()


@seeds
def test_unreliable_agree(seed: int) -> None:
    """TestUnreliableAgree: many commands at a time over lines that lose and double."""
    lab = Lab(5, seed, UNRELIABLE)
    for round_ in range(10):
        for name in lab.leaders():
            for number in range(4):
                lab.propose_at(name, f"{round_}.{number}")
        lab.agree(str(round_), 1)
    lab.wire = RELIABLE
    lab.agree("last", 5)
    lab.all_equal()


@seeds
def test_figure_8_unreliable(seed: int) -> None:
    """TestFigure8Unreliable: leaders are cut off, and messages overtake each other."""
    lab = Lab(5, seed, UNRELIABLE)
    lab.agree("first", 1)
    for number in range(200):
        if number == 50:
            lab.wire = REORDERING
        for name in lab.leaders():
            lab.propose_at(name, str(number))
        lab.run(lab.chance.uniform(0, 0.4) if lab.chance.random() < 0.2 else lab.chance.uniform(0, 0.013))
        for name in lab.leaders():
            if lab.chance.random() < 0.5:
                lab.unplug(name)
        if len(lab.unplugged) > 2:
            lab.plug(lab.chance.choice(sorted(lab.unplugged)))
    lab.heal()
    lab.agree("last", 5)
    lab.all_equal()


@seeds
@pytest.mark.parametrize("wire", [RELIABLE, UNRELIABLE], ids=["reliable", "unreliable"])
def test_churn(wire: Wire, seed: int) -> None:
    """TestReliableChurn, TestUnreliableChurn: servers crash, start and are cut off all the time; what a client was told
    is committed stays, in the order in which it was told."""
    lab = Lab(5, seed, wire)
    told: list[str] = []
    for number in range(60):
        chosen = lab.chance.choice(lab.names)
        if lab.chance.random() < 0.2 and len(lab.reachable) > 3:
            lab.unplug(chosen)
        elif lab.chance.random() < 0.5:
            lab.plug(chosen)
        if not lab[chosen].up:
            lab.start(chosen)
        elif lab.chance.random() < 0.2 and len(lab.reachable) > 3:
            lab.crash(chosen)
        lab.agree(f"{number}.", 1, within=20)
        told.append(f"{number}.")
        lab.run(lab.chance.uniform(0, 0.3))
    lab.heal()
    lab.agree("last", 5)
    lab.all_equal()
    entries = lab.committed_texts()
    places = [entries.index(command(text)) for text in told]
    assert places == sorted(places)


@seeds
@pytest.mark.parametrize("count", [3, 5, 7])
def test_liveness_after_heal(count: int, seed: int) -> None:
    """Whatever happened, ten election timeouts after everything works again there is one leader, everybody has everything,
    and a new command is committed."""
    lab = Lab(count, seed, REORDERING, compact_every=15)
    for number in range(100):
        name = lab.chance.choice(lab.names)
        match lab.chance.randrange(6):
            case 0 if lab[name].up:
                lab.crash(name)
            case 1 | 2 if not lab[name].up:
                lab.start(name)
            case 3:
                lab.unplug(name)
            case 4:
                lab.plug(name)
            case _:
                lab.propose_at(name, str(number))
        lab.run(lab.chance.uniform(0, 0.1))
    lab.heal()
    healed = lab.now
    lab.all_equal()
    lab.agree("last", count)
    assert lab.now - healed < 10 * lab.settings.election_timeout


# --- 3D: snapshots ----------------------------------------------------------------------------------------------------


def snapshots(lab: Lab, *, cut: bool, crash: bool) -> None:
    """A follower misses so much that the log has forgotten it, and sometimes the leader goes too."""
    lab.agree("first", len(lab.names))
    for number in range(8):
        leader = lab.leader()
        victim, sender = (others(lab, leader)[0], leader) if number % 3 else (leader, others(lab, leader)[0])
        if cut:
            lab.unplug(victim)
            lab.agree(f"{number} cut", len(lab.names) - 1)
        if crash:
            lab.crash(victim)
            lab.agree(f"{number} down", len(lab.names) - 1)
        if lab[sender].role is Role.LEADER:
            lab.agree_on([f"{number}.{more}" for more in range(lab.chance.randrange(4, 15))], 1)
        lab.agree(f"{number} before", len(lab.names) - 1)
        if cut:
            lab.plug(victim)
        if crash:
            lab.start(victim)
        lab.agree(f"{number} after", len(lab.names))
    lab.wire = RELIABLE
    lab.all_equal()
    assert all(lab[name].disk.base.index > 0 for name in lab.names)
    assert all(len(lab[name].disk.entries) <= 2 * lab.compact_every for name in lab.names)


def test_snapshot_basic() -> None:
    """TestSnapshotBasic: logs stay short."""
    lab = Lab(3, 0, compact_every=10)
    lab.agree_on([str(number) for number in range(50)], 3)
    lab.run(0.1)
    assert all(lab[name].disk.base.index >= 40 for name in lab.names)
    assert all(len(lab[name].disk.entries) <= 11 for name in lab.names)


@seeds
@pytest.mark.parametrize("wire", [RELIABLE, UNRELIABLE], ids=["reliable", "unreliable"])
@pytest.mark.parametrize(("cut", "crash"), [(True, False), (False, True)], ids=["cut", "crashed"])
def test_snapshot_install(cut: bool, crash: bool, wire: Wire, seed: int) -> None:
    """TestSnapshotInstall, …InstallUnreliable, …InstallCrash, …InstallUnCrash."""
    lab = Lab(3, seed, wire, compact_every=10)
    snapshots(lab, cut=cut, crash=crash)
    assert lab.sent_by_kind["InstallSnapshot"] > 0


@seeds
def test_snapshot_all_crash(seed: int) -> None:
    """TestSnapshotAllCrash: everybody is started again from a snapshot and what stands behind it."""
    lab = Lab(3, seed, compact_every=10)
    for number in range(5):
        lab.agree_on([f"{number}.{more}" for more in range(lab.chance.randrange(10, 20))], 3)
        last = lab.agree(f"{number} last", 3)
        for name in lab.names:
            lab.crash(name)
        lab.start(*lab.names)
        assert lab.agree(f"{number} again", 3) > last
    lab.all_equal()


def test_snapshot_init() -> None:
    """TestSnapshotInit: a server that was started from a snapshot and wrote nothing since still has it after the next crash."""
    lab = Lab(3, 0, compact_every=10)
    lab.agree_on([str(number) for number in range(15)], 3)
    for _ in range(2):
        for name in lab.names:
            lab.crash(name)
        lab.start(*lab.names)
    assert all(lab[name].replica.log.base_index >= 10 for name in lab.names)
    lab.agree("one more", 3)
    for name in lab.names:
        lab.crash(name)
    lab.start(*lab.names)
    lab.agree("last", 3)
    lab.all_equal()
