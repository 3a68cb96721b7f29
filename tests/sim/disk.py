"""A data folder, and what a power cut makes of it.

A cut-off life's files are copied to a new folder, as they were or torn, and the next life opens those: whatever the old
store still holds open can then do no harm. What was synced stays. Of the rest, log, mark, state, snapshots on their way and
names, any part arrives.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from coordd.errors import CoorddError, DamagedError, DiskFullError
from coordd.server.refill import others_of
from coordd.state.machine import examine
from coordd.storage import log_store, snapshot_store
from coordd.storage.files import sync_folder, sync_path
from coordd.storage.high_water import HighWater, Mark
from coordd.storage.identity import Identity
from coordd.storage.log_store import LogStore
from coordd.storage.pace import Pace
from coordd.storage.recovery import Recovered
from coordd.storage.refill import forget_log
from coordd.storage.snapshot_store import SnapshotStore
from coordd.storage.writer import CompactLog, InstallBase, Job
from coordd.types import LogWrite
from tests.sim.chance import Chance
from tests.sim.condition import Condition
from tests.sim.files import VirtualFiles
from tests.sim.helper import VirtualHelper, Work
from tests.sim.surroundings import Surroundings
from tests.sim.tearing import mixed, torn
from tests.sim.writer import VirtualWriter

__all__ = ["Disk"]

_WAL = "raft.db-wal"
_DATABASE = "raft.db"
_MARK = "high_water"
_HEADER = 32
"""Bytes of a WAL's header, which SQLite syncs by itself before anything follows it."""


TRIES = 50
"""Places looked at for one that holds something, before a bit is flipped."""


class _PowerLost(BaseException):
    """Raised inside shipped code, where the power goes."""


class Disk:
    """One data folder at a time."""

    def __init__(self, around: Surroundings, host: str, chance: Chance) -> None:
        self._around = around
        self._host = host
        self._chance = chance
        self._copies = 0
        self.condition = Condition()
        self.state_damage = ""
        """What `open` found wrong with the state: another one must take its place."""
        self.flipped = False
        """A bit of log or mark has turned round: what one flip damages the others must make good."""
        self._synced = b""
        """The state's WAL as it was when it was last synced."""
        self.folder = around.folder / f"{host}-0"

    @property
    def files(self) -> SnapshotStore:
        pace = Pace(clock=lambda: 0.0, wait=lambda _: None)
        return VirtualFiles(self.folder, pace, lambda: f"{self._chance.getrandbits(128):032x}", self.condition)

    def open(self) -> LogStore:
        """The store judges what it finds, and the state it names is examined, as the daemon does it. A new folder gets an
        identity from the seed."""

        def identity(name: str) -> Identity:
            return Identity(name, f"{self._chance.getrandbits(128):032x}")

        def approve(identity: Identity, recovered: Recovered) -> None:
            if not recovered.base.state_file:
                return
            try:
                examine(str(self.folder / recovered.base.state_file))
            except DamagedError as error:
                if not others_of(recovered.newest_configuration, identity.server):
                    raise
                self.state_damage = str(error)

        self.state_damage = ""

        tuning = self._around.tuning
        with mock.patch.object(log_store, "new_identity", identity):
            return LogStore.open(
                self.folder, self._host, tail_bytes=tuning.tail_bytes, wal_limit=tuning.wal_limit, approve=approve
            )

    def flip(self) -> str:
        """One bit of one file turns round, seen by nobody. Returns of which; "" if there is none to take. What a server has
        promised meets that once on a disk; a state may be damaged again and again."""
        names = sorted(path.name for path in self.folder.iterdir() if path.name.startswith("state-"))
        states = [name for name in names if name.endswith(".db")]
        wals = [name for name in names if name.endswith("-wal")]
        files = {"state": states, "state wal": wals}
        if not self.flipped:
            files |= {"log": [_DATABASE], "log wal": [_WAL], "mark": [_MARK]}
        found = [(kind, name) for kind, all_names in files.items() for name in all_names if self._content(name)]
        if not found:
            return ""
        (one,) = self._chance.choices(found, [4 if kind == "log wal" else 1 for kind, _ in found])
        kind, name = one
        self.flipped |= not kind.startswith("state")
        path = self.folder / name
        content = bytearray(path.read_bytes())
        places = (self._chance.randrange(len(content)) for _ in range(TRIES))
        place = next((place for place in places if content[place]), 0)  # most of a small database is empty
        content[place] ^= 1 << self._chance.randrange(8)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(content[place : place + 1])
        return kind

    def damage(self, state_file: str) -> str:
        """What the next start would find wrong with this state, looked for in a copy."""
        with tempfile.TemporaryDirectory(dir=self._around.folder) as folder:
            for path in self.folder.glob(f"{state_file}*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, folder)
            try:
                examine(str(Path(folder) / state_file))
            except DamagedError as error:
                return str(error)
        return ""

    def refill(self) -> bool:
        """As `coordd --refill` does it. False: it can't be done, since the mark is damaged."""
        try:
            forget_log(self.folder, self._host)
        except DamagedError:
            return False
        return True

    def wipe(self) -> None:
        """A new disk in a server that is down: it will start as somebody else."""
        shutil.rmtree(self.folder)
        self._renew()

    def _renew(self) -> Path:
        self._copies += 1
        self.folder = self._around.folder / f"{self._host}-{self._copies}"
        return self.folder

    # --- power cuts --------------------------------------------------------------------------------------------------

    def cut(self, writer: VirtualWriter, helper: VirtualHelper | None = None, state_file: str = "") -> str:
        """The power goes, or the process is killed. Returns what became of the work under way."""
        jobs, work, old = writer.end(), helper.end() if helper else None, self.folder
        if jobs and (work is None or self._chance.happens(0.5)):
            fate = self._interrupt_jobs(writer, jobs)
        elif work is not None:
            fate = self._interrupt_work(work, state_file)
        else:
            fate = "idle"
        if self.folder == old:
            self._copy()
        if state_file and fate != "checkpoint torn":
            self._lose_state(f"{state_file}-wal")
        for part in sorted(self.folder.glob("incoming-*.part")):
            self._lose_unsynced(part)
        writer.store.abandon()
        self._release(old)
        return fate

    def leave(self) -> None:
        """The process has ended by itself, but could not close its log: what it still has open does no harm."""
        old = self.folder
        self._copy()
        self._release(old)

    def _release(self, old: Path) -> None:
        for connection in log_store._abandoned:
            connection.close()  # type: ignore[attr-defined]
        log_store._abandoned.clear()
        shutil.rmtree(old)

    def _copy(self) -> None:
        """What is written from now on does not reach the disk."""
        old = self.folder
        shutil.copytree(old, self._renew())

    def _content(self, name: str) -> bytes:
        path = self.folder / name
        return path.read_bytes() if path.exists() else b""

    def state_synced(self, state_file: str) -> None:
        """SQLite has synced the state's WAL, as it does before it moves anything into the file."""
        self._synced = self._content(f"{state_file}-wal")

    def _lose_state(self, name: str) -> None:
        """What was written to the state's WAL since its last sync may be lost."""
        fate, wal = self._chance.choice(["kept", "kept", "lost", "torn"]), self._content(name)
        if fate == "kept" or not wal:
            return
        synced = wal[:_HEADER] + self._synced[_HEADER:]
        (self.folder / name).write_bytes(synced if fate == "lost" else torn(synced, wal, self._chance))
        (self.folder / name.replace("-wal", "-shm")).unlink(missing_ok=True)

    def _lose_unsynced(self, path: Path) -> None:
        """A file of which nothing was synced."""
        fate = self._chance.choice(["kept", "gone", "empty", "torn"])
        if fate == "gone":
            path.unlink()
        elif fate != "kept":
            path.write_bytes(b"" if fate == "empty" else torn(b"", path.read_bytes(), self._chance))

    # --- in the middle of the log writer's work ----------------------------------------------------------------------

    def _interrupt_jobs(self, writer: VirtualWriter, under_way: list[Job]) -> str:
        """Decide, and carry out what reaches the disk before the power goes."""
        fate = self._chance.choice(["lost", "done", "torn", "torn", "mark torn"])
        writes = [job for job in under_way if isinstance(job, LogWrite)]
        (first, *_) = under_way
        if fate == "lost":
            return fate
        if isinstance(first, InstallBase | CompactLog):
            self._around.invariants.in_doubt(writer.server, first.base)  # the judge finds out at the next start
        elif not writes:
            return "lost"
        before = {name: self._content(name) for name in (_WAL, _DATABASE)}
        try:
            with self._power_lost_at_the_mark(fate, before) as lost:
                if writes:
                    writer.store.write(writes)
                elif isinstance(first, InstallBase):
                    writer.store.install(first.base)
                elif isinstance(first, CompactLog):
                    writer.store.set_base(first.base)
        except DiskFullError:
            return "lost"
        if not lost and (writes or isinstance(first, InstallBase) or fate != "torn"):
            return "done"
        if lost != ["mark torn"]:
            self._copy_torn(before)
        return "torn"

    @contextlib.contextmanager
    def _power_lost_at_the_mark(self, fate: str, before: dict[str, bytes]) -> Iterator[list[str]]:
        """Entries reach the files, the mark that would vouch for them does not, or is torn; or the one that is lowered
        before entries are replaced. Yields the list of what was lost, empty while nothing was."""
        lost: list[str] = []
        genuine = HighWater.write

        def write(high_water: HighWater, new: Mark) -> None:
            lowering = all(self._content(name) == content for name, content in before.items())
            if fate == "done" or (lowering and (fate == "torn" or self._chance.happens(0.5))):
                genuine(high_water, new)
            elif fate == "torn":
                lost.append("torn")
                raise _PowerLost
            else:
                old = self._content(_MARK)
                genuine(high_water, new)
                lost.append("mark torn")
                self._copy()
                (self.folder / _MARK).write_bytes(_torn_slot(old, self._content(_MARK), self._chance))
                raise _PowerLost

        with mock.patch.object(HighWater, "write", write), contextlib.suppress(_PowerLost):
            yield lost

    def _copy_torn(self, before: dict[str, bytes]) -> None:
        """Of what the last transaction changed in the WAL a part arrives."""
        self._copy()
        wal, database = self._content(_WAL), self._content(_DATABASE)
        if database == before[_DATABASE] and not self._chance.happens(0.25):
            (self.folder / _WAL).write_bytes(torn(wal[:_HEADER] + before[_WAL][_HEADER:], wal, self._chance))

    # --- in the middle of the helper's work --------------------------------------------------------------------------

    def _interrupt_work(self, work: Work, state_file: str) -> str:
        """Building, verifying or moving the state's WAL: it ends before the first, second, … sync, or after the last."""
        before, names = self._content(state_file), set(os.listdir(self.folder))
        syncs = self._chance.randint(0, 2)

        def reached() -> bool:
            nonlocal syncs
            syncs -= 1
            return syncs < 0

        def before_file(path: Path) -> None:
            if not reached():
                return sync_path(path)
            self._copy()
            self._lose_unsynced(self.folder / path.name)
            raise _PowerLost

        def before_folder(folder: Path) -> None:
            if not reached():
                return sync_folder(folder)
            self._copy()
            self._lose_names(names)
            raise _PowerLost

        try:
            with (
                mock.patch.object(snapshot_store, "sync_path", before_file),
                mock.patch.object(snapshot_store, "sync_folder", before_folder),
            ):
                work()
        except _PowerLost:
            return "snapshot torn"
        except CoorddError:
            return "helper failed"
        after = self._content(state_file)
        if after == before or not self._chance.happens(0.7):
            return "helper done"
        self._copy()
        (self.folder / state_file).write_bytes(mixed(before, after, self._chance))
        return "checkpoint torn"

    def _lose_names(self, before: set[str]) -> None:
        """What was created or renamed and not synced may have its old name, or none."""
        if self._chance.happens(0.5):
            return
        now = set(os.listdir(self.folder))
        old, new = sorted(before - now), sorted(now - before)
        for made in new:
            if old and made.startswith("state-") and made.endswith(".db"):
                (self.folder / made).rename(self.folder / old.pop())
            else:
                (self.folder / made).unlink()


def _torn_slot(before: bytes, after: bytes, chance: Chance) -> bytes:
    """The slot that was being written, cut anywhere."""
    differs = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    cut = chance.randint(differs[0], differs[-1] + 1) if differs else 0
    return after[:cut] + before[cut:]
