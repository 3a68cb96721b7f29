"""Run a command for as long as a lock is held.

The command has a process group of its own. Signals that coordctl gets go on to that group; if coordctl is at a terminal
in the foreground, the group takes that place. `remaining()` says for how many seconds the lock is certainly still held:
SIGTERM is sent when only `grace` is left, SIGKILL when nothing is, so that whatever the network does the command is gone
by the time that somebody else can be granted the lock. A coordctl that is killed takes the group with it (guarded.py).

Works on the main thread only, where signals arrive.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

__all__ = ["FORWARDED", "Outcome", "Supervisor"]

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
_GUARD = Path(__file__).with_name("guarded.py")
_LONGEST_LOOK_AWAY = 0.25
"""Seconds between looks at `remaining`, which can shrink at any time."""


@dataclass(frozen=True)
class Outcome:
    """How it ended: the command's exit code (128 + number for a signal), and whether it was ended for the lock's sake."""

    status: int
    lock_lost: bool


class Supervisor:
    """One command under one lock. Use `run` once."""

    def __init__(self, remaining: Callable[[], float], grace: float) -> None:
        self._remaining = remaining
        self._grace = grace
        self._asked_to_end = False
        self._killed = False

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Outcome:
        """Start the command and wait for its end."""
        with _signals() as arrivals:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), "watch", str(os.getpid()), *arguments],
                env=dict(environment),
                process_group=0,
            )
            with _foreground(child.pid):
                status = self._wait(child, arrivals)
        return Outcome(status if status >= 0 else 128 - status, self._asked_to_end)

    def _wait(self, child: "subprocess.Popen[bytes]", arrivals: int) -> int:
        while (status := child.poll()) is None:
            left = self._remaining()
            self._end_in_time(child.pid, left)
            until_next = left if self._asked_to_end else left - self._grace
            pause = _LONGEST_LOOK_AWAY if self._killed else min(max(until_next, 0.001), _LONGEST_LOOK_AWAY)
            if select.select([arrivals], [], [], pause)[0]:
                for number in os.read(arrivals, 256):
                    if number in FORWARDED:
                        _signal_group(child.pid, number)
            if _suspended(child.pid):
                # Ctrl-Z. The shell does not see it, since the group in the foreground is not its own child's, and a
                # command that sleeps on a lock is no good anyway.
                _signal_group(child.pid, signal.SIGCONT)
        if self._asked_to_end:
            # What the command left behind in its group would go on without the lock, too.
            _signal_group(child.pid, signal.SIGKILL)
        return status

    def _end_in_time(self, group: int, left: float) -> None:
        if left <= self._grace and not self._asked_to_end:
            self._asked_to_end = True
            _signal_group(group, signal.SIGTERM)
            _signal_group(group, signal.SIGCONT)
        if left <= 0 and not self._killed:
            self._killed = True
            _signal_group(group, signal.SIGKILL)


def _suspended(child: int) -> bool:
    """Whether it has just been stopped from the terminal; a SIGSTOP is somebody's will."""
    try:
        stopped = os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:  # it has ended, which is for `poll` to see
        return False
    return stopped is not None and stopped.si_status == signal.SIGTSTP


def _signal_group(group: int, number: int) -> None:
    # Not there any more, or it became another user's: then it is not ours to end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor from which the numbers of arriving signals are read, while they do nothing else."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handled = (*FORWARDED, signal.SIGCHLD)
    earlier = {number: signal.signal(number, _note) for number in handled}
    earlier_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(earlier_descriptor)
        for number, handler in earlier.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _note(number: int, frame: FrameType | None) -> None:
    """Nothing: the number is already in the pipe."""


@contextlib.contextmanager
def _foreground(group: int) -> Iterator[None]:
    """Give the terminal to the group, if it is ours to give: a background group is stopped when it reads from it."""
    own = os.getpgrp()
    try:
        terminal = sys.stdin.fileno()
        ours = os.isatty(terminal) and os.tcgetpgrp(terminal) == own
    except (OSError, ValueError):
        ours, terminal = False, -1
    if not ours:
        yield
        return
    # Who is in the background is stopped when it sets the foreground group, unless it ignores this.
    earlier = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(terminal, group)
            _signal_group(group, signal.SIGCONT)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(terminal, own)
        signal.signal(signal.SIGTTOU, earlier)
