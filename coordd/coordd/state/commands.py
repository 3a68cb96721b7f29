"""Which function applies which command. Every kind has one, or this does not import."""

from collections.abc import Callable
from typing import Any, get_args

from coordd.errors import invariant
from coordd.messages.command import (
    AclBootstrap,
    AclDeletePolicy,
    AclDeleteToken,
    AclPutPolicy,
    AclPutToken,
    Command,
    CommandResult,
    CreateSession,
    Deregister,
    DestroySession,
    ExpireClients,
    ExpireSessions,
    KvDelete,
    KvDeleteTree,
    KvPut,
    LockAcquire,
    LockCancel,
    LockRelease,
    RaiseFeatureLevel,
    Register,
    RegisterClient,
    SetNodeStatus,
)
from coordd.state import acl, catalog, health, kv, levels, locks, sessions
from coordd.state.clients import Clients
from coordd.state.rows import Rows

__all__ = ["Commands"]


class Commands:
    """Runs commands on one `Rows`."""

    def __init__(self, rows: Rows, clients: Clients) -> None:
        self._rows = rows
        self._apply: dict[type, Callable[[Rows, Any], CommandResult]] = {
            KvPut: kv.put,
            KvDelete: kv.delete,
            KvDeleteTree: kv.delete_tree,
            Register: catalog.register,
            Deregister: catalog.deregister,
            SetNodeStatus: health.set_node_status,
            CreateSession: sessions.create,
            DestroySession: sessions.destroy,
            ExpireSessions: sessions.expire,
            LockAcquire: locks.acquire,
            LockRelease: locks.release,
            LockCancel: locks.cancel,
            RegisterClient: clients.register,
            ExpireClients: clients.expire,
            AclBootstrap: acl.bootstrap,
            AclPutPolicy: acl.put_policy,
            AclDeletePolicy: acl.delete_policy,
            AclPutToken: acl.put_token,
            AclDeleteToken: acl.delete_token,
            RaiseFeatureLevel: levels.raise_level,
        }
        invariant(set(self._apply) == set(get_args(Command)), "every kind of command is applied by a function")

    def run(self, command: Command) -> CommandResult:
        """Apply one command. Raises: limits.Refused, before anything was changed; UnsupportedError."""
        return self._apply[type(command)](self._rows, command)
