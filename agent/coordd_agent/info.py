"""The figures that `coordctl info` shows of an agent. Names are explained in agent/DESIGN.md."""

import os
from collections.abc import Iterator, Mapping

from coordd.messages.query import ListNodes, NodeCatalog, Query, ServiceHealth

__all__ = ["memory_bytes", "view_ages"]

MAX_VIEWS_SHOWN = 50


def memory_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def view_ages(ages: Mapping[Query, float]) -> Iterator[tuple[str, int]]:
    """(`cache.service.web`, age in ms), oldest first, no more than fit on a screen or two."""
    oldest = sorted(ages.items(), key=lambda item: -item[1])[:MAX_VIEWS_SHOWN]
    for query, age in oldest:
        yield f"cache.{_name(query)}", int(age * 1000)


def _name(query: Query) -> str:
    match query:
        case ServiceHealth(service=service):
            return f"service.{service}"
        case NodeCatalog(node=node):
            return f"node.{node}"
        case ListNodes():
            return "nodes"
        case _:
            return type(query).__name__
