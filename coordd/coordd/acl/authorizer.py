"""The one place that says yes or no. Pure: servers and agents hold the same authorizer for the same token.

An exact rule beats every prefix rule, a longer prefix beats a shorter one, and of several policies on the same name the
strongest level counts: deny, then write, then read. What no rule names is denied once ACLs are enabled; everything is
allowed before, and with a management token. Names of services and nodes are the same whatever the case of their ASCII
letters, here as in the catalog: or a rule could be evaded by another spelling. The resource `internal` (what only a
leader may propose) is never allowed; `anything` is allowed to a token that has this access to any name at all.
"""

from collections.abc import Iterator, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import Literal, TypeAlias

from coordd.acl.rules import LEVELS, RESOURCES, Level, Rules

__all__ = ["ALLOW_ALL", "DENY_ALL", "Access", "Authorizer"]

Access: TypeAlias = Literal["read", "write"]

_OPERATOR = "operator"
_ANYTHING = "anything"
_MANAGED = frozenset((*RESOURCES, _OPERATOR, _ANYTHING))
_FOLDED = frozenset(("service", "node", "session"))
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class Authorizer:
    """What one token may do. Immutable.

    Args: rules: those of the token's policies, in any order. management: may do everything. enabled: false before
    `acl bootstrap`, when everyone may do everything.
    """

    def __init__(self, rules: Sequence[Rules] = (), management: bool = False, enabled: bool = True) -> None:
        self.unrestricted = management or not enabled
        self._exact: dict[str, dict[str, Level]] = {resource: {} for resource in RESOURCES}
        self._prefix: dict[str, dict[str, Level]] = {resource: {} for resource in RESOURCES}
        self._operator: Level | None = None
        for one in rules:
            _merge(self._exact, one.exact)
            _merge(self._prefix, one.prefix)
            self._operator = _stronger(self._operator, one.operator)
        self._lengths = {
            resource: sorted({len(prefix) for prefix in levels}, reverse=True)
            for resource, levels in self._prefix.items()
        }

    def allows(self, resource: str, name: str, access: Access) -> bool:
        """May the token read or write the thing of that name? `name` is ignored for `operator`."""
        if self.unrestricted:
            return resource in _MANAGED
        if resource == _OPERATOR:
            return _grants(self._operator, access)
        if resource == _ANYTHING:
            return any(_grants(level, access) for level in self._levels())
        if resource not in self._exact:
            return False
        name = _fold(resource, name)
        return _grants(self._exact[resource].get(name) or self._longest(resource, name), access)

    def allows_prefix(self, resource: str, prefix: str, access: Access) -> bool:
        """May the token do that with *everything* that begins with `prefix`, now and in future?

        True if the rule that governs the prefix grants it, and no rule beneath takes it away.
        """
        if self.unrestricted:
            return resource in _MANAGED
        if resource not in self._exact:
            return False
        prefix = _fold(resource, prefix)
        if not _grants(self._longest(resource, prefix), access):
            return False
        return all(
            _grants(level, access)
            for levels in (self._exact[resource], self._prefix[resource])
            for name, level in levels.items()
            if name.startswith(prefix)
        )

    def _levels(self) -> Iterator[Level | None]:
        yield self._operator
        for one in (self._exact, self._prefix):
            for levels in one.values():
                yield from levels.values()

    def _longest(self, resource: str, name: str) -> Level | None:
        levels = self._prefix[resource]
        for length in self._lengths[resource]:
            if length <= len(name) and (level := levels.get(name[:length])) is not None:
                return level
        return None


def _grants(level: Level | None, access: Access) -> bool:
    return level == "write" or (level == "read" and access == "read")


def _stronger(one: Level | None, other: Level | None) -> Level | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=LEVELS.index)


def _fold(resource: str, name: str) -> str:
    return name.translate(_LOWER) if resource in _FOLDED else name


def _merge(into: dict[str, dict[str, Level]], rules: dict[str, dict[str, Level]]) -> None:
    for resource, levels in rules.items():
        merged = into[resource]
        for written, level in levels.items():
            name = _fold(resource, written)
            merged[name] = _stronger(merged.get(name), level) or level


ALLOW_ALL = Authorizer(enabled=False)
DENY_ALL = Authorizer()
