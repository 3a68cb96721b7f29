"""Logs of every feature level with what came of them, kept for all later versions (rule 93).

`python -m tests.state.recording` writes `recorded/level-<SUPPORTED>.jsonl` for the newest level, once: a file that is
there is never written again, because it says what servers of released versions hold in their states. Each line is one
entry: index, term, kind of command, the entry (hexadecimal), its result (JSON) and the digest of the state behind it.

A new level adds to `STORY` whatever is new, in every way it can end, and records. See `recorded/README.md`.
"""

import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import msgspec

from coordd.errors import UnsupportedError
from coordd.messages import command as c
from coordd.messages import levels
from coordd.messages.entry import COMMAND, NOOP_ENTRY, decode_command, encode_configuration
from coordd.state.machine import Machine
from coordd.types import Configuration, Member, ServerId, Term
from tests.state.test_properties import random_command, random_steps
from tests.state.world import SECOND, entry

FOLDER = Path(__file__).with_name("recorded")
RULES = '{"key": {"web/": "write", "web/secret": "deny"}, "service": {"": "read"}, "operator": "read"}'
SERVERS = tuple(
    Member(ServerId(f"{name}#{'0' * 32}"), f"10.0.0.{n}:8310", f"10.0.0.{n}:8311", name * 40, voter=name != "c")
    for n, name in enumerate("abc", start=1)
)

KEYS: list[c.Command] = [
    c.KvPut("a", b"1", flags=7),
    c.KvPut("a", b"2", flags=(1 << 64) - 1),
    c.KvPut("a", b"3", cas=0),
    c.KvPut("b/1", bytes(range(256)), cas=0),
    c.KvPut("b/1", b"", cas=6),
    c.KvPut("", b"no key"),
    c.KvPut("k" * 512, b"the longest"),
    c.KvPut("k" * 513, b"too long"),
    c.KvPut("ключ", "значение".encode()),
    c.KvDelete("a", cas=1),
    c.KvDelete("a"),
    c.KvDelete("a"),
    c.KvPut("a", b"again"),
    c.KvPut("b/2", b""),
    c.KvDeleteTree("b/"),
    c.KvDeleteTree("nothing"),
]
CATALOG: list[c.Command] = [
    c.Register(
        "n1",
        "10.1.0.1",
        node_id="11111111-1111-1111-1111-111111111111",
        meta={"rack": "1", "os": "linux"},
        tagged_addresses={"wan": "192.0.2.1"},
        services=(
            c.ServiceDefinition(
                "web1", "web", ("v1", "blue"), "10.1.0.9", 80, {"m": "x"}, {"wan": ("192.0.2.1", 8080)}, 5, 2, True
            ),
            c.ServiceDefinition("db", "Db"),
        ),
        checks=(
            c.CheckDefinition("mem", "Memory", "passing", output="12 %", notes="node", type="script"),
            c.CheckDefinition(
                "web1:http", "HTTP", "warning", "web1", "slow", type="http", interval="10s", timeout="1s"
            ),
        ),
    ),
    c.Register("n2", "10.1.0.2"),
    c.Register("n2", "10.1.0.22", skip_node_update=True, services=(c.ServiceDefinition("web2", "web"),)),
    c.Register("", "10.1.0.3"),
    c.Register("n3", "10.1.0.3", checks=(c.CheckDefinition("x", "X", service_id="missing"),)),
    c.SetNodeStatus(2, (c.NodeStatus("n1", "passing", "beats"), c.NodeStatus("n2", "critical", "silent"))),
    c.SetNodeStatus(1, (c.NodeStatus("n1", "critical"),)),
    c.Deregister("n1", check_id="mem"),
    c.Deregister("n1", service_id="db"),
    c.Deregister("nobody"),
    c.Register("N1", "10.1.0.1", services=(c.ServiceDefinition("web1", "web", ("v2",)),)),
]
SESSIONS: list[c.Command] = [
    c.CreateSession("s1", "n1", "first", ttl_ms=10_000, lock_delay_ms=2_000),
    c.CreateSession("s2", "", ttl_ms=10_000, lock_delay_ms=0, behavior="delete", node_checks=()),
    c.CreateSession("s3", "n1", node_checks=("serfHealth",), service_checks=("web1:http",)),
    c.CreateSession("s1", "n1"),
    c.CreateSession("s4", "n2"),
    c.CreateSession("s4", "", ttl_ms=999, node_checks=()),
    c.CreateSession("s4", "n1", lock_delay_ms=120_000),
    c.KvPut("lock", b"held", acquire="s1"),
    c.KvPut("lock", b"not for you", acquire="s2"),
    c.KvPut("lock", b"not yours", release="s2"),
    c.KvPut("gone", b"with its session", acquire="s2"),
    c.KvPut("lock", b"free", release="s1"),
    c.KvPut("lock", b"again", acquire="s1"),
    c.KvPut("lock", b"nobody", acquire="s9"),
    c.DestroySession("s2"),
    c.DestroySession("s9"),
    c.ExpireSessions(1, (("s1", 1),)),
    c.ExpireSessions(2, (("s1", 1), ("s9", 1))),
]
LOCKS: list[c.Command] = [
    c.LockAcquire("l", "s1"),
    c.LockAcquire("l", "s3"),
    c.LockAcquire("l", "s3", wait_ms=60_000),
    c.LockAcquire("l", "s4", wait_ms=1_000),
    c.LockAcquire("l", "s1"),
    c.LockAcquire("l", "s9"),
    c.LockRelease("l", 1),
    c.LockCancel("l", "s9"),
    c.KvPut("fenced", b"late", fence=c.Fence("l", 1)),
    c.KvDelete("fenced", fence=c.Fence("l", 1)),
]
CLIENTS: list[c.Command] = [
    c.RegisterClient("by index"),
    c.RegisterClient("drawn", 4_611_686_018_427_387_904),
    c.RegisterClient("drawn", 4_611_686_018_427_387_904),
    c.RegisterClient("x" * 257),
    c.ExpireClients(1, (4_611_686_018_427_387_904,)),
    c.ExpireClients(2, (4_611_686_018_427_387_904, 17)),
    c.ExpireClients(2, ()),
]
ACL: list[c.Command] = [
    c.AclPutPolicy("web", RULES, "for the web"),
    c.AclPutPolicy("web", "{}"),
    c.AclPutPolicy("bad", "{"),
    c.AclPutPolicy("bad name!", "{}"),
    c.AclPutToken("t1", b"\1" * 32, ("web",), "one"),
    c.AclPutToken("t1", b"", ("web",), "renamed"),
    c.AclPutToken("t2", b"\1" * 32),
    c.AclPutToken("t3", b"\3" * 32, ("missing",)),
    c.AclPutToken("t3", b"short"),
    c.AclPutToken("t4", b"\4" * 32, tuple(f"p{n}" for n in range(65))),
    c.AclBootstrap("root", b"\2" * 32),
    c.AclBootstrap("again", b"\5" * 32),
    c.AclDeletePolicy("web"),
    c.AclDeletePolicy("web"),
    c.AclDeleteToken("t1"),
    c.AclDeleteToken("t1"),
    c.AclDeletePolicy("web"),
]
LEVELS: list[c.Command] = [c.RaiseFeatureLevel(1, levels.SUPPORTED), c.RaiseFeatureLevel(2, levels.SUPPORTED)]
STORY = [*LEVELS, *KEYS, *CATALOG, *SESSIONS, *LOCKS, *CLIENTS, *ACL]
"""Run in term 2 from index 4 on, half a second apart."""


def index_of(command: c.Command) -> int:
    return 4 + STORY.index(command)


STORY += [
    c.KvPut("fenced", b"in time", fence=c.Fence("l", index_of(c.LockAcquire("l", "s1")))),
    c.LockRelease("l", index_of(c.LockAcquire("l", "s1"))),  # s4 has waited too long, s3 gets it
    c.LockAcquire("l", "s1", wait_ms=60_000),
    c.LockCancel("l", "s1"),
    c.LockAcquire("l", "s1", wait_ms=60_000),
    c.DestroySession("s3"),
    c.ExpireSessions(2, (("s1", index_of(SESSIONS[0])),)),
    c.LockAcquire("l", "s4"),  # delayed
    c.KvPut("lock", b"delayed", acquire="s4"),
    c.Deregister("n1"),
]


class Line(msgspec.Struct, frozen=True):
    """One entry and what came of it."""

    index: int
    term: Term
    kind: str
    entry: str
    result: c.CommandResult | None
    digest: str


def log() -> Iterator[tuple[Term, bytes]]:
    """The story, then chance."""
    yield 1, encode_configuration(Configuration("c1", "recorded", SERVERS))
    yield 1, NOOP_ENTRY
    yield 2, NOOP_ENTRY
    time = 1_700_000_000 * SECOND
    for command in STORY:
        time += SECOND // 2
        yield 2, entry(command, time)
    joint = msgspec.structs.replace
    outgoing = (SERVERS[0].id, SERVERS[1].id)
    yield 3, encode_configuration(joint(Configuration("c1", "recorded", SERVERS), outgoing=outgoing))
    yield 3, entry(c.RegisterClient(id=2), time)
    yield 3, entry(c.RegisterClient(id=3), time)
    for command, (passed, client, number, below) in random_steps(random.Random(93), 400, random_command):
        time += passed * SECOND
        yield 3, entry(command, time, client, number, max(0, number - below))


def replay(entries: Iterable[tuple[Term, bytes]]) -> list[Line]:
    """What today's code makes of a log."""
    machine = Machine.open(":memory:")
    lines = []
    try:
        for index, (term, one) in enumerate(entries, start=1):
            (applied,) = machine.apply(index, [(term, one)])
            lines.append(Line(index, term, kind_of(one), one.hex(), applied.result, f"{machine.digest:032x}"))
        assert machine.verify()
    finally:
        machine.close()
    return lines


def kind_of(one: bytes) -> str:
    if one[0] != COMMAND:
        return "noop" if one == NOOP_ENTRY else "configuration"
    return type(c.command_decoder.decode(decode_command(one)[1])).__name__


def file_of(level: int) -> Path:
    return FOLDER / f"level-{level}.jsonl"


def load(path: Path) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]


def main() -> int:
    path = file_of(levels.SUPPORTED)
    if path.exists():
        print(f"{path} is there and is never written again: what it holds, released servers have in their states")
        return 1
    try:
        lines = replay(log())
    except UnsupportedError as error:
        print(error)
        return 1
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    kinds = {line.kind for line in lines}
    print(
        f"{path}: {len(lines)} entries, {len(kinds & {kind.__name__ for kind in get_args(c.Command)})} kinds of command"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
