"""The authorizer against its plain definition, and each sentence of its contract."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordd.acl.authorizer import ALLOW_ALL, DENY_ALL, Access, Authorizer
from coordd.acl.rules import LEVELS, RESOURCES, Level, Rules, parse_rules

NAMES = st.text(alphabet="ab", max_size=4)
MAPS = st.dictionaries(st.sampled_from(["key", "node"]), st.dictionaries(NAMES, st.sampled_from(LEVELS), max_size=6))
RULES = st.lists(st.builds(Rules, exact=MAPS, prefix=MAPS, operator=st.sampled_from([None, *LEVELS])), max_size=4)
ACCESS = st.sampled_from(["read", "write"])


def strongest(levels: list[Level]) -> Level | None:
    return next((level for level in ("deny", "write", "read") if level in levels), None)


def plain_level(rules: list[Rules], resource: str, name: str, exact: bool = True) -> Level | None:
    """The definition, looked up the slow way."""
    if exact and (found := strongest([r.exact[resource][name] for r in rules if name in r.exact.get(resource, {})])):
        return found
    for length in range(len(name), -1, -1):
        start = name[:length]
        if found := strongest([r.prefix[resource][start] for r in rules if start in r.prefix.get(resource, {})]):
            return found
    return None


def granted(level: Level | None, access: Access) -> bool:
    return level == "write" or (level == "read" and access == "read")


@given(rules=RULES, resource=st.sampled_from(RESOURCES), name=NAMES, access=ACCESS)
def test_allows_equals_its_definition(rules: list[Rules], resource: str, name: str, access: Access) -> None:
    assert Authorizer(rules).allows(resource, name, access) == granted(plain_level(rules, resource, name), access)


@given(rules=RULES, prefix=NAMES, access=ACCESS)
def test_allowed_prefix_means_every_name_beneath(rules: list[Rules], prefix: str, access: Access) -> None:
    """No rule name is longer than 4 characters of a and b, so names of up to 5 try every case there is."""
    authorizer = Authorizer(rules)
    tails = [""]
    for _ in range(5 - len(prefix)):
        tails += [tail + letter for tail in tails for letter in "abc" if len(tail) < 5]
    beneath = {prefix + tail for tail in tails}
    everything = all(authorizer.allows("key", name, access) for name in beneath)
    if authorizer.allows_prefix("key", prefix, access):
        assert everything
    elif everything:  # refused although each name is allowed: only if the prefix itself is governed by no such rule
        assert not granted(plain_level(rules, "key", prefix, exact=False), access)


@given(rules=RULES, access=ACCESS)
def test_operator_is_one_level(rules: list[Rules], access: Access) -> None:
    level = strongest([r.operator for r in rules if r.operator])
    assert Authorizer(rules).allows("operator", "", access) == granted(level, access)


@given(rules=RULES, access=ACCESS)
def test_anything_is_some_level_somewhere(rules: list[Rules], access: Access) -> None:
    """By the tokens' merged rules: a deny hides a write of the same name, and nothing else."""
    named = [
        (one, resource, name)
        for one in ("exact", "prefix")
        for rule in rules
        for resource, levels in getattr(rule, one).items()
        for name in levels
    ]
    merged = [
        strongest([getattr(r, one)[resource][name] for r in rules if name in getattr(r, one).get(resource, {})])
        for one, resource, name in named
    ]
    merged.append(strongest([r.operator for r in rules if r.operator]))
    assert Authorizer(rules).allows("anything", "", access) == any(granted(level, access) for level in merged)


def test_a_deny_beneath_stops_the_whole_prefix() -> None:
    authorizer = Authorizer([parse_rules('{"key_prefix": {"app/": "write", "app/secret/": "read"}}')])
    assert authorizer.allows("key", "app/x", "write")
    assert not authorizer.allows_prefix("key", "app/", "write")
    assert authorizer.allows_prefix("key", "app/", "read")
    assert authorizer.allows_prefix("key", "app/public/", "write")
    assert not authorizer.allows_prefix("key", "", "read")


@pytest.mark.parametrize("access", ["read", "write"])
def test_without_rules_only_management_and_disabled_allow(access: Access) -> None:
    for resource in (*RESOURCES, "operator"):
        assert not DENY_ALL.allows(resource, "x", access)
        assert ALLOW_ALL.allows(resource, "x", access)
        assert Authorizer(management=True).allows_prefix(resource, "", access)


@pytest.mark.parametrize("authorizer", [ALLOW_ALL, DENY_ALL, Authorizer(management=True)])
@pytest.mark.parametrize("resource", ["internal", "", "kv"])
def test_unknown_resources_and_the_leaders_own_are_never_allowed(authorizer: Authorizer, resource: str) -> None:
    assert not authorizer.allows(resource, "", "read")
    assert not authorizer.allows_prefix(resource, "", "write")
