"""`python -m tests.integration.bitflips --flips 40`: single bits flip in a server's files, and it must never tell a wrong value.

For each kind of file so many flips, one at a time, half of them while the server is stopped and half while it runs. Only bits
that mean something are flipped (`flips.py`); what is asked, and what the words mean, says `injuries.py`. A snapshot is hurt where
it arrives, in a server that was killed meanwhile, and where it is sent from. Ends with 1 if anything was wrong.

`--control` flips bits of the state alone, with its check planted off, and ends with 1 if nothing was wrong.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.integration.cluster import wait_for
from tests.integration.flips import allocated, choose, flip
from tests.integration.injuries import OUTCOMES, Patient, Verdict

__all__ = ["KINDS", "SETTINGS", "UNCHECKED", "Campaign", "snapshot_patient"]

SETTINGS = """
[raft]
compact_after_entries = 400
trailing_entries = 100

[storage]
wal_limit_bytes = 1048576
state_checkpoint_ms = 200
"""
"""A log that is cut, so that a lost state has to come from elsewhere, and checkpoints at every moment."""
_SNAPSHOTS = """
[raft]
compact_after_entries = 50
trailing_entries = 10
snapshot_chunk_bytes = 4096

[storage]
state_checkpoint_ms = 200
"""
KINDS = {
    "raft.db": "data/raft.db",
    "raft.db-wal": "data/raft.db-wal",
    "high_water": "data/high_water",
    "state": "data/state-*.db",
    "state-wal": "data/state-*.db-wal",
    "identity": "data/identity.json",
    "key": "key",
}
"""Kind → path in the server's folder. The eighth is `snapshot`."""
UNCHECKED = "import coordd.state.machine as machine; machine.Machine.verify = lambda self: True"
"""For the victim's process: what the disk made of the state's rows is served."""
_CUT_OFF = (
    "import os, signal, coordd.storage.snapshot_store as store; write = store.Incoming.write; left = [{chunks}]; "
    "store.Incoming.write = lambda self, offset, chunk: (left.append(left.pop() - 1), "
    "os.kill(os.getpid(), signal.SIGKILL) if left[0] < 0 else None, write(self, offset, chunk))[-1]"
)
"""The process ends while a snapshot arrives."""


class NothingToHurtError(Exception):
    """No byte of the file means anything now."""


class Campaign:
    """Flips by chance, and what came of them."""

    def __init__(self, patient: Patient, chance: random.Random, told: Callable[[str], None] = print) -> None:
        self._patient = patient
        self._chance = chance
        self._told = told
        self.counts: dict[str, Counter[str]] = {}

    def flip(self, kind: str, count: int) -> None:
        """So many, half of them stopped, in one kind of file."""
        for number in range(count):
            self.note(kind, "running" if number % 2 else "stopped", self._one(kind, running=number % 2 == 1))

    def _one(self, kind: str, running: bool) -> Verdict:
        """All that counts in a database may lie in its write-ahead log: then the victim writes more, and once more."""
        for _ in range(5):
            with suppress(NothingToHurtError):
                if running:
                    return self._patient.hurt_running(lambda copy, folder: self._flipped(kind, copy, folder))
                return self._patient.hurt_stopped(lambda folder: self._flipped(kind, folder, folder))
            self._patient.outdated = True
        raise AssertionError(f"{kind} never holds anything")

    def flip_snapshots(self, count: int) -> None:
        """Half of them in what has arrived, half in what is sent. The patient is one of `snapshot_patient`."""
        for number in range(count):
            if number % 2 == 0:
                verdict = self._patient.hurt_stopped(self._flipped_arrival)
            else:
                verdict = self._patient.hurt_stopped(self._flipped_source)
            self.note("snapshot", "sent" if number % 2 else "arrived", verdict)

    def _flipped(self, kind: str, looked_at: Path, folder: Path) -> str:
        """`looked_at` is the folder, or a copy that stands still."""
        [path] = looked_at.glob(KINDS[kind])
        return self._flip_one(path, folder / path.relative_to(looked_at))

    def _flip_one(self, looked_at: Path, path: Path) -> str:
        ranges = allocated(looked_at)
        if not any(start < end for start, end in ranges):
            raise NothingToHurtError
        offset, bit = choose(ranges, self._chance)
        flip(path, offset, bit)
        return f"{path.name} byte {offset} bit {bit}"

    def _flipped_arrival(self, folder: Path) -> str:
        [path] = folder.glob("data/incoming-*.part")
        return self._flip_one(path, path)

    def _flipped_source(self, folder: Path) -> str:
        """The leader has kept the file since the trial before, or builds one for a first, unhurt start of the victim."""
        patient = self._patient
        sender = patient.cluster.leader()
        if not list(sender.data.glob("snapshot-*.db")):
            patient.victim.start()
            wait_for(lambda: patient.figure("snapshots_installed") > 0, "a snapshot to be installed")
            patient.restore()
            sender = patient.cluster.leader()
        for part in folder.glob("data/incoming-*.part"):
            part.unlink()
        paths = list(sender.data.glob("snapshot-*.db"))
        return self._flip_one(paths[0], paths[0]) if paths else "no file to send was left"

    def note(self, kind: str, when: str, verdict: Verdict) -> None:
        self.counts.setdefault(kind, Counter())[verdict.outcome] += 1
        self._told(f"{kind:12} {when:8} {verdict.outcome:9} {verdict.detail}")

    def table(self) -> str:
        rows = [f"{'':12}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES)]
        for kind, counts in self.counts.items():
            rows.append(f"{kind:12}" + "".join(f"{counts[outcome]:10}" for outcome in OUTCOMES))
        return "\n".join(rows)

    @property
    def faults(self) -> int:
        """Flips after which something was wrong."""
        return sum(counts["wrong"] + counts["untidy"] for counts in self.counts.values())


@contextmanager
def snapshot_patient(folder: Path, chance: random.Random) -> Iterator[Patient]:
    """Its victim was away for long, and was killed while a snapshot arrived."""
    with Patient.founded(folder, _SNAPSHOTS, renewing=False) as patient:
        behind = patient.figure("last_index")
        patient.victim.kill()

        def cut() -> bool:
            patient.noise(60)
            figures = [patient.cluster.info(server) for server in patient.others]
            return all(each is not None and int(each["base_index"]) > behind for each in figures)

        wait_for(cut, "logs cut behind what the victim has")
        patient.victim.start(preload=[_CUT_OFF.format(chunks=chance.randrange(5, 40))])
        wait_for(lambda: not patient.victim.running, "an end in the middle of a snapshot")
        patient.keep()
        yield patient


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.bitflips", description=__doc__)
    parser.add_argument("--flips", type=int, default=40, help="in each kind of file")
    parser.add_argument("--only", nargs="+", choices=[*KINDS, "snapshot"], default=[*KINDS, "snapshot"])
    parser.add_argument("--control", action="store_true", help="with the check of the state off")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", default=None, help="where the servers' data lie")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        sys.exit(
            _control(Path(folder), chance, options.flips) if options.control else _main(Path(folder), chance, options)
        )


def _control(folder: Path, chance: random.Random, flips: int) -> int:
    with Patient.founded(folder / "files", SETTINGS, [UNCHECKED]) as patient:
        patient.keep()
        campaign = Campaign(patient, chance, _told)
        campaign.flip("state", flips)
        _closed(campaign, patient)
    return int(not campaign.faults)


def _main(folder: Path, chance: random.Random, options: argparse.Namespace) -> int:
    faults = 0
    if kinds := [kind for kind in options.only if kind != "snapshot"]:
        with Patient.founded(folder / "files", SETTINGS) as patient:
            patient.keep()
            campaign = Campaign(patient, chance, _told)
            for kind in kinds:
                campaign.flip(kind, options.flips)
            faults += _closed(campaign, patient)
    if "snapshot" in options.only:
        with snapshot_patient(folder / "snapshots", chance) as patient:
            campaign = Campaign(patient, chance, _told)
            campaign.flip_snapshots(options.flips)
            faults += _closed(campaign, patient)
    return int(faults > 0)


def _told(text: str) -> None:
    print(text, flush=True)


def _closed(campaign: Campaign, patient: Patient) -> int:
    infected = patient.contagion()
    print(campaign.table(), *infected, sep="\n", flush=True)
    return campaign.faults + len(infected)


if __name__ == "__main__":
    main()
