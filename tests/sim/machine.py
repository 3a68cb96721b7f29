"""The replicated state in memory, watched: what a crash leaves of it is what was serialised at the last checkpoint."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from coordd.state.machine import Applied, Machine
from coordd.types import Index, Term

__all__ = ["EMPTY", "Image", "WatchedMachine"]

OnApply = Callable[[Index, Sequence[tuple[Term, bytes]], int], None]
"""(first index, entries, digest afterwards)."""


class Image(NamedTuple):
    """A state file as bytes; b"" is the state before the first entry."""

    applied: Index
    term: Term
    content: bytes


EMPTY = Image(0, 0, b"")


class WatchedMachine(Machine):
    """The shipped state; `on_apply` hears of every batch."""

    on_apply: OnApply

    @classmethod
    def from_image(cls, image: Image, on_apply: OnApply) -> "WatchedMachine":
        machine = cls.open(":memory:")
        assert isinstance(machine, cls)
        machine.on_apply = on_apply
        if image.content:
            machine._connection.deserialize(image.content)
            machine._load()
        return machine

    def image(self) -> Image:
        return Image(self.applied, self.applied_term, self._connection.serialize())

    def apply(self, first: Index, entries: Sequence[tuple[Term, bytes]]) -> list[Applied]:
        applied = super().apply(first, entries)
        self.on_apply(first, entries, self.digest)
        return applied
