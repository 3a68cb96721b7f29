"""What a run amounted to, and whether that was enough: a simulator that does little proves little."""

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["FLOORS", "Summary"]

FLOORS: dict[str, tuple[float, float]] = {
    "operations": (20.0, float("inf")),
    "faults": (1.0, float("inf")),
    "changes and snapshots": (0.05, float("inf")),
    "leader permille": (400.0, 950.0),
}
"""Least and most a simulated second, averaged over all runs; the last one averaged as it is."""
LONG = 1000.0
"""Simulated seconds in which every kind of what is counted beforehand with nothing must have happened."""


@dataclass
class Summary:
    """Counts of one run, or of many."""

    counts: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    simulated: float = 0.0
    real: float = 0.0

    def add(self, other: "Summary") -> None:
        self.counts.update(other.counts)
        self.runs += other.runs
        self.simulated += other.simulated
        self.real += other.real

    def measured(self) -> dict[str, float]:
        """The figures that have floors."""
        seconds = max(self.simulated, 1e-9)
        counts = self.counts
        snapshots = counts["snapshots installed"] + counts["membership changes"]
        return {
            "operations": counts["operations"] / seconds,
            "faults": counts["faults"] / seconds,
            "changes and snapshots": snapshots / seconds,
            "leader permille": counts["leader permille"] / max(1, self.runs),
        }

    def shortfalls(self) -> list[str]:
        """What happened too rarely, and in a long series what never did."""
        never = [name for name, count in sorted(self.counts.items()) if not count and self.simulated >= LONG]
        return [
            f"{name}: {value:.2f} is not within {FLOORS[name][0]:g} .. {FLOORS[name][1]:g}"
            for name, value in self.measured().items()
            if not FLOORS[name][0] <= value <= FLOORS[name][1]
        ] + [f"{name}: never" for name in never]

    @property
    def speed(self) -> float:
        """Simulated seconds in one real second of one core."""
        return self.simulated / max(self.real, 1e-9)

    def line(self) -> str:
        """One run on one line."""
        c = self.counts
        return (
            f"{c['events']} events, {c['operations']} operations, {c['faults']} faults, {c['fact leader']} elections, "
            f"{c['snapshots installed']} snapshots, {c['membership changes']} changes, "
            f"leader {c['leader permille'] / 10 / max(1, self.runs):.0f} %, "
            f"{self.speed:.0f} x real time"
        )

    def table(self) -> str:
        lines = [
            f"{self.runs} runs, {self.simulated:.0f} simulated seconds in {self.real:.1f} of one core: {self.speed:.0f} x"
        ]
        lines += [
            f"  {name:<40} {count:>12}" for name, count in sorted(self.counts.items()) if name != "leader permille"
        ]
        lines += ["averages (a simulated second):"]
        lines += [f"  {name:<40} {value:>12.2f}" for name, value in self.measured().items()]
        return "\n".join(lines)
