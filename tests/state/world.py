"""A machine with a log of its own: what the tests of the state speak to."""

from typing import Any

from coordd.acl.authorizer import ALLOW_ALL, Authorizer
from coordd.messages.command import (
    Command,
    CommandResult,
    CreateSession,
    Done,
    Failure,
    LockGrant,
    NodeStatus,
    Register,
    SetNodeStatus,
    encode,
)
from coordd.messages.entry import CommandHeader, encode_command
from coordd.messages.query import Query, QueryResult
from coordd.state.limits import Limits
from coordd.state.machine import Answer, Machine

SECOND = 1_000_000_000


def entry(command: Command, time: int = 0, client: int = 0, number: int = 0, lowest: int = 0) -> bytes:
    return encode_command(CommandHeader(time, client, number, lowest), encode(command))


class World:
    """Applies one command at a time, at the index behind the last, in term 1, and remembers the log."""

    def __init__(self, path: str = ":memory:", limits: Limits | None = None) -> None:
        self.machine = Machine.open(path, limits=limits)
        self.time = SECOND
        self.term = 1
        self.log: list[tuple[int, bytes]] = []

    @property
    def index(self) -> int:
        return self.machine.applied

    def run(self, command: Command, client: int = 0, number: int = 0, lowest: int = 0) -> CommandResult:
        one = entry(command, self.time, client, number, lowest or number)
        self.log.append((self.term, one))
        (applied,) = self.machine.apply(self.machine.applied + 1, [(self.term, one)])
        assert (applied.index, applied.client, applied.number) == (self.machine.applied, client, number)
        assert applied.result is not None
        return applied.result

    def done(self, command: Command) -> Done:
        """The command took effect."""
        result = self.run(command)
        assert isinstance(result, Done), result
        assert result.ok, result
        return result

    def refused(self, command: Command) -> None:
        """The command's precondition did not hold, and nothing but the position in the log changed."""
        before = self.content()
        assert self.run(command) == Done(self.index, ok=False)
        assert self.content() == before

    def failed(self, command: Command, code: str = "invalid") -> str:
        """The command was wrong and changed nothing; returns the sentence."""
        before = self.content()
        result = self.run(command)
        assert isinstance(result, Failure), result
        assert result.code == code, result
        assert result.text
        assert self.content() == before
        return result.text

    def grant(self, command: Command) -> LockGrant:
        result = self.run(command)
        assert isinstance(result, LockGrant), result
        return result

    def ask(self, query: Query, authorizer: Authorizer = ALLOW_ALL) -> Answer:
        return self.machine.query(query, authorizer)

    def value(self, query: Query, authorizer: Authorizer = ALLOW_ALL) -> QueryResult:
        return self.ask(query, authorizer).value

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows but the file's position."""
        content = rows(self.machine)
        del content["meta"]
        return content

    def node(self, name: str = "n1", status: str | None = "passing") -> None:
        self.done(Register(name, "10.0.0.1"))
        if status == "passing":
            self.done(SetNodeStatus(self.term, (NodeStatus(name, "passing"),)))

    def session(self, name: str = "s1", **given: Any) -> str:
        """A session with a TTL of ten seconds and nothing else, unless told otherwise."""
        fields: dict[str, Any] = {"node": "", "ttl_ms": 10_000, "node_checks": (), **given}
        self.done(CreateSession(name, **fields))
        return name

    def close(self) -> None:
        self.machine.close()


def rows(machine: Machine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as the file has it."""
    connection = machine._connection
    names = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    ]
    return {
        name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
        for name in names
        if name != "digests"
    }
