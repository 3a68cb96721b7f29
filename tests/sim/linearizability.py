"""Is there one order of all operations that explains every answer? (Wing and Gong's search with Lowe's memory.)

An operation takes effect at one moment between its call and its reply. One without a reply (its outcome is unknown)
takes effect at some moment after its call, or never. The search tries orders that respect this and forgets none it has
refuted: a set of operations already placed together with the state they led to is tried once.
"""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = [
    "FOREVER",
    "LockModel",
    "LockState",
    "Model",
    "Operation",
    "RegisterModel",
    "SetModel",
    "UndecidedError",
    "by_force",
    "linearizable",
]

FOREVER = float("inf")

State = TypeVar("State", bound=Hashable)


class Operation(NamedTuple):
    """One request to one object, as its caller saw it."""

    call: float
    reply: float
    """FOREVER: the outcome is unknown; then `answer` means nothing."""
    request: tuple[object, ...]
    answer: object = None

    @property
    def known(self) -> bool:
        return self.reply != FOREVER


class Model(Protocol[State]):
    """The object as it would behave if one operation came after the other."""

    initial: State

    def step(self, state: State, operation: Operation) -> State | None:
        """The state after the operation, hashable; None if the operation could not have got this answer."""
        ...


class RegisterModel:
    """One key: ("put", value), ("get",) with the value as answer, ("cas", expected, value) and ("delete", expected)
    with True or False. The state is a tuple that holds the value, or the empty tuple while the key does not exist;
    `expected` is written the same way, so that a compare-and-set can demand absence. Deleting what does not exist
    is answered with True, whatever was expected."""

    initial: tuple[object, ...] = ()

    def step(self, state: tuple[object, ...], operation: Operation) -> tuple[object, ...] | None:
        kind, *arguments = operation.request
        if kind == "get":
            return state if not operation.known or operation.answer == state else None
        if kind == "put":
            return (arguments[0],)
        expected, after = (arguments[0], (arguments[1],)) if kind == "cas" else (arguments[0], ())
        took = state == expected or (kind == "delete" and not state)
        if operation.known and operation.answer is not took:
            return None
        return after if took else state


class SetModel:
    """A set of names: ("add", name) and ("remove", name), which always succeed, and ("list",) with all names in order."""

    initial: frozenset[object] = frozenset()

    def step(self, state: frozenset[object], operation: Operation) -> frozenset[object] | None:
        kind, *arguments = operation.request
        if kind == "list":
            return state if not operation.known or operation.answer == tuple(sorted(map(str, state))) else None
        return state | {arguments[0]} if kind == "add" else state - {arguments[0]}


class LockState(NamedTuple):
    """`token` is the present grant's, `highest` the highest ever granted."""

    holder: object = None
    token: int = 0
    highest: int = 0


class LockModel:
    """One lock that nobody queues for: ("acquire", session) with the token of the grant, or 0 while another holds it;
    ("release", token) and ("fenced", token) with True or False; ("end", session), after which it holds nothing.

    An acquisition whose outcome is unknown must name the token it would have got: ("acquire", session, token).
    """

    initial = LockState()

    def step(self, state: LockState, operation: Operation) -> LockState | None:
        kind, subject, *rest = operation.request
        if kind == "acquire":
            return self._acquire(state, operation, subject, rest)
        if kind == "end":
            if state.holder == subject:
                return state._replace(holder=None, token=0)
            return state if operation.known else None  # one that may never come need not come without effect
        held = state.holder is not None and state.token == subject
        if operation.known and operation.answer is not held:
            return None
        return state._replace(holder=None, token=0) if kind == "release" and held else state

    def _acquire(self, state: LockState, operation: Operation, session: object, rest: list[object]) -> LockState | None:
        token = operation.answer if operation.known else rest[0]
        assert isinstance(token, int)
        if state.holder is not None and state.holder != session:
            return state if token == 0 or not operation.known else None
        if state.holder == session:
            return state if token == state.token or not operation.known else None
        return LockState(session, token, token) if token > state.highest else None


class _Event(Generic[State]):
    """A call or a reply in a doubly linked list, ordered by time."""

    __slots__ = ("ahead", "back", "number", "operation", "reply")

    def __init__(self, operation: Operation | None, number: int) -> None:
        self.operation = operation
        """None in a reply and at the list's head."""
        self.number = number
        self.reply: _Event[State] | None = None
        """A call's reply, if it came."""
        self.back: _Event[State]
        self.ahead: _Event[State] | None = None

    def unlink(self) -> None:
        self.back.ahead = self.ahead
        if self.ahead is not None:
            self.ahead.back = self.back

    def relink(self) -> None:
        self.back.ahead = self
        if self.ahead is not None:
            self.ahead.back = self


class UndecidedError(Exception):
    """The search was given up."""


def linearizable(operations: Sequence[Operation], model: Model[State], most: int = 1_000_000) -> bool:
    """Whether the history of one object has an explanation. Cost: exponential only in what overlaps.

    Raises: UndecidedError after `most` states; many operations whose outcome is unknown overlap with all that follow.
    """
    head = _listed(operations, model)
    open_replies = sum(1 for operation in operations if operation.known)
    placed: list[tuple[_Event[State], State]] = []
    refuted: set[tuple[int, State]] = set()
    state, done = model.initial, 0
    event = head.ahead
    while open_replies:
        assert event is not None, "an open reply is still listed"
        operation = event.operation
        if operation is None:  # a reply whose call could not be placed: the last choice was wrong
            if not placed:
                return False
            event, state = placed.pop()
            done &= ~(1 << event.number)
            if event.reply is not None:
                event.reply.relink()
                open_replies += 1
            event.relink()
            event = event.ahead
            continue
        after = model.step(state, operation)
        if after is None or (done | 1 << event.number, after) in refuted:
            event = event.ahead
            continue
        refuted.add((done | 1 << event.number, after))
        if len(refuted) > most:
            raise UndecidedError
        placed.append((event, state))
        state, done = after, done | 1 << event.number
        event.unlink()
        if event.reply is not None:
            event.reply.unlink()
            open_replies -= 1
        event = head.ahead
    return True


def _listed(operations: Sequence[Operation], model: Model[State]) -> _Event[State]:
    """The list's head. At one moment calls come before replies: what touches, overlaps."""
    moments: list[tuple[float, int, int, _Event[State]]] = []
    for number, operation in enumerate(operations):
        call: _Event[State] = _Event(operation, number)
        moments.append((operation.call, 0, number, call))
        if operation.known:
            call.reply = _Event(None, number)
            moments.append((operation.reply, 1, number, call.reply))
    head: _Event[State] = _Event(None, -1)
    last = head
    for *_, event in sorted(moments, key=lambda moment: moment[:3]):
        last.ahead, event.back = event, last
        last = event
    return head


def by_force(operations: Sequence[Operation], model: Model[State]) -> bool:
    """The definition itself, for a handful of operations: the checker is checked against it."""
    known = [operation for operation in operations if operation.known]
    unknown = [operation for operation in operations if not operation.known]
    return any(
        _explains(order, model)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *chosen])
    )


def _explains(order: Iterable[Operation], model: Model[State]) -> bool:
    state, latest_call = model.initial, -FOREVER
    for operation in order:
        if operation.reply < latest_call:
            return False
        latest_call = max(latest_call, operation.call)
        after = model.step(state, operation)
        if after is None:
            return False
        state = after
    return True
