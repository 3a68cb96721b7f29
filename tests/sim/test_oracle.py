"""The oracle believes what the log says, and nothing else."""

import pytest

from coordd.messages.command import (
    Command,
    CommandResult,
    CreateSession,
    Done,
    ExpireSessions,
    KvDelete,
    KvPut,
    LockAcquire,
    LockGrant,
    LockRelease,
    RegisterClient,
    encode,
)
from coordd.messages.entry import CommandHeader, encode_command
from coordd.messages.query import KvPair, KvPairs
from coordd.state.machine import Applied
from tests.sim.history import History
from tests.sim.ledger import Ledger
from tests.sim.linearizability import FOREVER, Operation
from tests.sim.oracle import Oracle, shown
from tests.sim.violation import Violation

TERM = 1


class Log:
    """Commands are committed and applied at once, a second apart."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.now = 0.0
        self.oracle = Oracle(self.ledger, lambda: self.now)

    def add(self, command: Command, result: CommandResult, client: int = 0, number: int = 0) -> int:
        self.now += 1.0
        self.ledger.committed.append(TERM)
        self.oracle.committed()
        index = self.ledger.commit
        header = CommandHeader(int(self.now * 1e9), client, number, number)
        entry = encode_command(header, encode(command))
        self.oracle.applied(index, [(TERM, entry)], [Applied(index, client, number, result)])
        return index


def test_results_must_be_those_of_the_model() -> None:
    log = Log()
    log.add(KvPut("k", b"1"), Done(1, version=1))
    log.add(KvPut("k", b"2", cas=1), Done(2, version=2))
    with pytest.raises(Violation, match="14: a command had another result"):
        log.add(KvPut("k", b"3", cas=1), Done(3, version=3))


def test_a_numbered_write_takes_effect_once_and_its_client_hears_of_that() -> None:
    log = Log()
    log.add(RegisterClient(), Done(1))
    log.add(KvPut("k", b"1"), Done(2, version=1), client=1, number=1)
    log.add(KvPut("k", b"1"), Done(2, version=1), client=1, number=1)
    log.oracle.told(1, 1, Done(2, version=1))
    with pytest.raises(Violation, match="13: a client heard of another result"):
        log.oracle.told(1, 1, Done(3, version=2))
    with pytest.raises(Violation, match="13: a command had another result"):
        log.add(KvPut("k", b"1"), Done(4, version=2), client=1, number=1)


def test_a_lock_is_granted_in_turn() -> None:
    log = Log()
    for number, name in enumerate(("a", "b", "c"), 1):
        log.add(CreateSession(name, "", ttl_ms=1000, lock_delay_ms=0, node_checks=()), Done(number))
    log.add(LockAcquire("q", "a"), LockGrant(4, token=4, holder="a"))
    log.add(LockAcquire("q", "b", 60_000), LockGrant(5, position=1, holder="a"))
    log.add(LockAcquire("q", "c", 60_000), LockGrant(6, position=2, holder="a"))
    log.add(LockRelease("q", 4), Done(7))
    log.oracle.saw(("lock", "q"), (("b", 7, ("c",)),), 7)
    with pytest.raises(Violation, match="14"):
        log.add(LockAcquire("q", "c", 60_000), LockGrant(8, token=7, holder="c"))


def test_a_read_shows_what_was_there_in_time() -> None:
    log = Log()
    log.add(KvPut("k", b"1"), Done(1, version=1))
    log.add(KvPut("x", b"1"), Done(2, version=1))
    log.add(KvDelete("k"), Done(3))
    found = shown(KvPairs((KvPair("k", b"1", 0, 1, 1, 0, 1),)))
    log.oracle.saw(("kv", "k"), found, lowest=2)
    log.oracle.saw(("kv", "k"), (), lowest=3)
    log.oracle.saw(("tree", "k"), found, lowest=2, highest=2)
    for subject in (("kv", "k"), ("tree", "k")):
        with pytest.raises(Violation, match="12: a read of what was not there"):
            log.oracle.saw(subject, found, lowest=3)
    with pytest.raises(Violation, match="12"):
        log.oracle.saw(("tree", "k"), (), lowest=2, highest=2)
    assert [log.oracle.commit_at(time) for time in (-1.0, 0.5, 1.0, 2.9, 9.0)] == [0, 0, 1, 2, 3]


def test_a_session_lives_as_long_as_it_was_promised() -> None:
    log = Log()
    log.oracle.promised("s", 0.9)
    log.add(CreateSession("s", "", ttl_ms=1000, lock_delay_ms=0, node_checks=()), Done(1))
    log.oracle.promised("s", 1.9)
    log.add(ExpireSessions(TERM + 1, (("s", 1),)), Done(2, ok=False))
    log.add(ExpireSessions(TERM, (("s", 1),)), Done(3))
    log.oracle.promised("s", 2.5)
    with pytest.raises(Violation, match="before its time"):
        log.oracle.promised("s", 3.5)


def test_nothing_is_written_under_an_old_token() -> None:
    history = History()
    history.granted("l", "a", 4)
    history.wrote_under("l", 4, 6)
    history.granted("l", "b", 7)
    history.judge(lambda key, value: None)
    history.wrote_under("l", 4, 8)
    with pytest.raises(Violation, match="14: written behind a newer grant"):
        history.judge(lambda key, value: None)


def test_a_put_that_nobody_heard_of_is_settled_by_the_log() -> None:
    history = History()
    history.add(("kv", "k"), Operation(0.0, FOREVER, ("put", b"1")))
    history.add(("kv", "k"), Operation(5.0, 6.0, ("get",), ()))
    history.judge(lambda key, value: None)
    with pytest.raises(Violation, match="12"):
        history.judge(lambda key, value: 4.0)
    log = Log()
    log.add(KvPut("k", b"1"), Done(1, version=1))
    assert (log.oracle.written_at("k", b"1"), log.oracle.written_at("k", b"2")) == (1.0, None)
