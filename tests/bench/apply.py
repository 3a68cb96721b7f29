"""How many numbered puts a second the replicated state applies: `python -m tests.bench.apply [--seconds 2]`.

256-byte values on 10,000 random keys, from as many registered clients as there are commands in a batch, each with one
outstanding write, in a state file on disk, one checkpoint each 200 batches.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from coordd.messages.command import KvPut, RegisterClient, encode
from coordd.messages.entry import CommandHeader, encode_command
from coordd.state.machine import Machine

KEYS = 10_000
BATCHES_PER_CHECKPOINT = 200


def apply_rate(path: str, batch: int, seconds: float, chance: random.Random) -> tuple[float, float]:
    """Applied puts a second in batches of this size, and CPU seconds for one; making the entries is not counted."""
    machine = Machine.open(path)
    clients = [
        applied.index
        for applied in machine.apply(
            1, [(1, encode_command(CommandHeader(1, 0, 0, 0), encode(RegisterClient())))] * batch
        )
    ]
    commands = [encode(KvPut(f"bench/{key:05}", chance.randbytes(256))) for key in range(KEYS)]
    for start in range(0, KEYS, 500):
        put = [(1, encode_command(CommandHeader(2, 0, 0, 0), command)) for command in commands[start : start + 500]]
        machine.apply(machine.applied + 1, put)
    spent = cpu = 0.0
    number = 0
    while spent < seconds:
        rounds = []
        for _ in range(BATCHES_PER_CHECKPOINT):
            number += 1
            rounds.append(
                [
                    (1, encode_command(CommandHeader(number, client, number, number), encode_put(chance)))
                    for client in clients
                ]
            )
        begun, begun_cpu = time.perf_counter(), time.process_time()
        for entries in rounds:
            machine.apply(machine.applied + 1, entries)
        machine.checkpoint()
        spent += time.perf_counter() - begun
        cpu += time.process_time() - begun_cpu
    machine.close()
    return number * batch / spent, cpu / (number * batch)


def encode_put(chance: random.Random) -> bytes:
    return encode(KvPut(f"bench/{chance.randrange(KEYS):05}", chance.randbytes(256)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 64, 256])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batches:
            rate, cpu = apply_rate(str(Path(folder) / f"state-{batch}.db"), batch, options.seconds, random.Random(1))
            print(f"batch {batch:4}: {rate:9,.0f} puts/s, {1e6 / rate:6.1f} us a put, of these {1e6 * cpu:6.1f} us CPU")


if __name__ == "__main__":
    main()
