"""How one host's disk behaves just now; log writer and helper ask it, faults change it."""

from collections.abc import Callable

__all__ = ["Condition"]


class Condition:
    """Mutable; one per host, over all its lives."""

    def __init__(self) -> None:
        self.stalled_until = 0.0
        self.slowness = 1.0
        self.ambush: Callable[[float, float], None] | None = None
        """Called once, when something is begun: with the times at which it begins and will be done."""

    def heal(self) -> None:
        self.stalled_until, self.slowness = 0.0, 1.0
        self.ambush = None

    def busy(self, begun: float, done: float) -> None:
        """Something is being written from `begun` to `done`."""
        ambush, self.ambush = self.ambush, None
        if ambush is not None:
            ambush(begun, done)
