"""Whom a change wakes, and where prefixes end."""

import pytest

from coordd.state.topics import Topic, covers, prefix_range


@pytest.mark.parametrize(
    ("watched", "changed", "wakes"),
    [
        (("kv", "a"), ("kv", "a"), True),
        (("kv", "a"), ("kv", "ab"), False),
        (("kv/", "a"), ("kv", "a"), True),
        (("kv/", "a"), ("kv", "ab"), True),
        (("kv/", "a"), ("kv", "b"), False),
        (("kv/", ""), ("kv", "anything"), True),
        (("kv/", ""), ("nodes",), False),
        (("kv/", "n"), ("node", "n1"), False),
        (("nodes",), ("nodes",), True),
        (("node", "n1"), ("node", "n1"), True),
        (("node", "n1"), ("node", "n2"), False),
    ],
)
def test_a_prefix_covers_its_keys_and_any_other_topic_itself(watched: Topic, changed: Topic, wakes: bool) -> None:
    assert covers(watched, changed) is wakes


@pytest.mark.parametrize("prefix", ["", "a", "a/", "\ud7ff", "\U0010ffff", "a\U0010ffff"], ids=ascii)
def test_a_range_holds_what_begins_so_and_nothing_else(prefix: str) -> None:
    """Behind the last character before the surrogates, which no text may hold, comes the first after them."""
    _, bounds = prefix_range("key", prefix)
    for last in ("", "\0", "z", "\ud7ff", "\ue000", "\U0010ffff"):
        for key in (prefix + last, prefix[:-1] + last, last):
            inside = key.encode() >= bounds[0].encode() and (len(bounds) == 1 or key.encode() < bounds[1].encode())
            assert inside is key.startswith(prefix), (key, bounds)
