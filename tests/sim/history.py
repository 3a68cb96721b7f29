"""What the clients asked and what they were told, by object, and the verdict on it."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.sim.linearizability import FOREVER, LockModel, Model, Operation, RegisterModel, linearizable
from tests.sim.violation import Violation

__all__ = ["History"]

Subject = tuple[str, str]
"""("kv", key) or ("lock", name)."""


@dataclass
class History:
    operations: dict[Subject, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    tokens: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    """Each lock's grants: token and session."""
    written: dict[str, dict[bytes, int]] = field(default_factory=lambda: defaultdict(dict))
    """Each key's values (every one is written once) and the index at which each was seen to be written."""
    lifetimes: dict[str, float] = field(default_factory=dict)
    """Each session, and the time until which it was promised to live: it may end by itself at any time after."""
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

    def judge(self) -> None:
        """Raises: Violation if some object's history has no explanation, naming the first answer that has none."""
        for (kind, name), told in sorted(self.operations.items()):
            operations = told + self._ends(told) if kind == "lock" else told
            model: Model[Any] = RegisterModel() if kind == "kv" else LockModel()
            if not linearizable(operations, model):
                number = 14 if kind == "lock" else 12
                puzzle = _puzzle(operations, model)
                raise Violation(number, "the history has no explanation", subject=f"{kind} {name}", answer=puzzle)

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
