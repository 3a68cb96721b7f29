"""Feature levels: since when coordd knows each kind of command (rule 95).

Level 1 is the first. A version supports all levels up to `SUPPORTED`; a cluster is at one *active* level, part of the
replicated state, which only rises, by `RaiseFeatureLevel` in the log, once every server supports the next one. A command
above the active level is not proposed: a server that can't read it would have to stop.

How to add a kind (or a field, or a limit, or anything else that decides what a command does): add one to `SUPPORTED`, give
the kind that level in `INTRODUCED`, and record the log of the new level (`python -m tests.state.recording`). A field needs
`level_of` to look at it, since a version without it can't read the command. What applies differently from a level on asks
`rows.feature_level` and keeps the old way, for logs that were written under it. Levels are never reused or lowered.
"""

from coordd.messages import command as kinds
from coordd.messages.command import Command

__all__ = ["FIRST", "INTRODUCED", "SUPPORTED", "level_of"]

FIRST = 1
SUPPORTED = 1
"""The highest level that this version knows. Always to be read as `levels.SUPPORTED`: tests raise it."""

INTRODUCED: dict[type, int] = {
    kinds.KvPut: 1,
    kinds.KvDelete: 1,
    kinds.KvDeleteTree: 1,
    kinds.Register: 1,
    kinds.Deregister: 1,
    kinds.SetNodeStatus: 1,
    kinds.CreateSession: 1,
    kinds.DestroySession: 1,
    kinds.ExpireSessions: 1,
    kinds.LockAcquire: 1,
    kinds.LockRelease: 1,
    kinds.LockCancel: 1,
    kinds.RegisterClient: 1,
    kinds.ExpireClients: 1,
    kinds.AclBootstrap: 1,
    kinds.AclPutPolicy: 1,
    kinds.AclDeletePolicy: 1,
    kinds.AclPutToken: 1,
    kinds.AclDeleteToken: 1,
    kinds.RaiseFeatureLevel: 1,
}
"""Every kind has an entry (tested)."""


def level_of(command: Command) -> int:
    """The active level that a cluster must have for this command."""
    return INTRODUCED[type(command)]
