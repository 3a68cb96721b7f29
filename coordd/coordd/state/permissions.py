"""What each command and each query asks of a token, all in one table. Every kind has an entry, or this does not import.

A request needs all of its permissions. Lists ask for none here: their rows are judged one by one (queries.py). What only a
leader proposes needs `internal`, which no token has; what any writer does needs write access to `anything`. Where a
permission depends on what is registered under an id, the state as applied is asked, so judge just before proposing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from coordd.acl.authorizer import Access, Authorizer
from coordd.errors import invariant
from coordd.messages import command, query
from coordd.messages.command import Command
from coordd.messages.query import Query
from coordd.state.rows import Rows

__all__ = ["Permission", "required"]


class Permission(NamedTuple):
    """One thing a token must be allowed."""

    resource: str
    name: str
    access: Access
    prefix: bool = False
    """Everything that begins with the name, not the one thing."""

    def granted(self, authorizer: Authorizer) -> bool:
        if self.prefix:
            return authorizer.allows_prefix(self.resource, self.name, self.access)
        return authorizer.allows(self.resource, self.name, self.access)


Permissions = tuple[Permission, ...]
_OPERATOR_READ = (Permission("operator", "", "read"),)
_OPERATOR_WRITE = (Permission("operator", "", "write"),)


def required(rows: Rows, item: Command | Query) -> Permissions:
    """What a token must be allowed, all of it, for this command or query."""
    return _REQUIRED[type(item)](rows, item)


def _nothing(rows: Rows, item: object) -> Permissions:
    return ()


def _internal(rows: Rows, item: object) -> Permissions:
    return (Permission("internal", "", "write"),)


def _some_write(rows: Rows, item: object) -> Permissions:
    """A registration takes room in the state: whoever may write nothing has no use for one."""
    return (Permission("anything", "", "write"),)


def _operator_read(rows: Rows, item: object) -> Permissions:
    return _OPERATOR_READ


def _operator_write(rows: Rows, item: object) -> Permissions:
    return _OPERATOR_WRITE


def _key_write(rows: Rows, item: command.KvPut | command.KvDelete) -> Permissions:
    return (Permission("key", item.key, "write"),)


def _tree_write(rows: Rows, item: command.KvDeleteTree) -> Permissions:
    return (Permission("key", item.prefix, "write", prefix=True),)


def _key_read(rows: Rows, item: query.KvGet) -> Permissions:
    return (Permission("key", item.key, "read"),)


def _register(rows: Rows, item: command.Register) -> Permissions:
    """The node's record, each service by its new and its old name, and what each check belongs to."""
    needed: set[Permission] = set()
    if not item.skip_node_update or rows.nodes.get(item.node) is None:
        needed.add(Permission("node", item.node, "write"))
    names = {}
    for service in item.services:
        names[service.id] = service.name
        needed.add(Permission("service", service.name, "write"))
        needed.update(_service(rows, item.node, service.id))
    for check in item.checks:
        needed.update(_check(rows, item.node, check.id))
        if check.service_id in names:
            continue
        needed.update(_service(rows, item.node, check.service_id) or (Permission("node", item.node, "write"),))
    return tuple(sorted(needed))


def _deregister(rows: Rows, item: command.Deregister) -> Permissions:
    if item.service_id:
        owner = _service(rows, item.node, item.service_id)
    elif item.check_id:
        owner = _check(rows, item.node, item.check_id)
    else:
        owner = ()
    return owner or (Permission("node", item.node, "write"),)


def _service(rows: Rows, node: str, service_id: str) -> Permissions:
    """Write on the service registered under this id; () if there is none."""
    row = rows.services.get(node, service_id)
    return (Permission("service", row.name, "write"),) if row is not None else ()


def _check(rows: Rows, node: str, check_id: str) -> Permissions:
    """Write on what the registered check belongs to; () if there is no such check."""
    row = rows.checks.get(node, check_id)
    if row is None:
        return ()
    return _service(rows, node, row.service_id) or (Permission("node", node, "write"),)


def _session_create(rows: Rows, item: command.CreateSession) -> Permissions:
    return (Permission("session", item.node, "write"),)


def _session_destroy(rows: Rows, item: command.DestroySession) -> Permissions:
    session = rows.sessions.get(item.id)
    return (Permission("session", session.node, "write"),) if session is not None else ()


def _lock_write(rows: Rows, item: command.LockAcquire | command.LockRelease | command.LockCancel) -> Permissions:
    return (Permission("lock", item.name, "write"),)


def _bootstrap(rows: Rows, item: command.AclBootstrap) -> Permissions:
    """Nothing the first time; afterwards it is refused when applied, with a better reason than a missing permission."""
    return ()


_REQUIRED: dict[type, Callable[[Rows, Any], Permissions]] = {
    command.KvPut: _key_write,
    command.KvDelete: _key_write,
    command.KvDeleteTree: _tree_write,
    command.Register: _register,
    command.Deregister: _deregister,
    command.SetNodeStatus: _internal,
    command.CreateSession: _session_create,
    command.DestroySession: _session_destroy,
    command.ExpireSessions: _internal,
    command.LockAcquire: _lock_write,
    command.LockRelease: _lock_write,
    command.LockCancel: _lock_write,
    command.RegisterClient: _some_write,
    command.ExpireClients: _internal,
    command.AclBootstrap: _bootstrap,
    command.AclPutPolicy: _operator_write,
    command.AclDeletePolicy: _operator_write,
    command.AclPutToken: _operator_write,
    command.AclDeleteToken: _operator_write,
    command.RaiseFeatureLevel: _internal,
    query.KvGet: _key_read,
    query.KvList: _nothing,
    query.ListNodes: _nothing,
    query.NodeCatalog: _nothing,
    query.ListServices: _nothing,
    query.ServiceHealth: _nothing,
    query.ListChecks: _nothing,
    query.ListSessions: _nothing,
    query.ListLocks: _nothing,
    query.ListPolicies: _operator_read,
    query.ListTokens: _operator_read,
    query.ResolveToken: _nothing,
}
invariant(
    set(_REQUIRED) == {*get_args(Command), *get_args(Query)}, "every command and every query has declared permissions"
)
