"""What the clients asked and what they were told, by object, and the verdict on it."""

from collections import defaultdict
from dataclasses import dataclass, field

from tests.sim.invariants import Violation
from tests.sim.linearizability import FOREVER, LockModel, Operation, RegisterModel, linearizable

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
        """Raises: Violation if some object's history has no explanation."""
        for (kind, name), operations in sorted(self.operations.items()):
            explained = (
                linearizable(operations, RegisterModel()) if kind == "kv" else linearizable(operations, LockModel())
            )
            if not explained:
                raise Violation(
                    14 if kind == "lock" else 12, "the history has no explanation", subject=f"{kind} {name}"
                )

    @property
    def size(self) -> int:
        return sum(map(len, self.operations.values()))

    @staticmethod
    def lost(call: float, request: tuple[object, ...]) -> Operation:
        """Nobody knows what became of it."""
        return Operation(call, FOREVER, request)
