"""Rules text: the form that is read, and what is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordd.acl.rules import MAX_RULES_LENGTH, Rules, parse_rules
from coordd.errors import InvalidError


def test_every_part_is_read() -> None:
    text = """{"key": {"a": "read"}, "key_prefix": {"app/": "write"}, "service": {"web": "deny"},
               "lock_prefix": {"": "write"}, "operator": "read"}"""
    assert parse_rules(text) == Rules(
        exact={"key": {"a": "read"}, "service": {"web": "deny"}},
        prefix={"key": {"app/": "write"}, "lock": {"": "write"}},
        operator="read",
    )


def test_empty_rules_say_nothing() -> None:
    assert parse_rules("{}") == Rules()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "JSON"),
        ("[]", "JSON"),
        ('{"key": 1}', "JSON"),
        ('{"kye": {}}', "'kye'"),
        ('{"operator_prefix": {}}', "'operator_prefix'"),
        ('{"key": "write"}', "key must map"),
        ('{"operator": {"": "write"}}', "operator must be"),
        ('{"key": {"a": "list"}}', "key 'a' must be one of"),
        ('{"key": {"a": "read", "a": "deny"}}', "twice"),
        ('{"key": {}, "key": {}}', "twice"),
        ('{"key": {"%s": "read"}}' % ("x" * 513), "longer"),
        ("[" * 100_000, "longer"),
        ("[" * 10_000, "JSON"),
        (" " * MAX_RULES_LENGTH + "{}", "longer"),
    ],
)
def test_what_is_wrong_is_named(text: str, place: str) -> None:
    with pytest.raises(InvalidError, match=place):
        parse_rules(text)


@given(st.text())
def test_any_text_is_rules_or_invalid(text: str) -> None:
    try:
        parse_rules(text)
    except InvalidError as error:
        assert error.text  # noqa: PT017
