"""`coordctl lock`: run a command while holding a lock, or list locks.

A word before `--` is always a lock's name; `coordctl lock list` is the list because there is no command behind it.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from coordd.errors import CoorddError, LockLostError
from coordd.messages.query import ListLocks, Locks
from coordd_cli.call import Call, UsageError, command
from coordd_cli.words import milliseconds

if TYPE_CHECKING:
    from coordd.client import Lock

__all__ = ["add_to"]

GRACE_SHARE = 0.15
LONGEST_GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL, a part of the TTL: all of it is over before the lock can be another's."""
LEAST_RELEASE_SECONDS = 0.5


def add_to(app: typer.Typer) -> None:
    app.command("lock")(lock)


@command
def lock(
    call: Call,
    name: Annotated[str, typer.Argument(help="The lock's name; `list` without a command lists all locks.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND [ARGUMENT]...", help="What to run while it is held.")
    ] = None,
    ttl: Annotated[
        int,
        typer.Option(
            parser=milliseconds,
            metavar="DURATION",
            show_default="15s",
            help="How soon others get it if this host vanishes.",
        ),
    ] = 15_000,
    wait: Annotated[
        int | None,
        typer.Option(
            parser=milliseconds,
            metavar="DURATION",
            help="How long to queue; 0: not at all, exit code 1 if it is held; for ever if left out.",
        ),
    ] = None,
    pass_exit: Annotated[
        bool, typer.Option("--pass-exit", help="End with the command's own exit code, not 1, when it fails.")
    ] = False,
) -> None:
    """Run a command while holding a lock: coordctl lock NAME -- COMMAND. Or list locks: coordctl lock list.

    The command finds its fencing token in COORD_LOCK_TOKEN and the lock's name in COORD_LOCK_NAME. It is ended before
    the lock could be somebody else's (exit code 6). A DURATION is 500ms, 15s, 10m or 1h; a plain number means seconds.
    """
    if not arguments:
        if name != "list":
            raise UsageError(f"what is to run while {name!r} is held? coordctl lock {name} -- COMMAND")
        _list(call)
        return
    status = _run(call, name, arguments, ttl / 1000, None if wait is None else wait / 1000)
    if status:
        raise typer.Exit(status if pass_exit else 1)


def _run(call: Call, name: str, arguments: list[str], ttl: float, wait: float | None) -> int:
    """The command's exit code. Raises: LockLostError if it was ended for the lock's sake."""
    from coordd_cli.supervisor import Supervisor

    held = call.link.client.lock(name, ttl=ttl, wait=wait)
    with _interruptible():
        held.acquire()
    try:
        environment = {**os.environ, "COORD_LOCK_TOKEN": str(held.token), "COORD_LOCK_NAME": name}
        grace = min(GRACE_SHARE * ttl, LONGEST_GRACE_SECONDS)
        outcome = Supervisor(lambda: held.left, grace).run(arguments, environment)
    finally:
        _give_back(call, held)
    if outcome.lock_lost:
        raise LockLostError(f"lock {name!r} was lost or could soon have been, so the command was ended")
    return outcome.status


def _give_back(call: Call, held: "Lock") -> None:
    """If nobody hears of it, the TTL gives it back; there is no use in trying for longer than that."""
    client = call.link.client
    client.timeout = max(LEAST_RELEASE_SECONDS, min(client.timeout, held.left))
    with contextlib.suppress(CoorddError):
        held.release()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """While it waits for the lock, a signal ends the wait, so that the place in the queue is given up."""

    def end(number: int, frame: FrameType | None) -> None:
        # The next one must not interrupt the clearing up.
        for other in earlier:
            signal.signal(other, signal.SIG_IGN)
        raise typer.Exit(128 + number)

    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in earlier:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _list(call: Call) -> None:
    found = call.link.read(ListLocks(), Locks).locks
    rows = [
        {
            "name": one.name,
            "holder": one.holder,
            "token": one.token,
            "waiters": [waiter.session for waiter in one.waiters],
            "waiting": len(one.waiters),
            "delayed_until": one.delayed_until,
        }
        for one in found
    ]
    call.render.rows(rows, ["name", "holder", "token", "waiting"])
