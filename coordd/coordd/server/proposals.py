"""Clients' writes between proposal and answer.

Writes that come in one slice of the loop are proposed together, as one event of the core: batching needs no timer. Each
waits under its log index and term. When the index is applied, the entry's term decides: the same, and the result is the
answer; another, and the write certainly had no effect. A leader that steps down answers *unknown* at once (rule
44): a client with a registered number then asks the next leader under the same number.

Bounded: at most `limit` writes wait; more are refused as busy, without effect.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from coordd.errors import BusyError, NotLeaderError, OutcomeUnknownError, RequestError, TimedOutError
from coordd.messages.client import ReplyBody, Written
from coordd.messages.command import CommandResult
from coordd.raft.output import Accepted, ProposalAnswer, Refusal
from coordd.server.ports import AppliedBatch
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.types import Index, Term

__all__ = ["Proposals", "refusal_error"]


def refusal_error(refusal: Refusal, hint: str = "") -> RequestError:
    """What a client is told when the core did not take its request."""
    if refusal is Refusal.NOT_LEADER:
        return NotLeaderError("this server does not lead", hint)
    return BusyError(f"{refusal.value}: try again")


Concerned: TypeAlias = Waiter | Callable[[], None]
"""Whom the fate of an entry concerns: a client, or a part of this server, which is called if the entry is not taken."""


class Proposals:
    """Mutable; one per server, also while it does not lead."""

    def __init__(self, answers: Answers, limit: int) -> None:
        self._answers = answers
        self._limit = limit
        self._batch: list[bytes] = []
        self._concerned: list[Concerned] = []
        self._waiting: dict[Index, tuple[Term, Waiter]] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch)

    def add(self, entry: bytes, waiter: Waiter) -> None:
        """Queue a client's entry for this slice's proposal. Raises: BusyError."""
        if len(self) >= self._limit:
            raise BusyError("too many writes wait for their commit: try again")
        self._batch.append(entry)
        self._concerned.append(waiter)

    def add_own(self, entry: bytes, refused: Callable[[], None]) -> None:
        """Queue an entry of the server itself. `refused` is called if the core does not take it."""
        self._batch.append(entry)
        self._concerned.append(refused)

    def take_batch(self, now: float) -> list[bytes]:
        """The entries to be proposed now; those whose client has stopped waiting are dropped before they can do anything."""
        if self._concerned and any(isinstance(one, Waiter) and one.deadline <= now for one in self._concerned):
            self._drop_late(now)
        return self._batch

    def proposed(self, answer: ProposalAnswer, hint: str) -> None:
        """The core's answer to the batch."""
        concerned = self._concerned
        self._batch, self._concerned = [], []
        if isinstance(answer, Accepted):
            term = answer.term
            for index, one in enumerate(concerned, answer.first):
                if isinstance(one, Waiter):
                    self._waiting[index] = (term, one)
            return
        body = error_body(refusal_error(answer, hint))
        for one in concerned:
            if isinstance(one, Waiter):
                self._answers.answer(one, body)
            else:
                one()

    def applied(self, batch: AppliedBatch) -> None:
        """Answer those whose entries have just been applied."""
        waiting = self._waiting
        if not waiting:
            return
        for done, term in zip(batch.applied, batch.terms, strict=True):
            found = waiting.pop(done.index, None)
            if found is not None:
                self._answers.answer(found[1], _outcome(found[0] == term, done.result))

    def leadership_lost(self) -> None:
        self._give_up(list(self._waiting), "leadership was lost before the write was known to be committed")

    def expire(self, now: float) -> None:
        """Answer *unknown* to those whose time is up."""
        late = [index for index, (_, waiter) in self._waiting.items() if waiter.deadline <= now]
        self._give_up(late, "the deadline passed before the write was known to be committed")

    def _give_up(self, indexes: Iterable[Index], reason: str) -> None:
        body = error_body(OutcomeUnknownError(reason))
        for index in indexes:
            self._answers.answer(self._waiting.pop(index)[1], body)

    def _drop_late(self, now: float) -> None:
        body = error_body(TimedOutError("the deadline passed before the write was proposed"))
        kept: list[tuple[bytes, Concerned]] = []
        for entry, one in zip(self._batch, self._concerned, strict=True):
            if isinstance(one, Waiter) and one.deadline <= now:
                self._answers.answer(one, body)
            else:
                kept.append((entry, one))
        self._batch = [entry for entry, _ in kept]
        self._concerned = [one for _, one in kept]


def _outcome(same_entry: bool, result: CommandResult | None) -> ReplyBody:
    if same_entry and result is not None:
        return Written(result)
    if same_entry:
        return error_body(OutcomeUnknownError("the entry had no result"))
    return error_body(NotLeaderError("another leader's entry took this write's place: it had no effect"))
