"""Rules of a policy: JSON text to a checked, frozen value.

The form, every part optional:

    {"key": {"app/config": "read"},  "key_prefix": {"app/": "write", "app/secret/": "deny"},
     "service": {"web": "write"},    "service_prefix": {"": "read"},
     "node": {…}, "node_prefix": {…}, "session": {…}, "session_prefix": {…}, "lock": {…}, "lock_prefix": {…},
     "operator": "read"}

`<resource>` names one thing exactly, `<resource>_prefix` everything that begins so; "" is the prefix of everything.
Sessions are named by their node. Names of services and nodes are the same whatever the case of their ASCII letters.
Levels are read, write (which includes read) and deny. An unknown word, a level that does not exist and a name given twice
are errors: a rule that silently does nothing is worse than none.
"""

import json
from typing import Literal, TypeAlias

import msgspec

from coordd.errors import InvalidError

__all__ = ["LEVELS", "MAX_RULES_LENGTH", "RESOURCES", "Level", "Rules", "parse_rules"]

Level: TypeAlias = Literal["read", "write", "deny"]

LEVELS: tuple[Level, ...] = ("read", "write", "deny")
"""From weak to strong: where several policies speak of the same name, the strongest counts."""
RESOURCES = ("service", "node", "key", "session", "lock")
"""What is ruled by name. `operator` is ruled as a whole."""
MAX_RULES_LENGTH = 64 * 1024
MAX_NAME_LENGTH = 512

_PREFIX = "_prefix"
_PARTS = (*RESOURCES, *(resource + _PREFIX for resource in RESOURCES), "operator")
_shape = msgspec.json.Decoder(dict[str, str | dict[str, str]])


class Rules(msgspec.Struct, frozen=True):
    """What one policy says. Both maps go from a resource to levels by name; a resource may be missing."""

    exact: dict[str, dict[str, Level]] = {}
    prefix: dict[str, dict[str, Level]] = {}
    operator: Level | None = None


def parse_rules(text: str) -> Rules:
    """Read the rules of a policy. Raises: InvalidError naming the place."""
    if len(text) > MAX_RULES_LENGTH:
        raise InvalidError(f"rules are longer than {MAX_RULES_LENGTH} characters")
    try:
        _shape.decode(text)  # first: it bounds the nesting for the reader that notices repeated names
        parts = json.loads(text, object_pairs_hook=_unique)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidError(f"rules are no JSON of the expected form: {error}") from error
    exact: dict[str, dict[str, Level]] = {}
    prefix: dict[str, dict[str, Level]] = {}
    operator: Level | None = None
    for part, value in parts.items():
        if part not in _PARTS:
            raise InvalidError(f"rules: unknown part {part[:64]!a}; known are {', '.join(_PARTS)}")
        if part == "operator":
            operator = _level(value, part)
        elif part.endswith(_PREFIX):
            prefix[part.removesuffix(_PREFIX)] = _levels(value, part)
        else:
            exact[part] = _levels(value, part)
    return Rules(exact, prefix, operator)


def _levels(value: object, part: str) -> dict[str, Level]:
    if not isinstance(value, dict):
        raise InvalidError(f"rules: {part} must map names to levels")
    for name in value:
        if len(name) > MAX_NAME_LENGTH:
            raise InvalidError(f"rules: a name in {part} is longer than {MAX_NAME_LENGTH} characters")
    return {name: _level(level, f"{part} {name!a}") for name, level in value.items()}


def _level(value: object, place: str) -> Level:
    if value == "read" or value == "write" or value == "deny":  # spelled out: so the type is proved, not cast
        return value
    raise InvalidError(f"rules: {place} must be one of {', '.join(LEVELS)}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
