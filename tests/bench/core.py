"""How many entries a second a leader's core takes, commits and hands out: `python -m tests.bench.core [--seconds 2]`.

Nothing but `step()`: three cores, messages handed over as objects, disks that finish at once. Entries of 256 bytes.
"""

import argparse
import random
import time
from collections import deque

from coordd.messages.peer import RaftMessage
from coordd.raft import events
from coordd.raft.core import Raft
from coordd.raft.output import Output, Role
from coordd.raft.settings import RaftSettings
from coordd.types import Base, HardState, LogSlice, ServerId
from tests.raft.cluster import command, configuration, sid

NAMES = "abc"


class Cores:
    """Whatever a step asks for is done before the next one."""

    def __init__(self) -> None:
        self.now = 1.0
        self.cores = {sid(name): Raft(RaftSettings(), random.Random(name)) for name in NAMES}
        self.messages: deque[RaftMessage] = deque()
        self.committed = 0
        base = Base(configuration=configuration(NAMES))
        for name in self.cores:
            nothing = LogSlice(1, [], ())
            self.step(name, events.Restarted(name, 1, HardState(), base, nothing, 0, (), (), 0))
        self.now += 1.0
        self.step(sid("a"), events.Ticked())
        self.deliver()

    def step(self, name: ServerId, event: events.Event) -> None:
        core = self.cores[name]
        output: Output = core.step(event, self.now)
        self.messages += output.messages_now
        if output.write is not None:
            self.step(name, events.Persisted(output.write.sequence))
        self.messages += output.messages_after_persist
        if output.committed:
            self.step(name, events.Applied(output.committed))
            if core.role is Role.LEADER:
                self.committed = output.committed

    def deliver(self) -> None:
        while self.messages:
            message = self.messages.popleft()
            self.step(message.receiver, events.Received(message))


def rate(batch: int, seconds: float) -> float:
    """Committed entries a second, in batches of this size, of all three cores in one thread."""
    cores = Cores()
    entries = [command("x" * 255)] * batch
    began, before = time.perf_counter(), cores.committed
    while (spent := time.perf_counter() - began) < seconds:
        cores.step(sid("a"), events.Proposed(list(entries)))
        cores.deliver()
        cores.now += 0.001
    return (cores.committed - before) / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16, 256])
    options = parser.parse_args()
    for batch in options.batches:
        found = rate(batch, options.seconds)
        print(f"batch {batch:4}: {found:11,.0f} entries/s, {1e6 / found:6.2f} us an entry on three cores in one thread")


if __name__ == "__main__":
    main()
