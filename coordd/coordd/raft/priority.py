"""Which server leads rather: a number in each server's settings, the same for all by default.

A follower waits longer before it campaigns if healthy voters of higher priority are there to do it, as its leader told it
last; by two election timeouts at most, so that voters of low priority alone elect one of them a little later. And a leader
hands over to a voter of higher priority that was heard and caught up for a while. Only timers and the choice of a successor
depend on it: votes are judged as ever.
"""

from coordd.raft.progress import Progress, ProgressState
from coordd.raft.replica import Leadership, Replica
from coordd.types import ServerId

__all__ = ["preferred", "ranks"]

_RETRY = 6
"""Holds between two attempts: a transfer that fails costs the lease of the term."""


def ranks(r: Replica, leading: Leadership, now: float) -> dict[ServerId, int]:
    """For each follower: how many steps of priority there are among healthy voters before it."""
    there = {progress.priority for progress in r.healthy_voters(leading, now)}
    return {peer: sum(priority > progress.priority for priority in there) for peer, progress in leading.peers.items()}


def preferred(r: Replica, leading: Leadership, now: float) -> ServerId | None:
    """Once an interval: to whom this leader should hand over now."""
    healthy = r.healthy_voters(leading, now)
    fit = [p for p in healthy if p.priority > r.settings.priority and _caught_up(p, leading)]
    for progress in leading.peers.values():
        if progress not in fit:
            progress.preferred_since = None
        elif progress.preferred_since is None:
            progress.preferred_since = now
    leading.committed_before = r.log.commit
    held = [p for p in fit if p.preferred_since is not None and now - p.preferred_since >= r.settings.priority_hold]
    if not held or now < leading.handover_after or leading.transfer is not None or r.configuration_index > r.log.commit:
        return None
    leading.handover_after = now + _RETRY * r.settings.priority_hold
    return max(held, key=lambda p: (p.priority, p.match, p.peer)).peer


def _caught_up(progress: Progress, leading: Leadership) -> bool:
    """It holds what was committed an interval ago; under load nobody holds everything at every moment."""
    return progress.state is ProgressState.REPLICATE and progress.match >= leading.committed_before
