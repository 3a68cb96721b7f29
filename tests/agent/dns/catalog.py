"""A catalog made by hand, in the place of the agent's cache: for the tests of DNS and its bench."""

from collections.abc import Iterable

from coordd.messages.client import ServerInfo
from coordd.messages.command import CheckDefinition, CheckStatus, ServiceDefinition
from coordd.messages.query import (
    Catalog,
    CatalogEntry,
    CheckInfo,
    Health,
    HealthEntry,
    ListNodes,
    NodeCatalog,
    NodeInfo,
    Nodes,
    Query,
    QueryResult,
    ServiceHealth,
    ServiceInfo,
)
from coordd.types import make_server_id

__all__ = ["HandmadeCatalog", "node", "server"]


def node(name: str, address: str, meta: dict[str, str] | None = None, tagged: dict[str, str] | None = None) -> NodeInfo:
    return NodeInfo(name, address, "", meta or {}, tagged or {}, 1, 1)


def server(name: str, address: str) -> ServerInfo:
    return ServerInfo(make_server_id(name, "0" * 32), f"{address}:8310", f"{address}:8311", "k" * 40, True, False)


class HandmadeCatalog:
    """Knows all it was given, and that there is nothing else; what is in `unknown` it can't get."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._services: dict[str, list[HealthEntry]] = {}
        self._results: dict[Query, QueryResult] = {}
        self.server_list: tuple[ServerInfo, ...] = ()
        self.unknown: set[Query] = set()
        self.waited_for: list[Query] = []

    def add_node(self, info: NodeInfo) -> None:
        self._nodes[info.node.lower()] = info
        self._results.clear()

    def add(self, info: NodeInfo, service: ServiceDefinition, *statuses: CheckStatus) -> None:
        self.add_node(info)
        checks = tuple(
            CheckInfo(info.node, CheckDefinition(f"c{number}", "", status), service.name, service.tags, 1, 1)
            for number, status in enumerate(statuses)
        )
        entry = HealthEntry(info, ServiceInfo(info.node, service, 1, 1), checks)
        self._services.setdefault(service.name.lower(), []).append(entry)

    def remove(self, service: str) -> None:
        del self._services[service]
        self._results.clear()

    def peek(self, query: Query) -> QueryResult | None:
        if query in self.unknown:
            return None
        if query not in self._results:
            self._results[query] = self._result(query)
        return self._results[query]

    def known_services(self) -> Iterable[Query]:
        return [ServiceHealth(name) for name in self._services]

    def servers(self) -> tuple[ServerInfo, ...]:
        return self.server_list

    async def wait_for(self, queries: Iterable[Query]) -> None:
        self.waited_for += queries
        self.unknown -= set(queries)

    def _result(self, query: Query) -> QueryResult:
        if isinstance(query, ServiceHealth):
            return Health(tuple(self._services.get(query.service, ())))
        if isinstance(query, NodeCatalog):
            known = self._nodes.get(query.node)
            return Catalog((CatalogEntry(known, (), ()),) if known else ())
        if isinstance(query, ListNodes):
            return Nodes(tuple(self._nodes.values()))
        raise NotImplementedError(query)
