"""A cluster that is told what to do by words and keeps a trace of what came of it. The language is told in `README.md`."""

from collections.abc import Callable
from itertools import pairwise

import msgspec

from coordd.messages.peer import RaftMessage
from coordd.raft import events
from coordd.raft.output import Accepted, Output, ProposalAnswer, Refusal, Role
from coordd.raft.progress import ProgressState
from coordd.types import HardState
from tests.raft.cluster import Cluster, Server, command, configuration, member, piece, sid
from tests.raft.words import append, request
from tests.scenarios.wording import (
    KINDS,
    describe_configuration,
    describe_message,
    describe_progress,
    describe_write,
    status,
)

__all__ = ["Stage"]


class Play(Cluster):
    """The cluster of `tests/raft`, with a pen."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.mind: dict[str, tuple[object, ...]] = {}
        self.peers: dict[tuple[str, str], ProgressState] = {}
        super().__init__(())

    def receive(self, message: RaftMessage) -> Output | None:
        lost = (message.sender, message.receiver) in self.cut or not self.servers[message.receiver].up
        self.lines.append(describe_message(message) + (" (lost)" if lost else ""))
        return super().receive(message)

    def step(self, server: Server | str, event: events.Event) -> Output:
        if isinstance(server, str):
            server = self[server]
        output = super().step(server, event)
        self._note(server, output)
        return output

    def _note(self, server: Server, output: Output) -> None:
        """What this step changed, in the order of the paper's figure 3.1: role, configuration, commit, followers."""
        r = server.replica
        name = str(server.id)
        mind = (r.role, r.term, r.leader, r.vote)
        if mind != self.mind.get(name):
            followed = f" of {r.leader}" if r.leader and r.role is Role.FOLLOWER else ""
            self.lines.append(f"{name}: {r.role.value}{followed}, term {r.term}, vote {r.vote or '-'}")
        if output.configuration_changed:
            self.lines.append(f"{name}: {describe_configuration(r.configuration)}")
        self.mind[name] = mind
        if output.committed:
            self.lines.append(f"{name}: may apply up to {output.committed}")
        for ready in output.reads_ready:
            self.lines.append(f"{name}: read {ready.read} {'fails' if ready.index is None else f'at {ready.index}'}")
        for progress in r.leading.peers.values() if r.leading else ():
            key = (name, str(progress.peer))
            if self.peers.get(key) is not progress.state:
                self.peers[key] = progress.state
                self.lines.append(f"{name}: {describe_progress(progress)}")
        if r.leading is None:
            self.peers = {key: state for key, state in self.peers.items() if key[0] != name}

    def persist(self, name: str, count: int | None = None) -> None:
        server = self[name]
        for _ in range(len(server.jobs) if count is None else count):
            self.lines.append(f"{name}: on disk: {describe_write(server.jobs[0])}")
            super().persist(name, 1)


class Stage:
    """Runs one command at a time and returns its trace."""

    def __init__(self) -> None:
        self.play = Play()
        self._commands: dict[str, Callable[[list[str]], object]] = {
            "settings": self._settings,
            "servers": self._servers,
            "log": self._log,
            "campaign": lambda words: self.play.campaign(words[0]),
            "tick": lambda words: self._tick(words[0], words[1:]),
            "beat": lambda words: self.play.beat(words[0]),
            "wait": lambda words: self.play.advance(float(words[0])),
            "run": lambda words: self.play.run(float(words[0])),
            "propose": self._propose,
            "deliver": self._deliver,
            "drop": self._drop,
            "forge": self._forge,
            "persist": self._persist,
            "apply": lambda words: self.play.apply(words[0]),
            "settle": lambda words: self.play.settle(),
            "crash": lambda words: self.play.crash(words[0]),
            "restart": self._restart,
            "isolate": lambda words: self.play.isolate(*words),
            "heal": lambda words: self.play.heal(),
            "transfer": self._transfer,
            "change": self._change,
            "unreachable": lambda words: self._step(words[0], events.PeerUnreachable(sid(words[1]))),
            "compact": self._compact,
            "snapshots": lambda words: self._snapshots(words[0]),
            "received": lambda words: self._received(words[0], told="untold" not in words),
            "snapshot-failed": lambda words: self._snapshot_failed(words[0], words[1]),
            "read": lambda words: self._step(words[0], events.ReadRequested(int(words[1]))),
            "show": lambda words: self._show(words),
        }

    def run(self, line: str) -> list[str]:
        """Run `verb words…`; with `quietly` at the end only the state afterwards is told."""
        verb, *words = line.split()
        quietly = bool(words) and words[-1] == "quietly"
        self.play.lines.clear()
        self._commands[verb](words[:-1] if quietly else words)
        if quietly:
            self.play.lines.clear()
            self._show([])
        return list(self.play.lines)

    def _say(self, line: str) -> None:
        self.play.lines.append(line)

    def _step(self, name: str, event: events.Event) -> Output:
        return self.play.step(name, event)

    # --- the cast -----------------------------------------------------------------------------------------------------

    def _settings(self, words: list[str]) -> None:
        """settings max_inflight_messages=3 …: other than the defaults; whole numbers only."""
        given = {name: int(value) for name, _, value in (word.partition("=") for word in words)}
        self.play.settings = msgspec.structs.replace(self.play.settings, **given)

    def _servers(self, words: list[str]) -> None:
        """servers a b c [learners d …] [empty e …]"""
        groups: dict[str, list[str]] = {"voters": [], "learners": [], "empty": []}
        group = "voters"
        for word in words:
            if word in groups:
                group = word
            else:
                groups[group].append(word)
        if groups["voters"]:
            self.play.configuration = configuration(groups["voters"], groups["learners"])
        for name in groups["voters"] + groups["learners"]:
            self.play.add(name)
        for name in groups["empty"]:
            self.play.add(name, empty=True)
        self.play.lines.clear()

    def _log(self, words: list[str]) -> None:
        """log a 1 1 2 [term 3] [commit 2]: what is on this server's disk when the play begins."""
        name, *rest = words
        options = {key: int(rest[rest.index(key) + 1]) for key in ("term", "commit") if key in rest}
        terms = [int(word) for word in rest[: min([rest.index(key) for key in options], default=len(rest))]]
        disk = self.play[name].disk
        given = piece(1, terms)
        disk.entries = list(zip(given.terms() if terms else (), given.entries, strict=True))
        disk.hard_state = HardState(options.get("term", terms[-1] if terms else 0), None, options.get("commit", 0))
        disk.promised = len(terms)
        self.play.restart(name)
        self.play.outwait(name)
        self.play.lines.clear()
        self._show([name])

    def _restart(self, words: list[str]) -> None:
        self.play.restart(words[0], promised=int(words[words.index("promised") + 1]) if "promised" in words else None)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _tick(self, name: str, words: list[str]) -> None:
        self.play.tick(name, stalled="stalled" in words)

    def _answered(self, answer: ProposalAnswer | None) -> None:
        match answer:
            case Accepted():
                self._say(f"accepted as {answer.first}/{answer.term}")
            case Refusal():
                self._say(f"refused: {answer.value}")
            case None:
                self._say("no answer")

    def _propose(self, words: list[str]) -> None:
        output = self._step(words[0], events.Proposed([command(word) for word in words[1:]]))
        self._answered(output.proposal)

    def _transfer(self, words: list[str]) -> None:
        output = self._step(words[0], events.TransferRequested(sid(words[1]) if words[1:] else None))
        answer = output.transfer
        self._say(f"refused: {answer.value}" if isinstance(answer, Refusal) else f"to {answer}")

    def _change(self, words: list[str]) -> None:
        """change LEADER add d [promote] [replaces c] | remove c | promote d; with `force` at the end"""
        leader, verb, name, *rest = words
        wanted: events.Change
        match verb:
            case "add":
                old = sid(rest[rest.index("replaces") + 1]) if "replaces" in rest else None
                wanted = events.AddServer(member(name, voter=False, promote="promote" in rest), old)
            case "remove":
                wanted = events.RemoveServer(sid(name))
            case _:
                wanted = events.PromoteServer(sid(name))
        self._answered(self._step(leader, events.ChangeRequested(wanted, force="force" in rest)).change)

    # --- network, disks, snapshots ------------------------------------------------------------------------------------

    def _selected(self, words: list[str]) -> tuple[type, str | None, str | None]:
        kind = KINDS[words[0]] if words and words[0] in KINDS else object
        sender = words[words.index("from") + 1] if "from" in words else None
        receiver = words[words.index("to") + 1] if "to" in words else None
        return kind, sender, receiver

    def _deliver(self, words: list[str]) -> None:
        """deliver [KIND] [from a] [to b] [copies]"""
        self.play.deliver(*self._selected(words), copies="copies" in words)

    def _drop(self, words: list[str]) -> None:
        for message in self.play.drop(*self._selected(words)):
            self._say(f"{describe_message(message)} (dropped)")

    def _forge(self, words: list[str]) -> None:
        """forge append a b term 3 behind 1/1 [commit 2] [entries 1 1] | forge vote a b term 3 last 1/1 [pre]"""
        kind, sender, receiver, *rest = words
        options = dict(pairwise(rest))
        index, term = map(int, options["behind" if kind == "append" else "last"].split("/"))
        if kind == "append":
            terms = [int(word) for word in rest[rest.index("entries") + 1 :]] if "entries" in rest else []
            commit = int(options.get("commit", 0))
            self.play.receive(append(int(options["term"]), sender, receiver, (index, term), terms, commit))
        else:
            self.play.receive(request(int(options["term"]), sender, receiver, (index, term), pre="pre" in rest))

    def _persist(self, words: list[str]) -> None:
        """persist a [COUNT]"""
        self.play.persist(words[0], int(words[1]) if words[1:] else None)

    def _compact(self, words: list[str]) -> None:
        self._say(f"{words[0]}: log dropped up to {self.play.compact(words[0], int(words[1]))}")

    def _snapshots(self, name: str) -> None:
        """snapshots a: begin those that this leader asked for."""
        for wanted in self.play[name].wanted_snapshots:
            self._say(f"{name}: snapshot for {wanted.peer} of at least {wanted.at_least}")
        self.play.announce_snapshots(name)

    def _snapshot_failed(self, leader: str, peer: str) -> None:
        """snapshot-failed a c: a's driver has given up what it was sending to c."""
        self._step(leader, events.SnapshotFailed(sid(peer), self.play[leader].progress(peer).session))

    def _received(self, name: str, *, told: bool) -> None:
        """received c [untold]: the file that this server expects is complete; untold: and its sender does not hear of it."""
        complete = self.play.finish_snapshot(name, tell_sender=told)
        self._say(f"{name}: file {'complete' if complete else 'not expected'}")

    def _show(self, names: list[str]) -> None:
        for server in self.play.servers.values():
            if not names or str(server.id) in names:
                self._say(status(server))
