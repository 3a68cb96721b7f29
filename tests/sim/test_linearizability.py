"""The checker agrees with the definition on random small histories, good and bad, and finds the classical faults."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.sim.linearizability import (
    FOREVER,
    LockModel,
    Model,
    Operation,
    RegisterModel,
    SetModel,
    UndecidedError,
    by_force,
    linearizable,
)


def register_operation(chance: random.Random) -> tuple[tuple[object, ...], object]:
    values = [(), (1,), (2,)]
    kind = chance.choice(["put", "get", "get", "cas", "delete"])
    if kind == "put":
        return ("put", chance.randint(1, 2)), None
    if kind == "get":
        return ("get",), chance.choice(values)
    if kind == "cas":
        return ("cas", chance.choice(values), chance.randint(1, 2)), chance.random() < 0.5
    return ("delete", chance.choice(values)), chance.random() < 0.5


def lock_operation(chance: random.Random) -> tuple[tuple[object, ...], object]:
    kind = chance.choice(["acquire", "acquire", "release", "fenced", "end"])
    if kind == "acquire":
        return ("acquire", chance.choice("ab"), chance.randint(1, 4)), chance.randint(0, 4)
    if kind == "end":
        return ("end", chance.choice("ab")), None
    return (kind, chance.randint(1, 4)), chance.random() < 0.5


def set_operation(chance: random.Random) -> tuple[tuple[object, ...], object]:
    kind = chance.choice(["add", "add", "remove", "list", "list"])
    if kind == "list":
        return ("list",), tuple(name for name in "abc" if chance.random() < 0.5)
    return (kind, chance.choice("abc")), None


OBJECTS: list[tuple[Model[Any], Callable[..., Any]]] = [
    (RegisterModel(), register_operation),
    (LockModel(), lock_operation),
    (SetModel(), set_operation),
]


def history(
    chance: random.Random, model: Model[Any], draw: Callable[[random.Random], tuple[tuple[object, ...], object]]
) -> list[Operation]:
    """A random history: mostly answers that some order explains, so that both verdicts are common."""
    operations: list[Operation] = []
    state = model.initial
    for moment in range(chance.randint(1, 6)):
        call = moment - chance.choice([0, 1, 2, 3])
        reply = FOREVER if chance.random() < 0.15 else moment + chance.choice([0.5, 1, 2])
        for _ in range(8):
            request, answer = draw(chance)
            operation = Operation(call, reply, request, answer)
            after = model.step(state, operation)
            if after is not None or chance.random() < 0.05:
                state = state if after is None else after
                operations.append(operation)
                break
    return operations


@pytest.mark.parametrize(("model", "draw"), OBJECTS)
def test_the_checker_agrees_with_the_definition(model: Model[Any], draw: Callable[..., Any]) -> None:
    verdicts = []
    for seed in range(1500):
        operations = history(random.Random(seed), model, draw)
        expected = by_force(operations, model)
        assert linearizable(operations, model) is expected, f"seed {seed}: {operations}"
        verdicts.append(expected)
    assert min(verdicts.count(True), verdicts.count(False)) > 50, "both verdicts must be common"


def test_a_stale_read_is_found() -> None:
    put = [Operation(0, 1, ("put", 1)), Operation(2, 3, ("put", 2))]
    assert linearizable([*put, Operation(4, 5, ("get",), (2,))], RegisterModel())
    assert not linearizable([*put, Operation(4, 5, ("get",), (1,))], RegisterModel())


def test_a_write_without_reply_may_appear_late_or_never_but_not_vanish() -> None:
    lost = Operation(0, FOREVER, ("put", 1))
    late = [Operation(1, 2, ("get",), ()), Operation(3, 4, ("get",), (1,))]
    assert linearizable([lost, *late], RegisterModel())
    assert not linearizable([lost, *late, Operation(5, 6, ("get",), ())], RegisterModel())


def test_two_holders_of_one_lock_are_found() -> None:
    first = Operation(0, 1, ("acquire", "a"), 5)
    assert not linearizable([first, Operation(2, 3, ("acquire", "b"), 6)], LockModel())
    ended = Operation(1, 3, ("end", "a"))
    assert linearizable([first, ended, Operation(2, 3, ("acquire", "b"), 6)], LockModel())
    assert not linearizable([first, ended, Operation(4, 5, ("acquire", "b"), 5)], LockModel()), "a token came twice"


def test_a_set_that_forgets_a_member_or_shows_half_a_change_is_found() -> None:
    added = [Operation(0, 1, ("add", "a")), Operation(2, 3, ("add", "b"))]
    assert linearizable([*added, Operation(4, 5, ("list",), ("a", "b"))], SetModel())
    assert linearizable([*added, Operation(2, 5, ("list",), ("a",))], SetModel())
    assert not linearizable([*added, Operation(4, 5, ("list",), ("b",))], SetModel())
    assert not linearizable([*added, Operation(2, 5, ("list",), ("b",))], SetModel()), "a was there before b"


def test_a_search_that_takes_too_long_is_given_up() -> None:
    lost = [Operation(0, FOREVER, ("put", number)) for number in range(20)]
    gets = [Operation(number, number + 0.5, ("get",), (99,)) for number in range(1, 3)]
    with pytest.raises(UndecidedError):
        linearizable([*lost, *gets], RegisterModel(), most=1000)


def test_long_histories_are_cheap() -> None:
    operations = [Operation(i, i + 4, ("put", i)) for i in range(2000)]
    operations += [Operation(i + 4.5, i + 5, ("get",), (i,)) for i in range(0, 2000, 50)]
    assert linearizable(sorted(operations), RegisterModel())
