"""Files that were hurt are refused, refilled or harmless; a server never tells what was not written. COORDD_CUTOFFS=9 truncates
at more lengths; more flips: `python -m tests.integration.bitflips`.
"""

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.bitflips import KINDS, SETTINGS, UNCHECKED, Campaign, snapshot_patient
from tests.integration.flips import allocated, choose, flip
from tests.integration.injuries import Patient
from tests.storage.support import copy_of, filled

CUTOFFS = int(os.environ.get("COORDD_CUTOFFS", "1"))
"""Lengths of chance, beside nothing and all but one byte."""
FLIPS = {"raft.db": 4, "raft.db-wal": 4, "high_water": 4, "state": 6, "state-wal": 4, "identity": 2, "key": 2}
IN_SNAPSHOTS = 4

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chance() -> random.Random:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    with Patient.founded(tmp_path_factory.mktemp("injuries") / "cluster", SETTINGS) as patient:
        patient.keep()
        yield patient


@pytest.mark.timeout(600)
def test_thirty_flips_and_nothing_wrong_is_told(patient: Patient, chance: random.Random, tmp_path: Path) -> None:
    campaign = Campaign(patient, chance)
    for kind, count in FLIPS.items():
        campaign.flip(kind, count)
    assert not patient.contagion()
    with snapshot_patient(tmp_path / "snapshots", chance) as other:
        closing_campaign = Campaign(other, chance)
        closing_campaign.flip_snapshots(IN_SNAPSHOTS)
        assert not other.contagion()
    print(campaign.table(), closing_campaign.table(), sep="\n")
    assert campaign.faults + closing_campaign.faults == 0


@pytest.mark.timeout(300)
def test_flips_are_told_where_nothing_is_checked(tmp_path: Path, chance: random.Random) -> None:
    """The digest of the state's rows is planted off: what the disk made of them is served."""
    with Patient.founded(tmp_path / "cluster", SETTINGS, [UNCHECKED]) as patient:
        patient.keep()
        campaign = Campaign(patient, chance)
        for _ in range(10):
            campaign.flip("state", 1)
            if campaign.counts["state"]["wrong"]:
                return
    raise AssertionError(campaign.table())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short(patient: Patient, chance: random.Random, kind: str) -> None:
    campaign = Campaign(patient, chance)
    for length in (0, -1, *[None] * CUTOFFS):

        def cut(folder: Path, length: int | None = length) -> str:
            [path] = folder.glob(KINDS[kind])
            size = path.stat().st_size
            left = chance.randrange(1, size) if length is None else length % size
            os.truncate(path, left)
            return f"{path.name} cut to {left} of {size} bytes"

        campaign.note(kind, "cut", patient.hurt_stopped(cut))
    assert not patient.contagion()
    assert campaign.faults == 0


# --- which bits are flipped -------------------------------------------------------------------------------------------


def test_only_bytes_in_use_are_flipped(tmp_path: Path) -> None:
    """Every cell of every row lies in them; free pages and gaps do not."""
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, text TEXT)")
        database.execute("CREATE TABLE dropped (id INTEGER PRIMARY KEY, text TEXT)")
        database.executemany("INSERT INTO dropped VALUES (?, ?)", [(n, f"gone{n}" * 50) for n in range(50)])
        database.executemany("INSERT INTO kept VALUES (?, ?)", [(n, f"<{n:04}>" * 30) for n in range(200)])
        database.execute("INSERT INTO kept VALUES (1000, ?)", ("long" * 5000,))
        database.execute("DELETE FROM kept WHERE id % 3 = 0")
        database.execute("DROP TABLE dropped")
        database.commit()
    content = path.read_bytes()
    used = b"".join(content[start:end] for start, end in allocated(path))
    assert all(used.count(f"<{n:04}>".encode()) == 30 for n in range(200) if n % 3)
    assert b"gone" not in used
    assert used.count(b"long") > 4900  # those that lie across two overflow pages are cut in two
    assert len(used) < 0.8 * len(content)


def test_a_page_that_the_write_ahead_log_replaces_is_not_in_use(tmp_path: Path) -> None:
    store = filled(tmp_path / "data", 50, size=600)
    killed = copy_of(tmp_path / "data")
    store.close()
    assert sum(end - start for start, end in allocated(killed / "raft.db")) < 200
    [(start, end)] = allocated(killed / "raft.db-wal")
    assert (start, end > 50 * 600) == (0, True)
    assert sum(end - start for start, end in allocated(tmp_path / "data" / "raft.db")) > 50 * 600


def test_one_bit_is_flipped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    offset, bit = choose([(10, 20), (50, 51)], random.Random(1))
    flip(path, offset, bit)
    assert 10 <= offset < 20 or offset == 50
    assert path.read_bytes() == bytes(offset) + bytes([1 << bit]) + bytes(99 - offset)
