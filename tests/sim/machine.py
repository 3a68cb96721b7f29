"""The replicated state, watched: the shipped one on a real file."""

from collections.abc import Callable, Sequence
from typing import Self

from coordd.state.machine import Applied, Machine
from coordd.types import Index, Term

__all__ = ["OnApply", "WatchedMachine"]

OnApply = Callable[[Index, Sequence[tuple[Term, bytes]], int], None]
"""(first index, entries, digest afterwards)."""


class WatchedMachine(Machine):
    """`on_apply` hears of every batch, `on_sync` when the file was synced."""

    on_apply: OnApply
    on_sync: Callable[[], None]

    @classmethod
    def watched(cls, path: str, on_apply: OnApply, on_sync: Callable[[], None], *, examined: bool = False) -> Self:
        machine = cls.open(path, examined=examined)
        assert isinstance(machine, cls)
        machine.on_apply, machine.on_sync = on_apply, on_sync
        on_sync()
        return machine

    def checkpoint(self) -> bool:
        complete = super().checkpoint()
        self.on_sync()
        return complete

    def apply(self, first: Index, entries: Sequence[tuple[Term, bytes]]) -> list[Applied]:
        applied = super().apply(first, entries)
        self.on_apply(first, entries, self.digest)
        return applied
