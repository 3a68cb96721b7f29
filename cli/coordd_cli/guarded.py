"""A program run as a script, by path: become COMMAND, but die with the process that asked for it.

`python guarded.py PARENT COMMAND [ARGUMENT…]`. A command that outlives a killed `coordctl lock` would go on without the
lock. The kernel's death signal has to be asked for by the command's own process, and between fork and exec of a process
with threads nothing may be called; hence this step. It imports nothing of the project. Exit code 127 if there is no such
command, 126 if it can't be run, as shells do.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    # Python ignores these two, and an ignored signal stays ignored in what is executed.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        print(f"coordctl: can't run {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
