"""Anti-entropy: the catalog is made to say what the registry says.

Pure: registry here, catalog there, out come the fewest commands that close the gap. `syncer.py` applies them.
"""

from collections.abc import Collection, Iterator
from typing import TypeAlias

import msgspec

from coordd.messages.command import CheckDefinition, Deregister, Register, ServiceDefinition
from coordd.messages.query import CatalogEntry
from coordd_agent.registry import RESERVED_CHECKS, Registry, catalog_check

__all__ = ["CatalogCopy", "LocalNode", "SyncCommand", "apart", "catalog_copy", "difference", "take_over"]

ITEMS_PER_COMMAND = 64


class LocalNode(msgspec.Struct, frozen=True):
    """What this host says about itself."""

    name: str
    address: str
    node_id: str = ""
    meta: dict[str, str] = {}
    tagged_addresses: dict[str, str] = {}


class CatalogCopy(msgspec.Struct):
    """What the catalog has of this node, as last read or written. None stands for: no such node."""

    node: LocalNode | None
    services: dict[str, ServiceDefinition]
    checks: dict[str, CheckDefinition]


SyncCommand: TypeAlias = Register | Deregister


def catalog_copy(entry: CatalogEntry | None) -> CatalogCopy:
    if entry is None:
        return CatalogCopy(None, {}, {})
    info = entry.node
    return CatalogCopy(
        LocalNode(info.node, info.address, info.node_id, info.meta, info.tagged_addresses),
        {one.service.id: one.service for one in entry.services},
        {one.check.id: one.check for one in entry.checks if one.check.id not in RESERVED_CHECKS},
    )


def difference(
    node: LocalNode, registry: Registry, catalog: CatalogCopy, held: Collection[str] = frozenset()
) -> list[SyncCommand]:
    """The commands that make `catalog` say what `registry` says. `held`: checks whose new output alone must wait.

    Removals come first: an id may have moved from one service to another.
    """
    wanted_services = {
        key: _kept_tags(one.definition, catalog.services.get(key)) for key, one in registry.services.items()
    }
    wanted_checks = {key: catalog_check(key, state) for key, state in registry.checks.items()}
    commands: list[SyncCommand] = [
        Deregister(node.name, service_id=key) for key in sorted(catalog.services) if key not in wanted_services
    ]
    for key, known in sorted(catalog.checks.items()):
        gone_with_its_service = known.service_id and known.service_id not in wanted_services
        if key not in wanted_checks and not gone_with_its_service:
            commands.append(Deregister(node.name, check_id=key))
    services = [one for key, one in sorted(wanted_services.items()) if catalog.services.get(key) != one]
    checks = [one for key, one in sorted(wanted_checks.items()) if _differs(one, catalog.checks.get(key), key in held)]
    return commands + list(_registers(node, services, checks, skip_node_update=catalog.node == node))


def _kept_tags(definition: ServiceDefinition, known: ServiceDefinition | None) -> ServiceDefinition:
    """With `enable_tag_override`, others may change the tags in the catalog, and we leave them."""
    if known is not None and definition.enable_tag_override:
        return msgspec.structs.replace(definition, tags=known.tags)
    return definition


def _differs(wanted: CheckDefinition, known: CheckDefinition | None, hold_output: bool) -> bool:
    # A first output does not wait: without it nobody sees why a new check is critical.
    if known is None or not hold_output or not known.output:
        return wanted != known
    return msgspec.structs.replace(wanted, output="") != msgspec.structs.replace(known, output="")


def _registers(
    node: LocalNode, services: list[ServiceDefinition], checks: list[CheckDefinition], skip_node_update: bool
) -> Iterator[Register]:
    """In commands of bounded size, each service with its checks: without them it would count as passing."""
    if not services and not checks:
        if not skip_node_update:
            yield _register(node, [], [], skip_node_update)
        return
    items: list[ServiceDefinition | CheckDefinition] = []
    new = {one.id for one in services}
    for service in services:
        items += [service, *(check for check in checks if check.service_id == service.id)]
    items += [check for check in checks if check.service_id not in new]
    for at in range(0, len(items), ITEMS_PER_COMMAND):
        some = items[at : at + ITEMS_PER_COMMAND]
        some_services = [one for one in some if isinstance(one, ServiceDefinition)]
        some_checks = [one for one in some if isinstance(one, CheckDefinition)]
        yield _register(node, some_services, some_checks, skip_node_update)


def _register(
    node: LocalNode, services: list[ServiceDefinition], checks: list[CheckDefinition], skip_node_update: bool
) -> Register:
    return Register(
        node=node.name,
        address=node.address,
        node_id=node.node_id,
        meta=node.meta,
        tagged_addresses=node.tagged_addresses,
        services=tuple(services),
        checks=tuple(checks),
        skip_node_update=skip_node_update,
    )


def apart(command: SyncCommand) -> list[SyncCommand]:
    """A refused command in pieces, so that one bad service does not hold up the others; itself if it has no pieces."""
    if not isinstance(command, Register) or len(command.services) + len(command.checks) < 2:
        return [command]
    own = {one.id: tuple(c for c in command.checks if c.service_id == one.id) for one in command.services}
    pieces = [msgspec.structs.replace(command, services=(one,), checks=own[one.id]) for one in command.services]
    rest = [check for check in command.checks if check.service_id not in own]
    pieces += [msgspec.structs.replace(command, services=(), checks=(check,)) for check in rest]
    return list(pieces) if len(pieces) > 1 else [command]


def take_over(catalog: CatalogCopy, node: LocalNode, command: SyncCommand) -> None:
    """The catalog has taken `command`: note it in the copy."""
    if isinstance(command, Register):
        if not command.skip_node_update:
            catalog.node = node
        catalog.services.update({one.id: one for one in command.services})
        catalog.checks.update({one.id: one for one in command.checks})
    elif command.check_id:
        catalog.checks.pop(command.check_id, None)
    else:
        catalog.services.pop(command.service_id, None)
        for key in [key for key, one in catalog.checks.items() if one.service_id == command.service_id]:
            del catalog.checks[key]
