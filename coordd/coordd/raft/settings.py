"""What an operator may tune of the core. Times are seconds, sizes bytes; ranges are checked where the settings are read."""

import msgspec

__all__ = ["RaftSettings"]


class RaftSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults are for a LAN. All servers of a cluster must have the same."""

    heartbeat_interval: float = 0.060
    election_timeout: float = 0.300
    """Base T: followers campaign after a time drawn from [T, 2T) without a leader, and are deaf to candidates for T."""
    max_election_timeout: float = 3.0
    """T follows what is measured between these two (`timing.py`); leases count on the first."""
    lease_duration: float = 0.240
    """How long a confirmed round lets the leader read locally; below 0.9 of the least T, the rest is for clocks that drift."""
    priority: int = 0
    """Servers of higher priority lead rather (`priority.py`)."""
    priority_hold: float = 10.0
    """For so long a voter of higher priority must be heard and caught up before it is handed leadership."""
    max_append_entries: int = 1024
    max_append_bytes: int = 1024 * 1024
    min_inflight_messages: int = 2
    """Appends on their way to one follower, unacknowledged, are at most as many as its window allows: this at least, ..."""
    max_inflight_messages: int = 64
    """... and this at most, ..."""
    max_inflight_bytes: int = 16 * 1024 * 1024
    """... which carry this much then, and less in proportion while it is smaller (`window.py`)."""
    max_uncommitted_bytes: int = 64 * 1024 * 1024
    """Proposals above this are refused as busy; one oversized proposal is let in when nothing else waits (rule 45)."""
    memory_tail_bytes: int = 32 * 1024 * 1024
    """How much of the log stays in memory although it is applied and durable."""
    departing_timeout: float = 5.0
    """How long the leader goes on telling a removed server that it was removed."""
    max_reads: int = 100_000
    """Linearizable reads that may wait at once; more are answered "ask again"."""
