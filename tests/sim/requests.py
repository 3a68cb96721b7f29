"""What a server does for clients, as far as the simulator needs it: writes, reads of every consistency.

The thin stand-in for the server's own request handling: results are told when applied, an entry that another term
replaced is `outcome-unknown`, reads wait for their index.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from coordd.messages.client import Error, Read, ReadResult, Reply, Request, Write, Written
from coordd.messages.entry import CommandHeader, encode_command
from coordd.raft.events import Proposed, ReadRequested
from coordd.raft.output import Accepted, ReadReady
from coordd.state.machine import Applied
from coordd.types import Index, Term
from tests.sim.look import insides
from tests.sim.state import EVERYTHING

if TYPE_CHECKING:
    from tests.sim.server import Server

__all__ = ["Requests"]

Answer = Callable[[Reply], None]


class Requests:
    """All requests of one life of a server."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._proposals: dict[Index, tuple[Term, Request, Answer]] = {}
        self._asking: dict[int, tuple[Request, Answer]] = {}
        """Reads that wait for their index to be confirmed."""
        self._waiting: list[tuple[Index, bool, Request, Answer]] = []
        """Reads that wait for the state to reach an index; True: under the lease."""
        self._reads = 0
        self._stamped = 0
        self._stamped_at = server.now()

    def take(self, request: Request, answer: Answer) -> None:
        match request.body:
            case Write():
                self._write(request, request.body, answer)
            case Read(consistency="consistent"):
                self._ask(request, answer)
            case Read(consistency="stale"):
                self._query(request, request.body, answer)
            case Read():
                self._read_by_lease(request, request.body, answer)
            case _:
                raise NotImplementedError(request.body)

    # --- writes ------------------------------------------------------------------------------------------------------

    def _write(self, request: Request, write: Write, answer: Answer) -> None:
        server = self._server
        header = CommandHeader(self._time(), write.client, write.number, write.lowest)
        output = server.step(Proposed([encode_command(header, bytes(write.command))]))
        assert output is not None, "clients come between steps"
        if isinstance(output.proposal, Accepted):
            self._proposals[output.proposal.first] = (output.proposal.term, request, answer)
        else:
            code = "not-leader" if not server.leads else "busy"
            self._refuse(request, answer, code)

    def _time(self) -> int:
        """Replicated time: never falls, runs with the leader's clock."""
        now = self._server.now()
        elapsed = int((now - self._stamped_at) * 1e9)
        self._stamped_at = now
        self._stamped = max(self._stamped, self._server.machine.state_time) + elapsed
        return self._stamped

    def _refuse(self, request: Request, answer: Answer, code: str) -> None:
        leader = insides(self._server.raft).leader
        answer(Reply(request.id, Error(code, "", leader or "")))

    def applied(self, entries: list[tuple[Term, bytes]], results: list[Applied]) -> None:
        for (term, _), result in zip(entries, results, strict=True):
            waiting = self._proposals.pop(result.index, None)
            if waiting is None:
                continue
            proposed, request, answer = waiting
            if proposed == term and result.result is not None:
                answer(Reply(request.id, Written(result.result)))
            else:
                self._refuse(request, answer, "outcome-unknown")
        self._answer_reads()

    def reset(self) -> None:
        """The state jumped: what was applied on the way is not known here."""
        applied = self._server.machine.applied
        for index in [index for index in self._proposals if index <= applied]:
            _, request, answer = self._proposals.pop(index)
            self._refuse(request, answer, "outcome-unknown")
        self._answer_reads()

    # --- reads -------------------------------------------------------------------------------------------------------

    def _read_by_lease(self, request: Request, read: Read, answer: Answer) -> None:
        server = self._server
        replica = insides(server.raft)
        if not server.leads:
            self._refuse(request, answer, "not-leader")
        elif not server.raft.lease_valid(server.now()):
            server.around.counts["reads without lease"] += 1
            self._ask(request, answer)
        elif server.machine.applied < replica.log.commit:
            self._waiting.append((replica.log.commit, True, request, answer))
        else:
            self._query(request, read, answer)

    def _ask(self, request: Request, answer: Answer) -> None:
        server = self._server
        self._reads += 1
        self._asking[self._reads] = (request, answer)
        server.around.invariants.read_asked(server.id, self._reads)
        server.step(ReadRequested(self._reads))

    def ready(self, reads: list[ReadReady]) -> None:
        for ready in reads:
            request, answer = self._asking.pop(ready.read)
            if ready.index is None:
                self._refuse(request, answer, "no-leader")
            else:
                self._waiting.append((ready.index, False, request, answer))
        self._answer_reads()

    def _answer_reads(self) -> None:
        applied = self._server.machine.applied
        due = [waiting for waiting in self._waiting if waiting[0] <= applied]
        if not due:
            return
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > applied]
        for _, by_lease, request, answer in due:
            assert isinstance(request.body, Read)
            if by_lease and not self._server.raft.lease_valid(self._server.now()):
                self._ask(request, answer)
            else:
                self._query(request, request.body, answer)

    def _query(self, request: Request, read: Read, answer: Answer) -> None:
        found = self._server.machine.query(read.query, EVERYTHING)
        answer(Reply(request.id, ReadResult(found.index, found.value)))
