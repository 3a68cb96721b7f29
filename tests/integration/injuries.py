"""A cluster with a server whose files are hurt, again and again, and what it then says about keys whose values are known.

    with Patient.founded(folder, SETTINGS) as patient:
        verdict = patient.hurt_stopped(lambda data: flip(...))

All keys are known, and each trial begins with the victim's files as they were: killed with a SIGKILL, content in every database
and in every write-ahead log. After the injury the victim is started, if it was stopped, and asked for every key: `stale`, and by
default once it was made to lead. The verdict:

    refused    the process ended with an exit code and a sentence that are meant for it, or it neither answers nor leads
    refilled   it noticed, and got from the others what it lacked
    harmless   it told all values, and leads
    wrong      it told a value that was never written, or left out a key
    untidy     the process ended in another way

The other servers are healthy, and are asked in the end whether anything got through to them.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq

from coordd.errors import CoorddError
from coordd.messages.client import (
    Consistency,
    Info,
    InfoRequest,
    LogRequest,
    Read,
    ReadResult,
    ReplyBody,
    TransferRequest,
)
from coordd.messages.query import KvGet, KvList, KvPair, KvPairs, Query
from coordd.storage.high_water import HighWater
from coordd.storage.identity import read_identity, write_identity
from tests.integration.cluster import FOR_NOW, ServerCluster, ServerProcess, Straight, wait_for

__all__ = ["OUTCOMES", "Patient", "Verdict"]

OUTCOMES = ("refused", "refilled", "harmless", "wrong", "untidy")
KNOWN = "known/"
KEYS = 150
_MEANT = (2, 3, 4)
"""Exit codes of `coordd.server.main` for what was damaged on purpose."""
_PATIENCE = 15.0
_LIVES_OF_A_TRIAL = 10
"""More starts than one trial has."""
_REFILLED = re.compile(r"snapshot installed|state damaged|state lost")
_RESTARTED = re.compile(r"event=restarted .*?last=(\d+) .*?promised=(\d+)")

Injury = Callable[[Path], str]
"""Hurts files in the victim's folder and says how."""


class Verdict(NamedTuple):
    outcome: str
    detail: str


class EndedError(Exception):
    """The victim's process is gone."""


class Patient:
    """Three servers; the last one is the victim."""

    def __init__(self, cluster: ServerCluster, preload: list[str], renewing: bool) -> None:
        self.cluster = cluster
        self._renewing = renewing
        self.victim = cluster.servers[-1]
        self.others = cluster.servers[:-1]
        self.known: dict[str, KvPair] = {}
        self.target = 0
        """Index of the last known write."""
        self.outdated = False
        """What is kept is of no use any more."""
        self._preload = preload
        self._pristine = cluster.folder / "pristine"
        self._noise = 0
        self._lives = 1000

    @classmethod
    @contextmanager
    def founded(
        cls, folder: Path, settings: str, preload: list[str] | None = None, renewing: bool = True
    ) -> "Iterator[Patient]":
        """`preload`: for the victim's process, see `ServerProcess.start`. `renewing`: what is kept must not lag too far."""
        with ServerCluster(folder, extra=settings) as cluster:
            cluster.bootstrap()
            patient = cls(cluster, preload or [], renewing)
            patient.write_known()
            yield patient

    # --- what is known ------------------------------------------------------------------------------------------------

    def write_known(self) -> None:
        """Again and again, so that there is something older to be mistaken for it; with checkpoints in between."""
        with self.cluster.client(timeout=30.0) as client:
            for life in ("first", "older", "old", "new"):
                for number in range(KEYS):
                    client.kv_put(f"{KNOWN}{number:04}", f"{life} {number} ".encode() * 60)
                self.checkpointed()
        self._write_some()

    def _write_some(self) -> None:
        """Known keys that lie in a write-ahead log; then everything is as the cluster has it."""
        with self.cluster.client(timeout=30.0) as client:
            for number in range(0, KEYS, 10):
                client.kv_put(f"{KNOWN}{number:04}", f"newest {number} ".encode() * 60)
            self.known = {pair.key: pair for pair in client.kv_list(KNOWN, consistency="consistent")}
        self.target = max(int(figures["applied_index"]) for figures in self.cluster.converged())

    def checkpointed(self) -> None:
        """Wait for a checkpoint of the victim's state; it needs something new to be worth it."""
        before = self.figure("checkpoints")

        def done() -> bool:
            self.noise(1)
            return self.figure("checkpoints") > before

        wait_for(done, "a checkpoint")

    def noise(self, count: int) -> None:
        """Writes to keys that nobody asks for."""
        with self.cluster.client(timeout=5.0) as client:
            for _ in range(count):
                self._noise += 1

                def put(key: str = f"noise/{self._noise % 7}") -> bool:
                    try:
                        return client.kv_put(key, b"n" * 500).ok
                    except FOR_NOW:
                        return False

                wait_for(put, "a write")

    def figure(self, name: str) -> int:
        figures = self.cluster.info(self.victim)
        return int(figures[name]) if figures else 0

    # --- the victim's files -------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """The victim is killed, and what its folder now holds, key included, is what each trial begins with."""
        self.victim.kill()
        shutil.rmtree(self._pristine, ignore_errors=True)
        shutil.copytree(self.victim.data, self._pristine)
        shutil.copy2(self.victim.folder / "key", self._pristine.with_name("pristine-key"))

    def restore(self) -> None:
        """The victim is stopped, and whole.

        A disk that goes back in time breaks what Raft rests on. So the others must hold all that the victim ever acknowledged, and
        it must not come back as the life that they know.
        """
        self._hand_over(self.others[0])
        self.victim.kill()
        cut = max(int(figures["base_index"]) for figures in self.cluster.converged())
        if self._renewing and (self.outdated or cut > self.target):
            self._renew()
        self._put_back()

    def _renew(self) -> None:
        """The others have cut their logs beyond what is kept: with that any victim would need a snapshot, hurt or not."""
        self._put_back()
        self.victim.start(preload=self._preload)
        self.noise(80)  # a mebibyte, and the log is moved into its file
        self.checkpointed()
        self._write_some()
        self.keep()
        self.cluster.converged()
        self.outdated = False

    def _put_back(self) -> None:
        shutil.rmtree(self.victim.data)
        shutil.copytree(self._pristine, self.victim.data)
        shutil.copy2(self._pristine.with_name("pristine-key"), self.victim.folder / "key")
        self._lives += _LIVES_OF_A_TRIAL
        mark = HighWater(self.victim.data / "high_water")
        mark.write(msgspec.structs.replace(mark.mark, boot=self._lives))
        mark.close()
        identity = read_identity(self.victim.data, self.victim.name)
        assert identity is not None
        write_identity(self.victim.data, msgspec.structs.replace(identity, boot=self._lives))

    # --- trials -------------------------------------------------------------------------------------------------------

    def hurt_stopped(self, injury: Injury) -> Verdict:
        self.restore()
        how = injury(self.victim.folder)
        since = len(self.victim.log)
        self.victim.start(preload=self._preload)
        return self.judged(since, how)

    def hurt_running(self, injury: Callable[[Path, Path], str]) -> Verdict:
        """`injury` gets a copy of the folder to look at, and the folder. Later the server is killed and started again."""
        self.restore()
        since = len(self.victim.log)
        self.victim.start(preload=self._preload)
        with Straight(self.victim) as line:
            self._await_current(line)
        self.noise(10)
        self.cluster.converged()
        with tempfile.TemporaryDirectory() as aside:
            copy = Path(aside) / "copy"
            shutil.copytree(self.victim.folder, copy)
            how = injury(copy, self.victim.folder)
        self.noise(10)
        first = self.judged(since, how)
        if first.outcome not in ("harmless", "refilled"):
            return first
        self._hand_over(self.others[0])
        self.victim.kill()
        since = len(self.victim.log)
        self.victim.start(preload=self._preload)
        second = self.judged(since, how)
        return first if second.outcome == "harmless" else second

    def judged(self, since: int, how: str) -> Verdict:
        """What the started victim says. `since`: where its log began to be about this trial."""
        try:
            outcome, why = self._examined(since)
        except EndedError:
            outcome, why = self._ended(since)
        return Verdict(outcome, f"{how}: {why}" if why else how)

    def _examined(self, since: int) -> tuple[str, str]:
        wait_for(lambda: not self.victim.running or "event=ready" in self.victim.log[since:], "the start of the victim")
        if not self.victim.running:
            raise EndedError
        with Straight(self.victim) as line:
            current = self._await_current(line)
            stale = self._asked(line, "stale")
            if stale:
                return "wrong", stale
            if not current:
                return "refused", "it did not become current"
            if not self._lead(line):
                return "refused", "it did not lead"
            self._answers(line, [LogRequest(count=200)])
            default = self._asked(line, "default")
            if default:
                return "wrong", default
        return ("refilled" if self._was_refilled(since) else "harmless"), ""

    def _was_refilled(self, since: int) -> bool:
        told = self.victim.log[since:]
        short = any(int(last) < int(promised) for last, promised in _RESTARTED.findall(told))
        return short or _REFILLED.search(told) is not None

    def _ended(self, since: int) -> tuple[str, str]:
        assert self.victim.process is not None
        code = self.victim.process.wait()
        told = self.victim.log[since:]
        lines = [line for line in told.splitlines() if line.startswith("coordd: ") or "event=stopped" in line]
        why = lines[-1] if lines else told[-300:]
        tidy = code in _MEANT and len(lines) == 1 and "Traceback" not in told
        return ("refused" if tidy else "untidy"), f"exit {code}, {why}"

    # --- questions ----------------------------------------------------------------------------------------------------

    def _answers(self, line: Straight, bodies: list[Any]) -> list[ReplyBody]:
        """Raises: EndedError."""
        try:
            numbers = [line.send(body, _PATIENCE) for body in bodies]
        except zmq.Again:
            wait_for(lambda: not self.victim.running, "the end of a process that takes nothing")
            raise EndedError from None
        found = line.answers(len(bodies), lambda: not self.victim.running)
        if len(found) < len(bodies):
            raise EndedError
        return [found[number] for number in numbers]

    def _figures(self, line: Straight) -> dict[str, Any] | None:
        """None while it refuses to say anything, since its state is lost."""
        [info] = self._answers(line, [InfoRequest()])
        return dict(info.figures) if isinstance(info, Info) else None

    def _await_current(self, line: Straight) -> bool:
        """It holds all that is known, and follows or leads."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            figures = self._figures(line)
            if figures and figures["applied_index"] >= self.target and figures["leader"] and not figures["refilling"]:
                return True
            time.sleep(0.02)
        return False

    def _asked(self, line: Straight, consistency: Consistency) -> str:
        """What is wrong with the answers for all keys, one by one and as a list; refusals are not."""
        queries: list[Query] = [*(KvGet(key) for key in self.known), KvList(KNOWN)]
        *each, listed = self._answers(line, [Read(query, consistency) for query in queries])
        for (key, pair), body in zip(self.known.items(), each, strict=True):
            if isinstance(body, ReadResult) and body.value != KvPairs((pair,)):
                return f"{consistency} {key}: {str(body.value)[:200]}"
        if isinstance(listed, ReadResult) and listed.value != KvPairs(tuple(self.known.values())):
            return f"{consistency} list of {KNOWN} differs"
        return ""

    def _lead(self, line: Straight) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            figures = self._figures(line)
            if figures and figures["role"] == "leader" and figures["lease"]:
                return True
            self._hand_over(self.victim)
        return False

    def _hand_over(self, server: ServerProcess) -> None:
        """Ask once; whoever leads may refuse."""
        with self.cluster.client(timeout=2.0) as client, suppress(CoorddError):
            client.request(TransferRequest(server.name))

    def contagion(self) -> list[str]:
        """What the healthy servers have wrong in the end."""
        found = []
        for server in self.others:
            with self.cluster.client(only=server, timeout=10.0) as client:
                told = {pair.key: pair for pair in client.kv_list(KNOWN, consistency="stale")}
            if told != self.known:
                found.append(f"{server.name} tells other values")
        return found
