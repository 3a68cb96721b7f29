"""A program run as a script, by path: run COMMAND, but never longer than the process that asked for it.

`python guarded.py become PARENT COMMAND [ARGUMENT…]` turns into the command, which the kernel kills when PARENT dies.
`python guarded.py watch PARENT COMMAND [ARGUMENT…]` stays beside the command, as the leader of its process group: when
PARENT dies it kills the whole group, whatever the command has started in it. It ends with the command's exit code, 128 +
number for a signal.

A locked command that outlived a killed `coordctl lock` would go on without the lock. The kernel's death signal has to be
asked for by the child's own process, and between fork and exec of a process with threads nothing may be called; hence
this step. It imports nothing of the project. Exit code 127 if there is no such command, 126 if it can't be run, as
shells do.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PARENT_DIED = signal.SIGRTMAX
"""A signal that nobody else sends."""
FOR_THE_COMMAND = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
)
"""What is sent to the group is not meant for its leader."""


def on_death_of(parent: int, number: int) -> None:
    """Have the kernel send us `number` when the parent dies; end at once if it has died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        sys.exit(1)


def become(command: list[str]) -> None:
    """Does not return."""
    # Python ignores these two, and an ignored signal stays ignored in what is executed.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        print(f"coordctl: can't run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def watch(parent: int, command: list[str]) -> int:
    signal.signal(PARENT_DIED, lambda number, frame: os.killpg(0, signal.SIGKILL))
    on_death_of(parent, PARENT_DIED)
    watcher = os.getpid()
    # Blocked until both sides have settled what a signal means: one that comes now must not get lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_COMMAND)
    child = os.fork()
    for number in FOR_THE_COMMAND:
        signal.signal(number, signal.SIG_DFL if child == 0 else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_COMMAND)
    if child == 0:
        on_death_of(watcher, signal.SIGKILL)
        become(command)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def main() -> int:
    mode, parent, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if mode == "watch":
        return watch(parent, command)
    on_death_of(parent, signal.SIGKILL)
    become(command)
    return 1


if __name__ == "__main__":
    sys.exit(main())
