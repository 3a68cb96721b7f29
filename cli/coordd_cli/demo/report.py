"""What the demo tells: each step with its commands, what it showed and how long it took; for people or as JSON."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Report", "Status", "StepReport"]

Status: TypeAlias = Literal["ok", "failed", "not yet", "skipped"]

_MARKS: dict[str, str] = {"ok": "ok", "failed": "FAILED", "not yet": "not yet", "skipped": "skipped"}


@dataclass
class StepReport:
    """One step as it went."""

    name: str
    title: str
    status: Status = "ok"
    seconds: float = 0.0
    commands: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    error: str = ""


class Report:
    """Collects the steps; prints them as they happen, unless it is for machines."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.steps: list[StepReport] = []

    @property
    def failed(self) -> bool:
        return any(step.status in ("failed", "skipped") for step in self.steps)

    def begin(self, name: str, title: str) -> StepReport:
        step = StepReport(name, title)
        self.steps.append(step)
        self._print(f"\n{len(self.steps):2}. {title}  [{name}]")
        return step

    def command(self, arguments: Sequence[str]) -> None:
        line = shlex.join(arguments)
        self.steps[-1].commands.append(line)
        self._print(f"    $ {line}")

    def show(self, text: str) -> None:
        """A fact that the step is there to show."""
        self.steps[-1].shown.append(text)
        self._print("\n".join(f"      {line}" for line in text.splitlines()))

    def end(self, status: Status, seconds: float, error: str = "") -> None:
        step = self.steps[-1]
        step.status, step.seconds, step.error = status, round(seconds, 3), error
        if error:
            self._print("\n".join(f"      {line}" for line in error.splitlines()))
        self._print(
            f"    {_MARKS[status]} ({seconds:.2f} s)" if status in ("ok", "failed") else f"    {_MARKS[status]}"
        )

    def finish(self, seconds: float, facts: dict[str, Any]) -> None:
        """The end. `facts`: what a reader needs to go on with a cluster that was kept."""
        counts = {status: sum(step.status == status for step in self.steps) for status in _MARKS}
        if self._as_json:
            document = {
                "ok": not self.failed,
                "seconds": round(seconds, 3),
                **facts,
                "steps": [asdict(step) for step in self.steps],
            }
            print(json.dumps(document, indent=2))
            return
        words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        print(f"\n{words}, in {seconds:.1f} s")
        for key, value in facts.items():
            lines = value if isinstance(value, list) else [value]
            print(f"{key}:", *lines, sep="\n    " if isinstance(value, list) else " ")

    def _print(self, text: str) -> None:
        if not self._as_json:
            print(text, flush=True)
