"""How fast is the log alone? Entries a second with everything on: chain, one transaction, two fdatasyncs for each batch.

python -m tests.bench.log [--seconds S] [--folder F]
"""

import argparse
import tempfile
import time
from pathlib import Path

from coordd.storage.log_store import LogStore
from coordd.types import Base, HardState, LogSlice, LogWrite

ENTRY_BYTES = 256
KEPT = 10_000


def measure(folder: Path, batch: int, seconds: float) -> tuple[float, float, float]:
    """Entries a second, p99 of a batch in milliseconds, and fdatasyncs a batch, compaction and checkpoints included."""
    store = LogStore.open(folder, "bench")
    store.recover()
    payload = b"\x01" + bytes(ENTRY_BYTES - 1)
    syncs = store.fdatasyncs
    durations = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        first = store.last + 1
        # One write for each entry, as a busy server's loop would hand them over at worst.
        writes = [
            LogWrite(index, HardState(1, None, index - 1), LogSlice(index, [payload], ((index, 1),)), must_sync=True)
            for index in range(first, first + batch)
        ]
        store.write(writes)
        durations.append(time.perf_counter() - now)
        if store.last - store.base.index > 2 * KEPT:
            store.set_base(Base(store.last - KEPT))
        store.upkeep()
    elapsed = time.perf_counter() - began
    entries = store.last
    used = store.fdatasyncs - syncs
    store.close()
    durations.sort()
    return entries / elapsed, durations[int(len(durations) * 0.99)] * 1000, used / len(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each batch size (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the system's temporary folder)")
    options = parser.parse_args()
    for batch in (1, 64, 256):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rate, p99, syncs = measure(Path(folder) / "data", batch, options.seconds)
        print(f"batch {batch:4}: {rate:9,.0f} entries/s, p99 {p99:6.2f} ms, {syncs:.2f} fdatasyncs a batch")


if __name__ == "__main__":
    main()
