"""Nodes and their service instances.

Registering what is there already, word for word, changes nothing and wakes nobody. Names of nodes are the same whatever
the case of their letters, so a second spelling of a name is refused rather than made a second node. A node id belongs to
one name. Everything on a node goes with it.
"""

from coordd.messages.command import Deregister, Done, Register, ServiceDefinition
from coordd.state import health, sessions
from coordd.state.limits import Refused, check_name, check_text
from coordd.state.rows import Rows, to_json
from coordd.state.schema import NodeRow, ServiceRow
from coordd.state.topics import fold

__all__ = ["deregister", "register"]

_MOST_TAGS = 128
_MOST_META = 128
_MOST_IN_ONE_COMMAND = 512
_ADDRESS_LENGTH = 256
_LARGEST_WEIGHT = 65_535


def register(rows: Rows, command: Register) -> Done:
    _check(rows, command)
    for check in command.checks:
        health.check_definition(rows, command, check)
    changed = _put_node(rows, command)
    for service in command.services:
        changed |= _put_service(rows, command.node, service)
    for check in command.checks:
        changed |= health.put_check(rows, command.node, check)
    if changed:
        rows.touch("node", fold(command.node))
    return Done(rows.index)


def deregister(rows: Rows, command: Deregister) -> Done:
    if rows.nodes.get(command.node) is None:
        return Done(rows.index)
    if command.service_id:
        _remove_service(rows, command.node, command.service_id)
    elif command.check_id:
        health.remove_checks(rows, command.node, [command.check_id])
    else:
        _remove_node(rows, command.node)
    return Done(rows.index)


def _check(rows: Rows, command: Register) -> None:
    check_name("node name", command.node, strict=True)
    check_text("node id", command.node_id, 128)
    _check_address("node address", command.address)
    _check_meta(command.meta)
    _check_meta(command.tagged_addresses)
    if not command.address and not command.skip_node_update:
        raise Refused("invalid", "missing address: a node needs one unless skip_node_update is set")
    if len(command.services) + len(command.checks) > _MOST_IN_ONE_COMMAND:
        raise Refused("invalid", f"more than {_MOST_IN_ONE_COMMAND} services and checks in one command")
    for service in command.services:
        _check_service(service)
    _check_identity(rows, command)


def _check_identity(rows: Rows, command: Register) -> None:
    old = rows.nodes.get(command.node)
    if old is None:
        if command.skip_node_update and not command.address:
            raise Refused("invalid", f"node {command.node!a} is not registered; give its address")
        alike = rows.nodes.select("WHERE node = ? COLLATE NOCASE", (command.node,))
        if alike:
            raise Refused("conflict", f"node {alike[0].node!a} is registered under another spelling of this name")
    if not command.node_id or (old is not None and command.skip_node_update):
        return
    if old is not None and old.node_id not in ("", command.node_id) and not health.node_is_dead(rows, old.node):
        raise Refused("conflict", f"node name {old.node!a} is reserved by node id {old.node_id!a}")
    same = rows.nodes.select("WHERE node_id = ? AND node <> ? ORDER BY node", (command.node_id, command.node))
    if same:
        raise Refused(
            "conflict", f"node id {command.node_id!a} belongs to node {same[0].node!a}; deregister that first"
        )


def _check_service(service: ServiceDefinition) -> None:
    check_name("service name", service.name)
    check_name("service id", service.id)
    _check_address("service address", service.address)
    _check_meta(service.meta)
    if len(service.tags) > _MOST_TAGS:
        raise Refused("invalid", f"a service has at most {_MOST_TAGS} tags")
    for tag in service.tags:
        check_text("tag", tag, 256)
    if not 0 <= service.port <= 65_535:
        raise Refused("invalid", f"port {service.port} is not between 0 and 65535")
    for weight in (service.weight_passing, service.weight_warning):
        if not 0 <= weight <= _LARGEST_WEIGHT:
            raise Refused("invalid", f"weight {weight} is not between 0 and {_LARGEST_WEIGHT}")
    if len(service.tagged_addresses) > _MOST_META:
        raise Refused("invalid", f"a service has at most {_MOST_META} tagged addresses")
    for name, (address, port) in service.tagged_addresses.items():
        check_text("name of a tagged address", name, 128)
        _check_address("tagged address", address)
        if not 0 <= port <= 65_535:
            raise Refused("invalid", f"port {port} is not between 0 and 65535")


def _check_address(what: str, address: str) -> None:
    if address:
        check_name(what, address, length=_ADDRESS_LENGTH)


def _check_meta(meta: dict[str, str]) -> None:
    if len(meta) > _MOST_META:
        raise Refused("invalid", f"at most {_MOST_META} entries are allowed in a map")
    for name, value in meta.items():
        check_text("name of a map's entry", name, 128)
        check_text("value of a map's entry", value, 512)


def _put_node(rows: Rows, command: Register) -> bool:
    """Create or replace the node's own record; true if it changed."""
    old = rows.nodes.get(command.node)
    if old is not None and command.skip_node_update:
        return False
    row = NodeRow(
        node=command.node,
        node_id=command.node_id,
        address=command.address,
        meta=to_json(command.meta),
        tagged_addresses=to_json(command.tagged_addresses),
        create_index=old.create_index if old is not None else rows.index,
        modify_index=rows.index,
    )
    if old is not None and old._replace(modify_index=rows.index) == row:
        return False
    rows.nodes.put(row)
    rows.touch("nodes")
    for name in sorted({fold(service.name) for service in _services(rows, command.node)}):
        rows.touch("service", name)
    return True


def _put_service(rows: Rows, node: str, service: ServiceDefinition) -> bool:
    old = rows.services.get(node, service.id)
    row = ServiceRow(
        node=node,
        id=service.id,
        name=service.name,
        tags=to_json(service.tags),
        address=service.address,
        port=service.port,
        meta=to_json(service.meta),
        tagged_addresses=to_json(service.tagged_addresses),
        weight_passing=service.weight_passing,
        weight_warning=service.weight_warning,
        enable_tag_override=int(service.enable_tag_override),
        create_index=old.create_index if old is not None else rows.index,
        modify_index=rows.index,
    )
    if old is not None and old._replace(modify_index=rows.index) == row:
        return False
    rows.services.put(row)
    rows.touch("service", fold(row.name))
    if old is not None and fold(old.name) != fold(row.name):
        rows.touch("service", fold(old.name))
    if old is None or (old.name, old.tags) != (row.name, row.tags):
        rows.touch("services")
        if rows.checks.scalar("count(*)", "WHERE node = ? AND service_id = ?", (node, service.id)):
            rows.touch("checks")  # lists of checks show the name and tags of the service
    return True


def _services(rows: Rows, node: str) -> list[ServiceRow]:
    return rows.services.select("WHERE node = ? ORDER BY id", (node,))


def _remove_service(rows: Rows, node: str, service_id: str) -> None:
    service = rows.services.get(node, service_id)
    if service is None:
        return
    checks = rows.checks.select("WHERE node = ? AND service_id = ? ORDER BY id", (node, service_id))
    health.remove_checks(rows, node, [check.id for check in checks])
    rows.services.delete(node, service_id)
    rows.touch("service", fold(service.name))
    rows.touch("services")
    rows.touch("node", fold(node))


def _remove_node(rows: Rows, node: str) -> None:
    limit = rows.limits.rows_for_one_command
    tables = (rows.services, rows.checks, rows.sessions)
    if sum(table.scalar("count(*)", "WHERE node = ?", (node,)) for table in tables) > limit:
        raise Refused(
            "invalid", f"node {node!a} has more than {limit} services, checks and sessions; remove some first"
        )
    sessions.end_with_node(rows, node)
    for service in _services(rows, node):
        _remove_service(rows, node, service.id)
    health.remove_checks(rows, node, [check.id for check in health.checks_of(rows, node)])
    rows.nodes.delete(node)
    rows.touch("nodes")
    rows.touch("node", fold(node))
