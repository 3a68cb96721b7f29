"""What a watcher can wait for: a topic is a tuple of strings, and has the index of the last change to what it names.

    ("kv", key)   ("kv/", prefix)        one key; every key that begins so
    ("nodes",)    ("node", name)         the list of nodes; one node with its services and checks
    ("services",) ("service", name)      names and tags; instances of one service with all that decides their health
    ("checks",)                          any check
    ("sessions",) ("session", id)
    ("locks",)    ("lock", name)
    ("acl",)                             tokens and policies

Names of nodes and services are lower-case in topics. Indexes never go back, also not when what they speak of is deleted,
created again or never existed. A key's index is its row's modify index, or else that of the tombstone that its deletion
left among the topic rows; other topics are rows. The oldest topic rows beyond a limit are folded into one floor, below
which no topic without a row can lie; then a watcher may be told of a change that was none, which is allowed.
"""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # pragma: no cover - for the type checker alone: at run time the import would go in a circle
    from coordd.state.rows import Rows

__all__ = ["Topic", "covers", "fold", "prefix_range", "reap", "topic_index"]

Topic: TypeAlias = tuple[str, ...]

KV = "kv"
KV_PREFIX = "kv/"
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def fold(name: str) -> str:
    """Names of nodes and services are the same whatever the case of their ASCII letters."""
    return name.encode().lower().decode()


def covers(watched: Topic, changed: Topic) -> bool:
    """Does a change of the second topic concern a watcher of the first?"""
    if watched[0] == KV_PREFIX:
        return changed[0] == KV and changed[1].startswith(watched[1])
    return watched == changed


def prefix_range(column: str, prefix: str) -> tuple[str, tuple[str, ...]]:
    """SQL for "this column begins with the prefix", usable with an index; an empty prefix matches everything."""
    end = list(prefix)
    while end and ord(end[-1]) == _LAST_CHARACTER:
        end.pop()
    if not end:
        return f"{column} >= ?", (prefix,)
    following = ord(end[-1]) + 1
    end[-1] = chr(_SURROGATES.stop if following in _SURROGATES else following)
    return f"{column} >= ? AND {column} < ?", (prefix, "".join(end))


def topic_index(rows: "Rows", topic: Topic) -> int:
    """Index of the last change to what the topic names, as far as it is known; 0 if nothing ever happened."""
    if topic[0] == KV_PREFIX:
        where, bounds = prefix_range("key", topic[1])
        live = rows.kv.scalar("max(modify_index)", f"WHERE {where}", bounds)
        where, bounds = prefix_range("name", topic[1])
        gone = rows.topics.scalar("max(modify_index)", f"WHERE kind = '{KV}' AND {where}", bounds)
        return max(live, gone, rows.topic_floor)
    if topic[0] == KV and (pair := rows.kv.get(topic[1])) is not None:
        return pair.modify_index
    row = rows.topics.get(topic[0], topic[1] if len(topic) > 1 else "")
    return row.modify_index if row is not None else rows.topic_floor


def reap(rows: "Rows") -> None:
    """Fold the oldest topic rows beyond the limit into the floor."""
    excess = rows.topics.count - rows.limits.topics
    oldest = rows.topics.select("ORDER BY modify_index, kind, name LIMIT ?", (excess,))
    for row in oldest:
        rows.topics.delete(row.kind, row.name)
    rows.topic_floor = max(rows.topic_floor, oldest[-1].modify_index)
