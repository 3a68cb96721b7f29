"""What every part of the world shares: time, network, judge, trace, counts and the run's settings."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from coordd.raft.settings import RaftSettings
from tests.sim.chance import Chance
from tests.sim.clock import Schedule
from tests.sim.invariants import Invariants
from tests.sim.network import Network
from tests.sim.oracle import Oracle
from tests.sim.trace import Trace

__all__ = ["Options", "Surroundings", "Tuning"]


@dataclass(frozen=True)
class Options:
    """What the command line says about a run."""

    seed: int
    seconds: float = 20.0
    servers: int = 5
    paranoid: bool = False
    """Messages travel as bytes, and everything is compared from scratch after each step."""


@dataclass(frozen=True)
class Tuning:
    """How this run's servers are set up: drawn from the seed. Thresholds are small, so that rare things are common."""

    raft: RaftSettings
    floors: tuple[float, ...]
    """Factors of the election timeout, of which each server's settings have one."""
    priorities: tuple[int, ...]
    """Likewise."""
    write_latency: float
    """Mean seconds for one group of writes."""
    apply_latency: float
    loop_latency: float
    """Mean seconds from an event to the turn of the loop that takes it up, with what else came meanwhile."""
    apply_entries: int
    """Most entries applied at once."""
    checkpoint_ms: int
    checkpoint_entries: int
    """Applied entries between two checkpoints of the state; or so much time."""
    scrub_seconds: int
    compare_entries: int
    """Applied entries between two comparisons of digests."""
    compact_after_entries: int
    trailing_entries: int
    """Entries kept behind a checkpoint when the log is compacted."""
    chunk_bytes: int
    credits: int
    receivers: int
    idle_seconds: float
    keep_seconds: float
    """Of `server.snapshots.Snapshots`."""
    wal_limit: int
    tail_bytes: int


@dataclass
class Surroundings:
    options: Options
    tuning: Tuning
    chance: Chance
    schedule: Schedule
    network: Network
    invariants: Invariants
    oracle: Oracle
    trace: Trace
    folder: Path
    """Memory-backed; the servers' data folders lie in it."""
    counts: Counter[str] = field(default_factory=Counter)
    quiet_until: float = 0.0
    """Clients have nothing to do until then: a cluster whose log stands still."""

    def say(self, who: str, what: str, subject: object = None) -> None:
        self.trace.say(self.schedule.now, who, what, subject)
