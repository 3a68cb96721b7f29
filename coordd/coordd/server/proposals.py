"""Clients' writes between proposal and answer.

Writes that come in one slice of the loop are proposed together, as one event of the core: batching needs no timer. Each
waits under its log index and term. When the index is applied, the entry's term decides: the same, and the result is the
answer; another, and the write certainly had no effect. A leader that steps down answers *unknown* at once (raft.md rule
44): a client with a registered number then asks the next leader under the same number.

Bounded: at most `limit` writes wait; more are refused as busy, without effect.
"""

from collections.abc import Iterable

from coordd.errors import BusyError, NotLeaderError, OutcomeUnknownError, RequestError, TimedOutError
from coordd.messages.client import ReplyBody, Written
from coordd.messages.command import CommandResult
from coordd.raft.output import Accepted, ProposalAnswer, Refusal
from coordd.server.node import AppliedBatch
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.types import Index, Term

__all__ = ["Proposals", "refusal_error"]


def refusal_error(refusal: Refusal, hint: str = "") -> RequestError:
    """What a client is told when the core did not take its request."""
    if refusal is Refusal.NOT_LEADER:
        return NotLeaderError("this server does not lead", hint)
    return BusyError(f"{refusal.value}: try again")


class Proposals:
    """Mutable; one per server, also while it does not lead."""

    def __init__(self, answers: Answers, limit: int) -> None:
        self._answers = answers
        self._limit = limit
        self._batch: list[bytes] = []
        self._batch_waiters: list[Waiter | None] = []
        self._waiting: dict[Index, tuple[Term, Waiter]] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._batch)

    def add(self, entry: bytes, waiter: Waiter | None) -> None:
        """Queue an entry for this slice's proposal. `waiter` None: proposed by the server itself.

        Raises: BusyError.
        """
        if len(self) >= self._limit and waiter is not None:
            raise BusyError("too many writes wait for their commit: try again")
        self._batch.append(entry)
        self._batch_waiters.append(waiter)

    def take_batch(self, now: float) -> list[bytes]:
        """The entries to be proposed now; those whose client has stopped waiting are dropped before they can do anything."""
        if any(waiter is not None and waiter.deadline <= now for waiter in self._batch_waiters):
            self._drop_late(now)
        return self._batch

    def proposed(self, answer: ProposalAnswer, hint: str) -> None:
        """The core's answer to the batch."""
        batch, waiters = self._batch, self._batch_waiters
        self._batch, self._batch_waiters = [], []
        if isinstance(answer, Accepted):
            term = answer.term
            for index, waiter in enumerate(waiters, answer.first):
                if waiter is not None:
                    self._waiting[index] = (term, waiter)
            return
        del batch
        body = error_body(refusal_error(answer, hint))
        for waiter in waiters:
            if waiter is not None:
                self._answers.answer(waiter, body)

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
        kept = []
        for entry, waiter in zip(self._batch, self._batch_waiters, strict=True):
            if waiter is not None and waiter.deadline <= now:
                self._answers.answer(waiter, body)
            else:
                kept.append((entry, waiter))
        self._batch = [entry for entry, _ in kept]
        self._batch_waiters = [waiter for _, waiter in kept]


def _outcome(same_entry: bool, result: CommandResult | None) -> ReplyBody:
    if same_entry and result is not None:
        return Written(result)
    if same_entry:
        return error_body(OutcomeUnknownError("the entry had no result"))
    return error_body(NotLeaderError("another leader's entry took this write's place: it had no effect"))
