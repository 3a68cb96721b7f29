"""A process that writes is killed at random moments: whatever it had reported as durable is there."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordd.storage.log_store import LogStore
from tests.storage.support import NAME, contents

WRITER = """
import random, sys
from pathlib import Path
from coordd.storage.log_store import LogStore
from coordd.types import Base, HardState, LogSlice, LogWrite

rng = random.Random(sys.argv[2])
store = LogStore.open(Path(sys.argv[1]), "s1", wal_limit=200_000)
term = store.recover().hard_state.term
sequence = 0
while True:
    first = store.last + 1
    if rng.random() < 0.3 and store.last > store.base.index:
        first -= rng.randrange(min(10, store.last - store.base.index))
        term += 1
    term = max(term, 1)
    sequence += 1
    entries = [b"\\1" + b"%d:%d" % (term, first + place) + bytes(rng.randrange(3000)) for place in range(rng.randrange(1, 20))]
    write = LogWrite(sequence, HardState(term), LogSlice(first, entries, ((first, term),)), True)
    print("begin", first, term, len(entries), flush=True)
    store.write([write])
    print("done", flush=True)
    if rng.random() < 0.1:
        store.compact(Base(store.last - min(30, store.last - store.base.index)))
    if store.upkeep_due:
        store.upkeep()
"""


def expected(terms: list[int], lines: list[str]) -> tuple[list[int], list[int]]:
    """Terms of all entries from 1 on: after the last finished write, and if the unfinished one took effect too."""
    sure = terms
    maybe = terms
    for line in lines:
        if line.startswith("begin"):
            first, term, count = map(int, line.split()[1:])
            maybe = sure[: first - 1] + [term] * count
        else:
            sure = maybe
    return sure, maybe


@pytest.mark.slow
def test_what_was_reported_survives_kills(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    folder = tmp_path / "data"
    terms: list[int] = []
    for number in range(8):
        asked = [sys.executable, "-c", WRITER, str(folder), f"{seed}/{number}"]
        with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            assert lines[0].startswith("begin"), "the writer must open what the last kill left"
            time.sleep(rng.random() * 0.3)
            process.kill()
            lines += process.stdout.read().splitlines(keepends=True)
        sure, maybe = expected(terms, [line for line in lines if line.endswith("\n")])
        store = LogStore.open(folder, NAME)
        recovered = store.recover()
        assert recovered.promised <= recovered.tail.last
        found = [data[1:].split(b"\0")[0].decode() for data in contents(store)]
        wanted = [
            [f"{term}:{index}" for index, term in enumerate(terms, start=1) if index > store.base.index]
            for terms in (sure, maybe)
        ]
        assert found in wanted
        terms = sure if found == wanted[0] else maybe
        store.close()
    assert len(terms) > 100
