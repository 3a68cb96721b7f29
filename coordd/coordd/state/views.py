"""Rows as clients see them: from the columns of a table to the structs of `messages.client`."""

from collections.abc import Iterable

from coordd.errors import InvalidError
from coordd.messages.codec import MAX_FRAME_BYTES
from coordd.messages.command import CheckDefinition, CheckStatus, ServiceDefinition, SessionBehavior
from coordd.messages.query import (
    CheckInfo,
    Keys,
    KvPair,
    KvPairs,
    LockInfo,
    LockWaiter,
    NodeInfo,
    PolicyInfo,
    ServiceInfo,
    SessionInfo,
    TokenInfo,
)
from coordd.state import locks
from coordd.state.kv import unsigned
from coordd.state.rows import Rows, from_json
from coordd.state.schema import CheckRow, KvRow, LockRow, NodeRow, PolicyRow, ServiceRow, SessionRow, TokenRow
from coordd.state.topics import prefix_range

__all__ = [
    "check",
    "folded_keys",
    "keys_with_prefix",
    "lock",
    "node",
    "pairs",
    "policy",
    "rows_with_prefix",
    "service",
    "service_of",
    "session",
    "token",
]

_LARGEST_LIST = MAX_FRAME_BYTES // 2
_KEY_BYTES = "length(CAST(key AS BLOB))"
_STATUS: dict[str, CheckStatus] = {"passing": "passing", "warning": "warning", "critical": "critical"}
_BEHAVIOR: dict[str, SessionBehavior] = {"release": "release", "delete": "delete"}


def node(row: NodeRow) -> NodeInfo:
    return NodeInfo(
        node=row.node,
        address=row.address,
        node_id=row.node_id,
        meta=from_json(row.meta),
        tagged_addresses=from_json(row.tagged_addresses),
        create_index=row.create_index,
        modify_index=row.modify_index,
    )


def service(row: ServiceRow) -> ServiceInfo:
    tagged = {name: (address, port) for name, (address, port) in from_json(row.tagged_addresses).items()}
    definition = ServiceDefinition(
        id=row.id,
        name=row.name,
        tags=tuple(from_json(row.tags)),
        address=row.address,
        port=row.port,
        meta=from_json(row.meta),
        tagged_addresses=tagged,
        weight_passing=row.weight_passing,
        weight_warning=row.weight_warning,
        enable_tag_override=bool(row.enable_tag_override),
    )
    return ServiceInfo(row.node, definition, row.create_index, row.modify_index)


def service_of(rows: Rows, row: CheckRow) -> ServiceRow | None:
    """The service instance that a check belongs to; None for a check of the node."""
    return rows.services.get(row.node, row.service_id) if row.service_id else None


def check(row: CheckRow, owner: ServiceRow | None) -> CheckInfo:
    definition = CheckDefinition(
        id=row.id,
        name=row.name,
        status=_STATUS[row.status],
        service_id=row.service_id,
        output=row.output,
        notes=row.notes,
        type=row.type,
        interval=row.interval,
        timeout=row.timeout,
    )
    return CheckInfo(
        node=row.node,
        check=definition,
        service_name=owner.name if owner is not None else "",
        service_tags=tuple(from_json(owner.tags)) if owner is not None else (),
        create_index=row.create_index,
        modify_index=row.modify_index,
    )


def pairs(found: Iterable[KvRow]) -> KvPairs:
    return KvPairs(
        tuple(
            KvPair(
                key=row.key,
                value=row.value,
                flags=unsigned(row.flags),
                create_index=row.create_index,
                modify_index=row.modify_index,
                lock_index=row.lock_index,
                version=row.version,
                session=row.session,
            )
            for row in found
        )
    )


def rows_with_prefix(rows: Rows, prefix: str) -> list[KvRow]:
    """Raises: InvalidError if the answer would not fit into a reply."""
    where, bounds = prefix_range("key", prefix)
    _check_size(rows.kv.scalar(f"sum({_KEY_BYTES} + length(value) + 64)", f"WHERE {where}", bounds))
    return rows.kv.select(f"WHERE {where} ORDER BY key", bounds)


def keys_with_prefix(rows: Rows, prefix: str) -> list[str]:
    """Keys alone, without reading the values. Raises: InvalidError if the answer would not fit into a reply."""
    where, bounds = prefix_range("key", prefix)
    _check_size(rows.kv.scalar(f"sum({_KEY_BYTES} + 5)", f"WHERE {where}", bounds))
    return [str(key) for key in rows.kv.column("key", f"WHERE {where} ORDER BY key", bounds)]


def _check_size(size: int) -> None:
    if size > _LARGEST_LIST:
        raise InvalidError(f"more than {_LARGEST_LIST >> 20} MiB of keys begin so; ask for a longer prefix")


def folded_keys(keys: Iterable[str], prefix: str, separator: str) -> Keys:
    """Keys cut behind the first separator after the prefix; each result once, in order."""
    if not separator:
        return Keys(tuple(keys))
    folded: dict[str, None] = {}
    for key in keys:
        end = key.find(separator, len(prefix))
        folded[key if end < 0 else key[: end + len(separator)]] = None
    return Keys(tuple(folded))


def session(row: SessionRow) -> SessionInfo:
    return SessionInfo(
        id=row.id,
        name=row.name,
        node=row.node,
        ttl_ms=row.ttl_ms,
        lock_delay_ms=row.lock_delay_ms,
        behavior=_BEHAVIOR[row.behavior],
        node_checks=tuple(from_json(row.node_checks)),
        service_checks=tuple(from_json(row.service_checks)),
        create_index=row.create_index,
        modify_index=row.modify_index,
    )


def lock(rows: Rows, row: LockRow) -> LockInfo:
    queue = tuple(LockWaiter(waiter.session, waiter.deadline) for waiter in locks.waiters(rows, row.name))
    return LockInfo(row.name, row.holder, row.token, queue, row.delayed_until)


def policy(row: PolicyRow) -> PolicyInfo:
    return PolicyInfo(row.name, row.description, row.rules, row.create_index, row.modify_index)


def token(row: TokenRow) -> TokenInfo:
    return TokenInfo(
        accessor=row.accessor,
        description=row.description,
        policies=tuple(from_json(row.policies)),
        management=bool(row.management),
        create_index=row.create_index,
        modify_index=row.modify_index,
    )
