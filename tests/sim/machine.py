"""The replicated state, watched: the shipped one on a real file."""

from collections.abc import Callable, Sequence
from typing import Self

from coordd.state.machine import Applied, Machine
from coordd.types import Index, Term
from tests.sim.condition import Condition

__all__ = ["OnApply", "WatchedMachine"]

OnApply = Callable[[Index, Sequence[tuple[Term, bytes]], Sequence[Applied], int], None]
"""(first index, entries, their results, digest afterwards)."""


class WatchedMachine(Machine):
    """`on_apply` hears of every batch, `on_sync` when the file was synced: with what it holds."""

    on_apply: OnApply
    on_sync: Callable[[Index], None]
    condition: Condition

    @classmethod
    def watched(
        cls,
        path: str,
        on_apply: OnApply,
        on_sync: Callable[[Index], None],
        condition: Condition,
        *,
        examined: bool = False,
    ) -> Self:
        machine = cls.open(path, examined=examined)
        assert isinstance(machine, cls)
        machine.on_apply, machine.on_sync, machine.condition = on_apply, on_sync, condition
        machine.space_changed()
        on_sync(machine.applied)
        return machine

    def space_changed(self) -> None:
        self.condition.limit(self._connection)

    def checkpoint(self) -> bool:
        with self.condition.writing():
            complete = super().checkpoint()
        self.on_sync(self.applied)
        return complete

    def apply(self, first: Index, entries: Sequence[tuple[Term, bytes]]) -> list[Applied]:
        with self.condition.writing():
            applied = super().apply(first, entries)
        self.on_apply(first, entries, applied, self.digest)
        return applied
