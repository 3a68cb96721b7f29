"""Properties over random logs: batches do not matter, a plain model agrees, nothing makes apply fail."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st

from coordd.acl.authorizer import ALLOW_ALL
from coordd.messages import levels
from coordd.messages.command import (
    AclBootstrap,
    AclDeletePolicy,
    AclDeleteToken,
    AclPutPolicy,
    AclPutToken,
    CheckDefinition,
    Command,
    CreateSession,
    Deregister,
    DestroySession,
    ExpireClients,
    ExpireSessions,
    Failure,
    Fence,
    KvDelete,
    KvDeleteTree,
    KvPut,
    LockAcquire,
    LockCancel,
    LockRelease,
    NodeStatus,
    RaiseFeatureLevel,
    Register,
    RegisterClient,
    ServiceDefinition,
    SetNodeStatus,
)
from coordd.messages.entry import NOOP_ENTRY
from coordd.messages.query import KvList, KvPairs, ListLocks, Locks
from coordd.state.limits import Limits
from coordd.state.machine import Applied, Machine
from tests.state.model import Model, plain
from tests.state.world import SECOND, entry, rows

NAMES = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from(["k", "k/1", "k/2", "l"])
VALUES = st.sampled_from([b"", b"1", b"2"])
SMALL = st.integers(0, 40)
STATUS = st.sampled_from(["passing", "warning", "critical"])
SESSIONS = st.builds(
    CreateSession,
    NAMES,
    st.just(""),
    ttl_ms=st.just(5_000),
    lock_delay_ms=st.sampled_from([0, 3_000]),
    behavior=st.sampled_from(["release", "delete"]),
    node_checks=st.just(()),
)
FENCES = st.none() | st.builds(Fence, NAMES, SMALL)
MODELLED: list[st.SearchStrategy[Command]] = [
    st.builds(KvPut, KEYS, VALUES, st.integers(0, 1), fence=FENCES),
    st.builds(KvPut, KEYS, VALUES, cas=SMALL),
    st.builds(KvPut, KEYS, VALUES, acquire=NAMES),
    st.builds(KvPut, KEYS, VALUES, release=NAMES),
    st.builds(KvDelete, KEYS, st.none() | SMALL, FENCES),
    st.builds(KvDeleteTree, st.sampled_from(["", "k/", "x"])),
    SESSIONS,
    st.builds(DestroySession, NAMES),
    st.builds(LockAcquire, NAMES, NAMES, st.sampled_from([0, 2_000, 60_000])),
    st.builds(LockRelease, NAMES, SMALL),
    st.builds(LockCancel, NAMES, NAMES),
]
SERVICES = st.builds(ServiceDefinition, NAMES, NAMES, st.sampled_from([(), ("x",)]))
CHECKS = st.builds(CheckDefinition, NAMES, NAMES, STATUS, st.sampled_from(["", "a", "b"]))
OTHERS: list[st.SearchStrategy[Command]] = [
    st.builds(Register, NAMES, NAMES, services=st.tuples(SERVICES), checks=st.tuples(CHECKS)),
    st.builds(Deregister, NAMES, st.sampled_from(["", "a"]), st.sampled_from(["", "b"])),
    st.builds(SetNodeStatus, st.integers(1, 2), st.tuples(st.builds(NodeStatus, NAMES, STATUS))),
    st.builds(CreateSession, NAMES, NAMES, node_checks=st.sampled_from([(), ("serfHealth",), ("a",)])),
    st.builds(ExpireSessions, st.integers(1, 2), st.tuples(st.tuples(NAMES, SMALL))),
    st.builds(RegisterClient),
    st.builds(ExpireClients, st.just(1), st.tuples(SMALL)),
    st.builds(AclBootstrap, NAMES, st.just(bytes(32))),
    st.builds(AclPutPolicy, NAMES, st.just("{}")),
    st.builds(AclDeletePolicy, NAMES),
    st.builds(AclPutToken, NAMES, st.sampled_from([b"", bytes(32), b"\1" * 32]), st.tuples(NAMES)),
    st.builds(AclDeleteToken, NAMES),
]
HEADERS = st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 5), st.integers(0, 3))
"""Seconds that pass, client, number, how far below it the lowest is."""


def make_log(steps: Sequence[tuple[Command, tuple[int, int, int, int]]]) -> list[tuple[int, bytes]]:
    time = 0
    log = [(1, NOOP_ENTRY), (1, entry(RegisterClient())), (1, entry(RegisterClient()))]
    for command, (passed, client, number, below) in steps:
        time += passed * SECOND
        log.append((1, entry(command, time, client, number, max(0, number - below))))
    return log


def applied_in(log: Sequence[tuple[int, bytes]], sizes: Sequence[int]) -> tuple[Machine, list[Applied]]:
    """Apply the log in batches of these sizes, over and over."""
    machine = Machine.open(":memory:", limits=Limits(topics=8, replies_for_one_client=3))
    results: list[Applied] = []
    turn = 0
    while machine.applied < len(log):
        size = sizes[turn % len(sizes)]
        turn += 1
        results += machine.apply(machine.applied + 1, log[machine.applied : machine.applied + size])
    return machine, results


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.one_of(*MODELLED, *OTHERS), HEADERS), max_size=40),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
)
def test_how_the_log_is_cut_does_not_matter(steps: list[Any], sizes: list[int]) -> None:
    log = make_log(steps)
    one, one_by_one = applied_in(log, [1])
    other, in_batches = applied_in(log, sizes)
    assert in_batches == one_by_one
    assert rows(other) == rows(one)
    assert other.digest == one.digest
    assert one.verify()
    assert other.verify()
    assert other.row_counts == {name: len(found) for name, found in rows(other).items()}
    one.close()
    other.close()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.one_of(*MODELLED), HEADERS), max_size=40))
def test_a_plain_model_agrees(steps: list[tuple[Command, tuple[int, int, int, int]]]) -> None:
    """Keys, locks and numbered writes, against a model of dicts and lists (model.py)."""
    compare_with_model(steps)


def test_a_plain_model_agrees_over_a_long_log() -> None:
    chance = seeded()
    compare_with_model(random_steps(chance, 2_000, random_modelled))


def compare_with_model(steps: Sequence[tuple[Command, tuple[int, int, int, int]]]) -> None:
    machine = Machine.open(":memory:")
    model = Model()
    log = make_log(steps)
    machine.apply(1, log[:3])
    for client in (2, 3):
        model.clients[client] = {}
    time = 0
    for (term, one), (command, (passed, client, number, below)) in zip(log[3:], steps, strict=True):
        time += passed * SECOND
        (applied,) = machine.apply(machine.applied + 1, [(term, one)])
        expected = model.apply(applied.index, time, command, client, number, max(0, number - below))
        assert plain(applied.result) == expected
        pairs = machine.query(KvList(""), ALLOW_ALL).value
        assert isinstance(pairs, KvPairs)
        assert {
            pair.key: (pair.value, pair.flags, pair.modify_index, pair.lock_index, pair.version, pair.session)
            for pair in pairs.pairs
        } == {key: pair.shown() for key, pair in model.pairs.items()}
        locks = machine.query(ListLocks(), ALLOW_ALL).value
        assert isinstance(locks, Locks)
        shown = {lock.name: (lock.holder, lock.token, [w.session for w in lock.waiters]) for lock in locks.locks}
        assert shown == model.shown_locks()
    assert machine.verify()
    machine.close()


ANY_INT = st.integers(-(1 << 63), (1 << 64) - 1)
ANY_TEXT = st.text(max_size=8) | NAMES | st.sampled_from(["", "\0", "k" * 600])


def anything(declared: Any) -> st.SearchStrategy[Any]:
    """Any value that this type allows on the wire."""
    plain_types = {int: ANY_INT, str: ANY_TEXT, bytes: st.binary(max_size=40), bool: st.booleans(), NoneType: st.none()}
    if declared in plain_types:
        return plain_types[declared]
    origin, of = get_origin(declared), get_args(declared)
    if origin is Literal:
        return st.sampled_from(of)
    if origin is dict:
        return st.dictionaries(anything(of[0]), anything(of[1]), max_size=3)
    if origin is tuple and of[-1] is Ellipsis:
        return st.lists(anything(of[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(anything, of))
    if of:
        return st.one_of(*map(anything, of))
    return st.builds(declared, **{name: anything(kind) for name, kind in get_type_hints(declared).items()})


def known(command: Command) -> bool:
    """What raises the level beyond this version is not for this version to apply (test_levels.py)."""
    return not isinstance(command, RaiseFeatureLevel) or command.level <= levels.SUPPORTED


@settings(max_examples=150, deadline=None)
@given(
    commands=st.lists(
        st.tuples(
            st.one_of(*map(anything, get_args(Command)), *MODELLED, *OTHERS).filter(known),
            st.integers(-(1 << 63), (1 << 63) - 1),
            st.integers(0, 3) | st.integers(0, (1 << 64) - 1),
            st.integers(0, (1 << 64) - 1),
            st.integers(0, (1 << 64) - 1),
        ),
        max_size=12,
    )
)
def test_no_command_makes_apply_fail(commands: list[tuple[Command, int, int, int, int]]) -> None:
    machine = Machine.open(":memory:")
    machine.apply(1, [(1, entry(RegisterClient()))])
    for command, time, client, number, lowest in commands:
        (applied,) = machine.apply(machine.applied + 1, [(1, entry(command, time, client, number, lowest))])
        assert applied.result is not None
        if isinstance(applied.result, Failure):  # kept as a reply, so it must read the same under every Python
            assert applied.result.text.isascii()
        machine.required(command)
    assert machine.verify()
    machine.close()


def test_a_long_random_log() -> None:
    """Many more commands than hypothesis tries, in batches of all sizes."""
    log = make_log(random_steps(seeded(), 3_000, random_command))
    one, results = applied_in(log, [1])
    other, in_batches = applied_in(log, [256, 7, 64])
    assert in_batches == results
    assert rows(one) == rows(other)
    assert one.digest == other.digest
    assert one.verify()
    one.close()
    other.close()


def seeded() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    return random.Random(seed)


def random_steps(
    chance: random.Random, count: int, draw: Callable[[random.Random], Command]
) -> list[tuple[Command, tuple[int, int, int, int]]]:
    """Commands of two clients and of none, one in five sent again."""
    steps: list[tuple[Command, tuple[int, int, int, int]]] = []
    numbers = {0: 0, 2: 1, 3: 1}
    for _ in range(count):
        client = chance.choice([0, 2, 3])
        if client and chance.random() < 0.8:
            numbers[client] += 1
        steps.append((draw(chance), (chance.choice([0, 0, 0, 1, 2]), client, numbers[client], 0)))
    return steps


def random_modelled(chance: random.Random) -> Command:
    name, other = chance.choice("abcd"), chance.choice("abcd")
    session = CreateSession(name, "", ttl_ms=5_000, lock_delay_ms=chance.choice([0, 2_000]), node_checks=())
    fence = Fence(name, chance.randrange(2_000)) if chance.random() < 0.5 else None
    wait = chance.choice([0, 2_000, 5_000, 60_000])
    lock = chance.choice("xy")
    choices: list[Command] = [
        KvPut(name, chance.choice([b"", b"1"]), fence=fence),
        KvPut(name, b"", acquire=other),
        KvPut(name, b"", release=other),
        KvDelete(name),
        session,
        session,
        session,
        DestroySession(name),
        LockAcquire(lock, name, wait),
        LockAcquire(lock, other, 60_000),
        LockAcquire(lock, name, 60_000),
        LockCancel(lock, name),
    ]
    return chance.choice(choices)


def random_command(chance: random.Random) -> Command:
    name, other = chance.choice("abcd"), chance.choice("abcd")
    if chance.random() < 0.8:
        return random_modelled(chance)
    if chance.random() < 0.5:
        return Deregister(name)
    return Register(name, other, services=(ServiceDefinition(other, name),))


DIGEST_PROGRAM = """
import random
from tests.state.test_properties import applied_in, make_log, random_command, random_steps
machine, _ = applied_in(make_log(random_steps(random.Random(7), 500, random_command)), [50])
print(machine.digest)
machine.close()
"""


def test_the_order_of_sets_does_not_matter() -> None:
    """Python draws another order of sets in each process; the state must not notice."""
    digests = set()
    for hash_seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", DIGEST_PROGRAM],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        digests.add(ran.stdout)
    assert len(digests) == 1
