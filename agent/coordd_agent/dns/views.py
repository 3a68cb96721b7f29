"""What the answers are made from: services, nodes and servers as the catalog last told, in the shape DNS needs.

`Views` turns the cache's results into these frozen shapes, once for each result, and remembers which queries were
looked at: `missing` are those the cache had nothing for, `used` all of them. One `Views` serves one answer; the shapes
are shared.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from coordd.messages.client import ServerInfo
from coordd.messages.command import CheckStatus
from coordd.messages.query import (
    Catalog,
    Health,
    HealthEntry,
    ListNodes,
    NodeCatalog,
    NodeInfo,
    Nodes,
    Query,
    QueryResult,
    ServiceHealth,
)

__all__ = ["Instance", "NodeView", "Source", "Views", "service_view"]

_T = TypeVar("_T")
_WORSE: dict[str, int] = {"passing": 0, "warning": 1, "critical": 2}


class NodeView(msgspec.Struct, frozen=True):
    name: str
    address: str
    meta: dict[str, str] = {}
    tagged_addresses: dict[str, str] = {}


class Instance(msgspec.Struct, frozen=True):
    """One registration of a service, with the worst status among its own checks and its node's."""

    node: NodeView
    service: str
    id: str
    address: str
    """"" : the node's."""
    port: int
    tags: frozenset[str]
    """In lower case."""
    tagged_addresses: dict[str, tuple[str, int]]
    status: CheckStatus
    weight: int


class Source(Protocol):
    """The cache, as DNS sees it. `peek` never waits."""

    def peek(self, query: Query) -> QueryResult | None: ...

    def known_services(self) -> Iterable[Query]:
        """Queries of kind ServiceHealth that have a result."""
        ...

    def servers(self) -> tuple[ServerInfo, ...]: ...


class Shapes:
    """Results already turned into shapes, for as long as the cache holds the very same result."""

    def __init__(self) -> None:
        self._shapes: dict[Query, tuple[QueryResult, object]] = {}

    def get(self, query: Query, result: QueryResult, turn: Callable[[], _T]) -> _T:
        known = self._shapes.get(query)
        if known is None or known[0] is not result:
            known = (result, turn())
            self._shapes[query] = known
        return known[1]  # type: ignore[return-value]

    def forget(self, query: Query) -> None:
        self._shapes.pop(query, None)


class Views:
    """The views that one answer looks at."""

    def __init__(self, source: Source, shapes: Shapes) -> None:
        self._source = source
        self._shapes = shapes
        self.used: set[Query] = set()
        self.missing: set[Query] = set()

    def service(self, name: str) -> tuple[Instance, ...] | None:
        """The service's instances; None if nothing is known of it."""
        query = ServiceHealth(name)
        result = self._look(query)
        return self._shapes.get(query, result, lambda: service_view(result)) if isinstance(result, Health) else None

    def node(self, name: str) -> tuple[NodeView, ...] | None:
        """The node, or () if there is none; None if nothing is known of it."""
        query = NodeCatalog(name)
        result = self._look(query)
        if not isinstance(result, Catalog):
            return None
        return self._shapes.get(query, result, lambda: tuple(_node(entry.node) for entry in result.entries))

    def nodes(self) -> tuple[NodeView, ...] | None:
        query = ListNodes()
        result = self._look(query)
        if not isinstance(result, Nodes):
            return None
        return self._shapes.get(query, result, lambda: tuple(_node(node) for node in result.nodes))

    def known_instances(self) -> Iterable[Instance]:
        """Instances of the services that happen to be known."""
        for query in self._source.known_services():
            if isinstance(query, ServiceHealth):
                yield from self.service(query.service) or ()

    def servers(self) -> tuple[ServerInfo, ...]:
        return self._source.servers()

    def _look(self, query: Query) -> QueryResult | None:
        self.used.add(query)
        result = self._source.peek(query)
        if result is None:
            self.missing.add(query)
        return result


def service_view(health: Health) -> tuple[Instance, ...]:
    return tuple(_instance(entry) for entry in health.entries)


def _instance(entry: HealthEntry) -> Instance:
    service = entry.service.service
    statuses: list[CheckStatus] = [check.check.status for check in entry.checks]
    status: CheckStatus = max(statuses, key=_WORSE.__getitem__, default="passing")
    weight = service.weight_warning if status == "warning" else service.weight_passing
    return Instance(
        node=_node(entry.node),
        service=service.name,
        id=service.id,
        address=service.address,
        port=service.port,
        tags=frozenset(tag.lower() for tag in service.tags),
        tagged_addresses=service.tagged_addresses,
        status=status,
        weight=max(1, min(weight, 65535)),
    )


def _node(node: NodeInfo) -> NodeView:
    return NodeView(node.node, node.address, node.meta, node.tagged_addresses)
