"""What the clients asked and what they were told, by object, and the verdict on it."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.sim.linearizability import (
    FOREVER,
    LockModel,
    Model,
    Operation,
    RegisterModel,
    SetModel,
    UndecidedError,
    linearizable,
)
from tests.sim.violation import Violation

__all__ = ["History"]

Subject = tuple[str, str]
"""("kv", key), ("lock", name) or ("set", prefix)."""
MODELS: dict[str, tuple[int, Model[Any]]] = {
    "kv": (12, RegisterModel()),
    "lock": (14, LockModel()),
    "set": (12, SetModel()),
}
"""What each kind of object is, and the invariant that it stands for."""
MOST_STATES = 30_000


@dataclass
class History:
    operations: dict[Subject, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    tokens: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """Each lock's grants: token and session."""
    written: dict[str, dict[bytes, int]] = field(default_factory=lambda: defaultdict(dict))
    """Each key's values (every one is written once) and the index at which each was seen to be written."""
    lifetimes: dict[str, float] = field(default_factory=dict)
    """Each session, and the time until which it was promised to live: it may end by itself at any time after."""
    fenced: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """Each lock's accepted writes: the token they showed and the index at which they took effect."""
    undecided: int = 0
    """Objects whose history was too tangled to be judged as a whole."""
    attempted: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def add(self, subject: Subject, operation: Operation) -> None:
        self.operations[subject].append(operation)

    def saw(self, key: str, value: bytes, index: int) -> None:
        """A value and its index: one write has one index, however often it was sent (invariant 13)."""
        if value not in self.attempted[key]:
            raise Violation(12, "a value that nobody wrote", key=key, value=value)
        known = self.written[key].setdefault(value, index)
        if known != index:
            raise Violation(13, "a write took effect twice", key=key, value=value, one=known, other=index)

    def granted(self, lock: str, session: str, token: int) -> None:
        known = self.tokens[lock].setdefault(token, session)
        if known != session:
            raise Violation(14, "two holders of one token", lock=lock, token=token, one=known, other=session)

    def wrote_under(self, lock: str, token: int, index: int) -> None:
        self.fenced[lock].append((token, index))

    def judge(self, written_at: Callable[[str, bytes], float | None]) -> None:
        """`written_at`: when a key got a value, by the log; None: never. So a put whose client heard nothing is settled.

        Raises: Violation if some object's history has no explanation, naming the first answer that has none.
        """
        self._judge_fences()
        for (kind, name), told in sorted(self.operations.items()):
            operations = told + self._ends(told) if kind == "lock" else _settled(name, told, written_at)
            number, model = MODELS[kind]
            try:
                explained = linearizable(operations, model, MOST_STATES)
            except UndecidedError:
                self.undecided += 1  # the oracle has judged each answer
                continue
            if not explained:
                puzzle = _puzzle(operations, model)
                raise Violation(number, "the history has no explanation", subject=f"{kind} {name}", answer=puzzle)

    def _judge_fences(self) -> None:
        """Nothing is written under a token once a later one was granted, nor before its own grant."""
        for lock, writes in sorted(self.fenced.items()):
            for token, index in writes:
                between = [other for other in self.tokens[lock] if token < other <= index]
                if between or index <= token:
                    raise Violation(14, "written behind a newer grant", lock=lock, token=token, at=index, newer=between)

    def _ends(self, operations: list[Operation]) -> list[Operation]:
        """The sessions that took part may have expired, unheard of by anybody."""
        sessions = dict.fromkeys(o.request[1] for o in operations if o.request[0] == "acquire")
        return [self.lost(self.lifetimes[str(session)], ("end", session)) for session in sessions]

    @property
    def size(self) -> int:
        return sum(map(len, self.operations.values()))

    @staticmethod
    def lost(call: float, request: tuple[object, ...]) -> Operation:
        """Nobody knows what became of it."""
        return Operation(call, FOREVER, request)


def _settled(
    key: str, operations: list[Operation], written_at: Callable[[str, bytes], float | None]
) -> list[Operation]:
    """Puts that nobody heard of either were committed at a known time, or never, and then without effect."""
    settled = []
    for one in operations:
        value = one.request[-1]
        if one.known or one.request[0] not in ("put", "cas") or not isinstance(value, bytes):
            settled.append(one)
        elif (time := written_at(key, value)) is not None:
            settled.append(one._replace(reply=time, answer=True if one.request[0] == "cas" else None))
    return settled


def _puzzle(operations: list[Operation], model: Model[Any]) -> Operation:
    """The first answer that can't be explained together with those before it."""
    answers = sorted((operation for operation in operations if operation.known), key=lambda answer: answer.reply)
    good, bad = 0, len(answers)
    while bad - good > 1:
        middle = (good + bad) // 2
        end = answers[middle - 1].reply
        begun = [operation for operation in operations if operation.call <= end]
        open_ones = [one if one.reply <= end else one._replace(reply=FOREVER) for one in begun]
        good, bad = (middle, bad) if linearizable(open_ones, model) else (good, middle)
    return answers[bad - 1]
