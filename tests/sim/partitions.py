"""The shapes in which a network can fall apart. Each function names the links that are cut, out of those among `names`."""

from collections.abc import Callable, Sequence

from tests.sim.chance import Chance
from tests.sim.network import Link

__all__ = ["SHAPES", "between"]

Shape = Callable[[Sequence[str], str, Chance], list[Link]]
"""(names, the leader's or any name, chance) to the cut links."""


def between(some: Sequence[str], others: Sequence[str]) -> list[Link]:
    """All links between two groups, both ways."""
    return [link for one in some for other in others if one != other for link in ((one, other), (other, one))]


def minority(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """A minority without the leader is on its own."""
    others = [name for name in names if name != leader]
    apart = chance.sample(others, max(1, (len(names) - 1) // 2))
    return between(apart, [name for name in names if name not in apart])


def majority(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """The leader is left with a minority."""
    others = chance.sample([name for name in names if name != leader], max(0, (len(names) - 1) // 2 - 1))
    apart = [leader, *others]
    return between(apart, [name for name in names if name not in apart])


def alone(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """The leader reaches nobody."""
    return between([leader], names)


def bridge(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """Two halves that do not reach each other, and one server that reaches both."""
    _, *rest = chance.sample(names, len(names))
    half = len(rest) // 2
    return between(rest[:half], rest[half:])


def ring(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """Each reaches its two neighbours only."""
    circle = chance.sample(names, len(names))
    size = len(circle)
    return [
        (circle[a], circle[b])
        for a in range(size)
        for b in range(size)
        if a != b and (a - b) % size not in (1, size - 1)
    ]


def deaf(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """The leader is heard but hears nobody."""
    return [(name, leader) for name in names if name != leader]


def mute(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """The leader hears everybody but is not heard."""
    return [(leader, name) for name in names if name != leader]


def one_way(names: Sequence[str], leader: str, chance: Chance) -> list[Link]:
    """Some links work in one direction only."""
    links = [(one, other) for one in names for other in names if one != other]
    return chance.sample(links, max(1, len(links) // 3))


SHAPES: dict[str, Shape] = {
    "minority": minority,
    "majority": majority,
    "alone": alone,
    "bridge": bridge,
    "ring": ring,
    "deaf": deaf,
    "mute": mute,
    "one-way": one_way,
}
