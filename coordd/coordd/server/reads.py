"""Reads of every consistency (thesis 6.4, design: reads).

`default`: the leader under its lease, checked again after the value was produced; without a valid lease it falls back to a
read index. `consistent`: a read index, from whatever server. `stale`: this server's state as it is, with its age. Reads that
come in one slice of the loop share one read index. A blocking read first asks whether its topics have passed its index, and
sleeps in `watches` if not; what wakes it is evaluated with the same consistency again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coordd.errors import BusyError, NoLeaderError, NotLeaderError, RequestError, TimedOutError
from coordd.messages.client import Read, ReadResult, ReplyBody, View
from coordd.messages.query import Query
from coordd.raft.output import ReadReady
from coordd.server.authority import Authority
from coordd.server.node import Node
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.server.watches import BlockedRead, Subscription, Watches
from coordd.state.machine import Answer
from coordd.types import Index

__all__ = ["Reads"]

_MOST_A_SLICE = 256
"""Watches evaluated in one turn of the loop."""
_WAY_BACK_SHARE, _WAY_BACK_SECONDS = 0.1, 1.0
"""Kept of a blocking read's time for its last evaluation and the answer's way back."""


@dataclass(slots=True, frozen=True)
class _Asked:
    waiter: Waiter
    token: str
    read: Read
    until: float
    """End of a blocking read's wait; then the present state is the answer."""


@dataclass(slots=True, frozen=True)
class _Promise:
    """Something only a leader may promise, told once it is sure that it leads."""

    waiter: Waiter
    then: Callable[[float], ReplyBody]


_Waiting = _Asked | _Promise


class Reads:
    """Mutable; one per server."""

    def __init__(self, *, node: Node, answers: Answers, watches: Watches, limit: int, longest_wait: float) -> None:
        self._node = node
        self._authority = Authority(node)
        self._answers = answers
        self._watches = watches
        self._limit = limit
        self._longest_wait = longest_wait
        self._next: list[_Waiting] = []
        """Waiting for the slice's end to share a read index."""
        self._confirming: dict[int, list[_Waiting]] = {}
        self._ready: list[ReadReady] = []
        """Told by the core during a step; handled in `turn`."""
        self._applying: list[tuple[Index, list[_Waiting], bool]] = []
        """Confirmed, by a round or by the lease (True): waiting for the state to apply the index."""
        self._number = 0
        self._count = 0

    def ask(self, waiter: Waiter, token: str, read: Read, now: float) -> None:
        """Answer now, or later through `answers`. Raises: RequestError."""
        until = now + min(read.wait_ms / 1000, self._longest_wait) if read.index else now
        way_back = min(_WAY_BACK_SECONDS, _WAY_BACK_SHARE * (waiter.deadline - now))
        self._go(_Asked(waiter, token, read, min(until, waiter.deadline - way_back)), now)

    def confirm(self, waiter: Waiter, then: Callable[[float], ReplyBody], now: float) -> None:
        """Answer what `then(now)` gives once this server has surely led after this moment: at once under the lease, else
        after a round of its own. `then` may raise RequestError. Raises: RequestError."""
        if self._node.raft.lease_valid(now):
            self._answers.answer(waiter, then(now))
        else:
            self._by_index(_Promise(waiter, then))

    def told(self, ready: list[ReadReady]) -> None:
        """From the core, in the middle of a step: only noted."""
        self._ready += ready

    def turn(self, now: float) -> None:
        """Once a turn of the loop: ask the core, take its answers, answer what can be answered."""
        if self._next:
            asked, self._next = self._next, []
            self._number += 1
            self._confirming[self._number] = asked
            self._node.read(self._number, now)
        while self._ready:
            ready, self._ready = self._ready, []
            for one in ready:
                self._confirmed(one, now)
        if self._applying:
            self._answer_applied(now)
        for watch in self._watches.take_due(_MOST_A_SLICE):
            self._woken(watch, now)

    def expire(self, now: float) -> None:
        """Drop those whose client has stopped waiting. To be called now and then."""
        body = error_body(TimedOutError("the deadline passed before the read was confirmed"))
        for number, asked in list(self._confirming.items()):
            self._confirming[number] = self._keep_timely(asked, now, body)
            if not self._confirming[number]:
                del self._confirming[number]
        self._applying = [
            (index, timely, under_lease)
            for index, asked, under_lease in self._applying
            if (timely := self._keep_timely(asked, now, body))
        ]

    def _keep_timely(self, asked: list[_Waiting], now: float, body: ReplyBody) -> list[_Waiting]:
        late = [one for one in asked if one.waiter.deadline <= now]
        for one in late:
            self._count -= 1
            self._answers.answer(one.waiter, body)
        return [one for one in asked if one.waiter.deadline > now] if late else asked

    # --- the ways to an answer ----------------------------------------------------------------------------------------

    def _go(self, asked: _Asked, now: float) -> None:
        match asked.read.consistency:
            case "stale":
                self._node.observed.reads_stale += 1
                self._stale(asked, now)
            case "default" if self._node.ready and self._node.raft.lease_valid(now):
                self._node.observed.reads_lease += 1
                self._under_lease(asked, now)
            case _:
                self._node.observed.reads_index += 1
                self._by_index(asked)

    def _under_lease(self, asked: _Asked, now: float) -> None:
        """The lease says that nobody else leads, not that this state is the newest: a follower may have applied, and shown,
        what the leader has committed and not yet applied."""
        commit = self._node.raft.replica.log.commit
        if self._node.machine.applied >= commit:
            self._evaluate(asked, now, under_lease=True)
            return
        self._count_one()
        self._applying.append((commit, [asked], True))

    def _by_index(self, asked: _Waiting) -> None:
        self._count_one()
        self._next.append(asked)

    def _count_one(self) -> None:
        if self._count >= self._limit:
            raise BusyError("too many reads wait: try again")
        self._count += 1

    def _stale(self, asked: _Asked, now: float) -> None:
        age = self._node.age(now)
        bound = asked.read.max_stale_ms
        if bound and (age is None or age * 1000 > bound):
            raise NoLeaderError(f"this server's state may be older than {bound} ms: ask another, or without the bound")
        self._evaluate(asked, now, age=age)

    def _confirmed(self, ready: ReadReady, now: float) -> None:
        asked = self._confirming.pop(ready.read, [])
        if ready.index is None:
            self._count -= len(asked)
            body = error_body(NoLeaderError("no leader confirmed the read: try again"))
            for one in asked:
                self._answers.answer(one.waiter, body)
        elif asked:
            self._applying.append((ready.index, asked, False))

    def _answer_applied(self, now: float) -> None:
        applied = self._node.machine.applied
        waiting, self._applying = self._applying, []
        for index, asked, under_lease in waiting:
            if index > applied:
                self._applying.append((index, asked, under_lease))
                continue
            self._count -= len(asked)
            for one in asked:
                try:
                    if isinstance(one, _Promise):
                        self._answers.answer(one.waiter, one.then(now))
                    else:
                        self._evaluate(one, now, under_lease=under_lease)
                except RequestError as error:
                    self._answers.answer(one.waiter, error_body(error))

    def _evaluate(self, asked: _Asked, now: float, *, under_lease: bool = False, age: float | None = 0.0) -> None:
        """Answer from the state as it is, or go to sleep until it changes."""
        read = asked.read
        if read.index and asked.until > now:
            machine = self._node.machine
            self._authority.demand(asked.token, read.query)
            if max(1, machine.topic_index(machine.topics(read.query))) <= read.index:
                self._watches.block(asked.waiter, asked.token, read, asked.until)
                return
        answer = self._answer(asked.token, read.query)
        if under_lease and not self._node.lease_still_valid():
            self._by_index(asked)
            return
        self._answers.answer(
            asked.waiter,
            ReadResult(
                answer.index,
                answer.value,
                age_ms=-1 if age is None else int(age * 1000),
                known_leader=self._node.raft.replica.leader is not None,
                filtered=answer.filtered,
            ),
        )

    def _answer(self, token: str, query: Query) -> Answer:
        """The token is judged at each evaluation: it may have been deleted while the read slept. Raises: DeniedError."""
        accessor, authorizer = self._authority.demand(token, query)
        return self._node.machine.query(query, authorizer, accessor)

    # --- watches ------------------------------------------------------------------------------------------------------

    def _woken(self, watch: BlockedRead | Subscription, now: float) -> None:
        if isinstance(watch, Subscription):
            self._view(watch)
            return
        self._watches.end(watch)
        try:
            if watch.read.consistency == "default" and not self._node.ready:
                raise NotLeaderError("this server does not lead any more")
            self._go(_Asked(watch.waiter, watch.token, watch.read, watch.until), now)
        except RequestError as error:
            self._answers.answer(watch.waiter, error_body(error))

    def _view(self, watch: Subscription) -> None:
        if not watch.dirty or watch.credit <= 0:
            return
        try:
            answer = self._answer(watch.token, watch.request.query)
        except RequestError as error:
            self._answers.answer(watch.waiter, error_body(error))
            self._watches.end(watch)
            return
        # Each view has an index of its own, also after an ACL change, which moves no topic: or a gap would go unnoticed.
        index = max(answer.index, self._node.machine.applied)
        view = View(watch.request.subscription, index, watch.sent, answer.value, answer.filtered)
        if self._answers.answer(watch.waiter, view):
            watch.dirty = False
            watch.credit -= 1
            watch.sent = index
        # Else it is gone, or reads too slowly: the view is due again when it next says that it lives.
