"""Sessions: what holds keys and locks, for as long as it lives.

A session lives on a node while the checks it names exist there and are not critical, and, if it has a TTL, while it is
renewed; the leader's timers watch the TTL and propose `ExpireSessions`. A session on node "" has a TTL alone. When it
ends, its keys are released or deleted, its locks are freed, and the lock delay begins.
"""

from collections.abc import Collection
from typing import NamedTuple

from coordd.messages.command import CreateSession, DestroySession, Done, ExpireSessions
from coordd.state import kv, locks
from coordd.state.limits import Refused, check_name, check_text
from coordd.state.rows import Rows, from_json, to_json
from coordd.state.schema import SessionRow
from coordd.types import Index

__all__ = ["SessionAlive", "alive", "create", "destroy", "end_with_checks", "end_with_node", "expire"]

SHORTEST_TTL_MS = 1_000
LONGEST_TTL_MS = 24 * 3600 * 1_000
_MOST_CHECKS = 64
_LONGEST_DELAY_MS = 1 << 53


class SessionAlive(NamedTuple):
    """What a leader's timer needs to know of a session."""

    id: str
    create_index: Index
    ttl_ms: int


def create(rows: Rows, command: CreateSession) -> Done:
    check_name("session id", command.id, strict=True)
    check_text("session name", command.name, 512)
    if command.ttl_ms and not SHORTEST_TTL_MS <= command.ttl_ms <= LONGEST_TTL_MS:
        raise Refused("invalid", f"a session's TTL is 0 or {SHORTEST_TTL_MS} ms to 24 h, not {command.ttl_ms} ms")
    if abs(command.lock_delay_ms) > _LONGEST_DELAY_MS:
        raise Refused("invalid", "the lock delay is out of range")
    if len(command.node_checks) + len(command.service_checks) > _MOST_CHECKS:
        raise Refused("invalid", f"a session names at most {_MOST_CHECKS} checks")
    if rows.sessions.get(command.id) is not None:
        raise Refused("conflict", f"session {command.id!a} exists already; draw another id")
    if rows.sessions.count >= rows.limits.sessions:
        raise Refused("busy", "too many sessions; end some first")
    _check_alive(rows, command)
    rows.sessions.put(
        SessionRow(
            id=command.id,
            name=command.name,
            node=command.node,
            ttl_ms=command.ttl_ms,
            lock_delay_ms=command.lock_delay_ms,
            behavior=command.behavior,
            node_checks=to_json(command.node_checks),
            service_checks=to_json(command.service_checks),
            create_index=rows.index,
            modify_index=rows.index,
        )
    )
    _touch(rows, command.id)
    return Done(rows.index)


def _check_alive(rows: Rows, command: CreateSession) -> None:
    checks = (*command.node_checks, *command.service_checks)
    if not command.node:
        if not command.ttl_ms or checks:
            raise Refused("invalid", "a session without a node needs a TTL and can't have checks")
        return
    if rows.nodes.get(command.node) is None:
        raise Refused("invalid", f"missing node registration: {command.node[:64]!a} is not in the catalog")
    for check in checks:
        row = rows.checks.get(command.node, check)
        if row is None:
            raise Refused("invalid", f"missing check {check[:64]!a} registration")
        if row.status == "critical":
            raise Refused("invalid", f"check {check[:64]!a} is in critical state")


def destroy(rows: Rows, command: DestroySession) -> Done:
    if (session := rows.sessions.get(command.id)) is not None:
        _end(rows, session)
    return Done(rows.index)


def expire(rows: Rows, command: ExpireSessions) -> Done:
    if command.term != rows.term:
        return Done(rows.index, ok=False)
    if len(command.sessions) > rows.limits.rows_for_one_command:
        raise Refused("invalid", "too many sessions in one command")
    for session_id, create_index in command.sessions:
        session = rows.sessions.get(session_id)
        if session is not None and session.create_index == create_index:
            _end(rows, session)
    return Done(rows.index)


def end_with_node(rows: Rows, node: str) -> None:
    """The node is deregistered: its sessions end."""
    for session in _on_node(rows, node):
        _end(rows, session)


def end_with_checks(rows: Rows, node: str, checks: Collection[str]) -> None:
    """These checks of the node have become critical or are gone: the sessions bound to them end."""
    for session in _on_node(rows, node):
        bound = (*from_json(session.node_checks), *from_json(session.service_checks))
        if any(check in checks for check in bound):
            _end(rows, session)


def alive(rows: Rows) -> list[SessionAlive]:
    """Sessions with a TTL, by id."""
    return [
        SessionAlive(row.id, row.create_index, row.ttl_ms)
        for row in rows.sessions.select("WHERE ttl_ms > 0 ORDER BY id")
    ]


def _on_node(rows: Rows, node: str) -> list[SessionRow]:
    return rows.sessions.select("WHERE node = ? ORDER BY id", (node,))


def _end(rows: Rows, session: SessionRow) -> None:
    rows.sessions.delete(session.id)
    _touch(rows, session.id)
    kv.release_session(rows, session)
    locks.release_session(rows, session)


def _touch(rows: Rows, session: str) -> None:
    rows.touch("session", session)
    rows.touch("sessions")
