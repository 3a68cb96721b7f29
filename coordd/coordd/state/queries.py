"""Answers to queries, from the state as applied. Every kind has an entry, or this does not import.

Each answer has a defined order, so that servers at the same index answer alike. A row that the authorizer does not let
through is left out, and the answer says so (`filtered`). Nothing is changed.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar, get_args

from coordd.acl.authorizer import Authorizer
from coordd.errors import invariant
from coordd.messages.query import (
    Catalog,
    CatalogEntry,
    Checks,
    Health,
    HealthEntry,
    KvGet,
    KvList,
    ListChecks,
    ListLocks,
    ListNodes,
    ListPolicies,
    ListServices,
    ListSessions,
    ListTokens,
    LockInfo,
    Locks,
    NodeCatalog,
    Nodes,
    Policies,
    Query,
    QueryResult,
    ResolveToken,
    ServiceHealth,
    ServiceNames,
    SessionInfo,
    Sessions,
    TokenInfo,
    TokenRules,
    Tokens,
)
from coordd.state import views
from coordd.state.acl import ANONYMOUS, rules_texts
from coordd.state.rows import Rows, from_json
from coordd.state.schema import CheckRow, LockRow, NodeRow, ServiceRow, SessionRow
from coordd.state.topics import KV, KV_PREFIX, Topic, fold

__all__ = ["answer", "topics"]

Answered = tuple[QueryResult, bool]
Row = TypeVar("Row")


class _Kind(NamedTuple):
    """How one kind of query is answered, and what its answer depends on."""

    answer: Callable[[Rows, Any, Authorizer, str], Answered]
    topics: Callable[[Any], tuple[Topic, ...]]


def answer(rows: Rows, query: Query, authorizer: Authorizer, accessor: str) -> Answered:
    """The query's result, and whether rows were left out of it."""
    return _KINDS[type(query)].answer(rows, query, authorizer, accessor)


def topics(query: Query) -> tuple[Topic, ...]:
    """What the answer depends on: it can't change while none of these does."""
    return _KINDS[type(query)].topics(query)


def _visible(found: Iterable[Row], may_see: Callable[[Row], bool]) -> tuple[list[Row], bool]:
    everything = list(found)
    seen = [row for row in everything if may_see(row)]
    return seen, len(seen) < len(everything)


# --- catalog and health -----------------------------------------------------------------------------------------------


def _node_seen(authorizer: Authorizer) -> Callable[[NodeRow], bool]:
    return lambda row: authorizer.allows("node", row.node, "read")


def _service_seen(authorizer: Authorizer) -> Callable[[ServiceRow], bool]:
    """A service instance is seen by who may read the service and the node it is on."""
    return lambda row: authorizer.allows("service", row.name, "read") and authorizer.allows("node", row.node, "read")


def _list_nodes(rows: Rows, query: ListNodes, authorizer: Authorizer, accessor: str) -> Answered:
    seen, filtered = _visible(rows.nodes.select("ORDER BY node"), _node_seen(authorizer))
    return Nodes(tuple(map(views.node, seen))), filtered


def _node_catalog(rows: Rows, query: NodeCatalog, authorizer: Authorizer, accessor: str) -> Answered:
    found = rows.nodes.select("WHERE node = ? COLLATE NOCASE", (query.node,))
    seen, filtered = _visible(found, _node_seen(authorizer))
    if not seen:
        return Catalog(()), filtered
    node = seen[0]
    services, services_filtered = _visible(
        rows.services.select("WHERE node = ? ORDER BY id", (node.node,)), _service_seen(authorizer)
    )
    checks, checks_filtered = _visible(
        rows.checks.select("WHERE node = ? ORDER BY id", (node.node,)), _check_seen(rows, authorizer)
    )
    entry = CatalogEntry(
        views.node(node),
        tuple(map(views.service, services)),
        tuple(views.check(row, views.service_of(rows, row)) for row in checks),
    )
    return Catalog((entry,)), services_filtered or checks_filtered


def _list_services(rows: Rows, query: ListServices, authorizer: Authorizer, accessor: str) -> Answered:
    seen, filtered = _visible(
        rows.services.select("ORDER BY name, node, id"), lambda row: authorizer.allows("service", row.name, "read")
    )
    tags: dict[str, set[str]] = {}
    for row in seen:
        tags.setdefault(row.name, set()).update(from_json(row.tags))
    return ServiceNames(tuple((name, tuple(sorted(tags[name]))) for name in sorted(tags))), filtered


def _instances(rows: Rows, service: str) -> list[ServiceRow]:
    return rows.services.select("WHERE name = ? COLLATE NOCASE ORDER BY node, id", (service,))


def _service_health(rows: Rows, query: ServiceHealth, authorizer: Authorizer, accessor: str) -> Answered:
    seen, filtered = _visible(_instances(rows, query.service), _service_seen(authorizer))
    entries = []
    for row in seen:
        checks = rows.checks.select("WHERE node = ? AND service_id IN ('', ?) ORDER BY id", (row.node, row.id))
        shown = tuple(views.check(check, row if check.service_id else None) for check in checks)
        entries.append(HealthEntry(views.node(rows.nodes.need(row.node)), views.service(row), shown))
    return Health(tuple(entries)), filtered


def _check_seen(rows: Rows, authorizer: Authorizer) -> Callable[[CheckRow], bool]:
    def seen(row: CheckRow) -> bool:
        service = views.service_of(rows, row)
        return authorizer.allows("node", row.node, "read") and (
            service is None or authorizer.allows("service", service.name, "read")
        )

    return seen


def _list_checks(rows: Rows, query: ListChecks, authorizer: Authorizer, accessor: str) -> Answered:
    conditions, values = [], []
    if query.node:
        conditions.append("node = ? COLLATE NOCASE")
        values.append(query.node)
    if query.status:
        conditions.append("status = ?")
        values.append(query.status)
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    found = rows.checks.select(f"{where}ORDER BY node, id", values)
    if query.service:
        instances = {(row.node, row.id) for row in _instances(rows, query.service)}
        found = [row for row in found if (row.node, row.service_id) in instances]
    seen, filtered = _visible(found, _check_seen(rows, authorizer))
    return Checks(tuple(views.check(row, views.service_of(rows, row)) for row in seen)), filtered


def _check_topics(query: ListChecks) -> tuple[Topic, ...]:
    if query.node:
        return (("node", fold(query.node)),)
    return (("service", fold(query.service)),) if query.service else (("checks",),)


# --- keys, sessions, locks ----------------------------------------------------------------------------------------------


def _kv_get(rows: Rows, query: KvGet, authorizer: Authorizer, accessor: str) -> Answered:
    row = rows.kv.get(query.key)
    seen, filtered = _visible([row] if row else [], lambda pair: authorizer.allows("key", pair.key, "read"))
    return views.pairs(seen), filtered


def _kv_list(rows: Rows, query: KvList, authorizer: Authorizer, accessor: str) -> Answered:
    def may_see(key: str) -> bool:
        return authorizer.allows("key", key, "read")

    if query.keys_only or query.separator:
        keys, filtered = _visible(views.keys_with_prefix(rows, query.prefix), may_see)
        return views.folded_keys(keys, query.prefix, query.separator), filtered
    seen, filtered = _visible(views.rows_with_prefix(rows, query.prefix), lambda row: may_see(row.key))
    return views.pairs(seen), filtered


def _list_sessions(rows: Rows, query: ListSessions, authorizer: Authorizer, accessor: str) -> Answered:
    if query.id:
        row = rows.sessions.get(query.id)
        found = [row] if row is not None and fold(query.node) in ("", fold(row.node)) else []
    elif query.node:
        found = rows.sessions.select("WHERE node = ? COLLATE NOCASE ORDER BY id", (query.node,))
    else:
        found = rows.sessions.select("ORDER BY id")

    def may_see(row: SessionRow) -> bool:
        return authorizer.allows("session", row.node, "read")

    seen, filtered = _visible(found, may_see)
    shown: tuple[SessionInfo, ...] = tuple(map(views.session, seen))
    return Sessions(shown), filtered


def _list_locks(rows: Rows, query: ListLocks, authorizer: Authorizer, accessor: str) -> Answered:
    def may_see(row: LockRow) -> bool:
        return authorizer.allows("lock", row.name, "read")

    if query.name:
        row = rows.locks.get(query.name)
        found = [row] if row is not None else []
    else:
        found = rows.locks.select("ORDER BY name")
    seen, filtered = _visible(found, may_see)
    shown: tuple[LockInfo, ...] = tuple(views.lock(rows, row) for row in seen)
    return Locks(shown), filtered


# --- ACL ----------------------------------------------------------------------------------------------------------------


def _list_policies(rows: Rows, query: ListPolicies, authorizer: Authorizer, accessor: str) -> Answered:
    found = rows.policies.select("WHERE ? IN ('', name) ORDER BY name", (query.name,))
    seen, filtered = _visible(found, lambda row: authorizer.allows("operator", "", "read"))
    return Policies(tuple(map(views.policy, seen))), filtered


def _list_tokens(rows: Rows, query: ListTokens, authorizer: Authorizer, accessor: str) -> Answered:
    found = rows.tokens.select("WHERE ? IN ('', accessor) ORDER BY accessor", (query.accessor,))
    seen, filtered = _visible(found, lambda row: authorizer.allows("operator", "", "read"))
    shown: tuple[TokenInfo, ...] = tuple(map(views.token, seen))
    return Tokens(shown), filtered


def _resolve_token(rows: Rows, query: ResolveToken, authorizer: Authorizer, accessor: str) -> Answered:
    """What the asking token may do; of all things about it, its secret alone is not known here."""
    token = rows.tokens.get(accessor or ANONYMOUS)
    enabled = rows.acl_enabled > 0
    if token is None:
        return TokenRules(accessor, enabled, management=False, rules=()), False
    return TokenRules(accessor, enabled, bool(token.management), rules_texts(rows, token)), False


def _on(*topic: str) -> Callable[[Any], tuple[Topic, ...]]:
    return lambda query: (topic,)


_KINDS: dict[type, _Kind] = {
    KvGet: _Kind(_kv_get, lambda query: ((KV, query.key),)),
    KvList: _Kind(_kv_list, lambda query: ((KV_PREFIX, query.prefix),)),
    ListNodes: _Kind(_list_nodes, _on("nodes")),
    NodeCatalog: _Kind(_node_catalog, lambda query: (("node", fold(query.node)),)),
    ListServices: _Kind(_list_services, _on("services")),
    ServiceHealth: _Kind(_service_health, lambda query: (("service", fold(query.service)),)),
    ListChecks: _Kind(_list_checks, _check_topics),
    ListSessions: _Kind(_list_sessions, lambda query: (("session", query.id) if query.id else ("sessions",),)),
    ListLocks: _Kind(_list_locks, lambda query: (("lock", query.name) if query.name else ("locks",),)),
    ListPolicies: _Kind(_list_policies, _on("acl")),
    ListTokens: _Kind(_list_tokens, _on("acl")),
    ResolveToken: _Kind(_resolve_token, _on("acl")),
}
invariant(set(_KINDS) == set(get_args(Query)), "every kind of query is answered")
