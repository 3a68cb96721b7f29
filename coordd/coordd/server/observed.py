"""What a server counts about itself, for `coordctl info` and for the log. Plain numbers, read by anyone, kept in memory."""

from dataclasses import dataclass

from coordd.raft.output import Fact

__all__ = ["Observed"]


@dataclass(slots=True)
class Observed:
    """Counts since this start."""

    dropped: int = 0
    """Messages to peers that found no connection or no room."""
    compactions: int = 0
    snapshots_sent: int = 0
    snapshots_installed: int = 0
    states_lost: int = 0
    """Found damaged, and fetched anew from another server."""
    scrubs: int = 0
    """The whole state file was read again, and was right."""
    digests_compared: int = 0
    digests_differed: int = 0
    """Indexes at which another server's state was not this one's."""
    elections_begun: int = 0
    elections_won: int = 0
    commands_applied: int = 0
    reads_lease: int = 0
    reads_index: int = 0
    reads_stale: int = 0
    tick_late_ms_max: float = 0.0
    """How late the loop came to a deadline at worst."""
    fsync_seconds: float = 0.0
    """Duration of the last group commit."""

    def count(self, fact: Fact) -> None:
        """Facts of the core that are worth a number."""
        if fact.name == "pre-candidate":
            self.elections_begun += 1
        elif fact.name == "leader":
            self.elections_won += 1
