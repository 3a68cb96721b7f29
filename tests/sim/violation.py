"""What ends a run: one of the numbered invariants does not hold."""

__all__ = ["Violation", "check"]


class Violation(AssertionError):  # noqa: N818 - the word of the trade
    """`number` is that of the project's list of 17."""

    def __init__(self, number: int, text: str, **facts: object) -> None:
        self.number = number
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        super().__init__(f"invariant {number}: {text} ({shown})" if shown else f"invariant {number}: {text}")


def check(condition: bool, number: int, text: str, **facts: object) -> None:
    if not condition:
        raise Violation(number, text, **facts)
