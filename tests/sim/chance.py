"""All randomness of a run: a tree of generators that grows from one seed.

Each part of the world has a branch of its own, so that one part drawing more often does not change what another draws.
Seeding by text uses SHA-512, never `hash`: the tree is the same in every process, whatever PYTHONHASHSEED.
"""

import random

__all__ = ["Chance"]


class Chance(random.Random):
    """A generator that knows its place in the tree. It serves as the core's `Rng`."""

    def __new__(cls, path: str) -> "Chance":
        return super().__new__(cls)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def branch(self, name: object) -> "Chance":
        """The generator of a part; the same name always gives the same one, from its start."""
        return Chance(f"{self.path}/{name}")

    def happens(self, probability: float) -> bool:
        return probability > 0.0 and self.random() < probability
