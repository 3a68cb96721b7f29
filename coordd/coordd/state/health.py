"""Checks of nodes and services. A check that turns critical or disappears ends the sessions bound to it."""

from collections.abc import Sequence

from coordd.messages.command import CheckDefinition, Done, NodeStatus, Register, SetNodeStatus
from coordd.state import sessions
from coordd.state.limits import Refused, check_name, check_text
from coordd.state.rows import Rows
from coordd.state.schema import CheckRow
from coordd.state.topics import fold

__all__ = [
    "SERF_HEALTH",
    "check_definition",
    "checks_of",
    "node_is_dead",
    "nodes_alive",
    "put_check",
    "remove_checks",
    "set_node_status",
]

SERF_HEALTH = "serfHealth"
"""The node check that says whether the node's agent lives; set by the leader."""
_SERF_NAME = "Serf Health Status"
_OUTPUT_LENGTH = 8 * 1024


def check_definition(rows: Rows, command: Register, check: CheckDefinition) -> None:
    """Refuse a check that can't be stored, or whose service is neither there nor in the same command."""
    check_name("check id", check.id)
    check_text("check name", check.name, 512)
    check_text("check output", check.output, _OUTPUT_LENGTH)
    check_text("check notes", check.notes, _OUTPUT_LENGTH)
    for what in (check.type, check.interval, check.timeout):
        check_text("check type, interval and timeout", what, 128)
    if check.id == SERF_HEALTH and check.service_id:
        raise Refused("invalid", f"{SERF_HEALTH} speaks of the node: it can be no check of a service")
    if not check.service_id or any(service.id == check.service_id for service in command.services):
        return
    if rows.services.get(command.node, check.service_id) is None:
        raise Refused("invalid", f"check {check.id!a} names service {check.service_id[:64]!a}, which is not registered")


def put_check(rows: Rows, node: str, check: CheckDefinition) -> bool:
    """Create or replace a check; true if it changed."""
    old = rows.checks.get(node, check.id)
    row = CheckRow(
        node=node,
        id=check.id,
        name=check.name,
        status=check.status,
        service_id=check.service_id,
        output=check.output,
        notes=check.notes,
        type=check.type,
        interval=check.interval,
        timeout=check.timeout,
        create_index=old.create_index if old is not None else rows.index,
        modify_index=rows.index,
    )
    if old is not None and old._replace(modify_index=rows.index) == row:
        return False
    rows.checks.put(row)
    _touch_services(rows, row)
    if old is not None and old.service_id != row.service_id:
        _touch_services(rows, old)
    rows.touch("checks")
    if row.status == "critical":
        sessions.end_with_checks(rows, node, [row.id])
    return True


def remove_checks(rows: Rows, node: str, ids: Sequence[str]) -> None:
    """Remove these checks of a node, and end the sessions bound to them."""
    gone = [check for check in ids if _remove(rows, node, check)]
    if gone:
        rows.touch("node", fold(node))
        rows.touch("checks")
        sessions.end_with_checks(rows, node, gone)


def _remove(rows: Rows, node: str, check: str) -> bool:
    row = rows.checks.get(node, check)
    if row is None:
        return False
    rows.checks.delete(node, check)
    _touch_services(rows, row)
    return True


def set_node_status(rows: Rows, command: SetNodeStatus) -> Done:
    """Set `serfHealth` of nodes that are registered; others are passed over."""
    if command.term != rows.term:
        return Done(rows.index, ok=False)
    if len(command.nodes) > rows.limits.rows_for_one_command:
        raise Refused("invalid", "too many nodes in one command")
    for status in command.nodes:
        check_text("check output", status.output, _OUTPUT_LENGTH)
    for status in command.nodes:
        _set_one(rows, status)
    return Done(rows.index)


def _set_one(rows: Rows, status: NodeStatus) -> None:
    if rows.nodes.get(status.node) is None:
        return
    check = CheckDefinition(SERF_HEALTH, _SERF_NAME, status.status, output=status.output)
    if put_check(rows, status.node, check):
        rows.touch("node", fold(status.node))


def checks_of(rows: Rows, node: str) -> list[CheckRow]:
    return rows.checks.select("WHERE node = ? ORDER BY id", (node,))


def node_is_dead(rows: Rows, node: str) -> bool:
    """Has the leader declared the node's agent dead? Then its name may be taken over."""
    check = rows.checks.get(node, SERF_HEALTH)
    return check is not None and check.status == "critical"


def nodes_alive(rows: Rows) -> dict[str, bool | None]:
    """Every node, by name → whether its `serfHealth` passes; None: it has no such check, hence no agent."""
    alive: dict[str, bool | None] = dict.fromkeys(map(str, rows.nodes.column("node", "ORDER BY node")))
    for passing, status in ((False, "<> 'passing'"), (True, "= 'passing'")):
        where = f"WHERE id = ? AND status {status} ORDER BY node"
        alive.update(dict.fromkeys(map(str, rows.checks.column("node", where, (SERF_HEALTH,))), passing))
    return alive


def _touch_services(rows: Rows, check: CheckRow) -> None:
    """A check of a service concerns that service, a check of the node all services on it."""
    if check.service_id:
        service = rows.services.get(check.node, check.service_id)
        names = [service.name] if service is not None else []
    else:
        names = [service.name for service in rows.services.select("WHERE node = ? ORDER BY id", (check.node,))]
    for name in sorted({fold(name) for name in names}):
        rows.touch("service", name)
