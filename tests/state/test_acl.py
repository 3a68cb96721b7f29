"""Tokens and policies in the state, what each request asks of a token, and what a token gets to see."""

from hashlib import sha256
from typing import get_args

import pytest

from coordd.acl.authorizer import Authorizer
from coordd.acl.rules import parse_rules
from coordd.messages import query as ask
from coordd.messages.command import (
    AclBootstrap,
    AclDeletePolicy,
    AclDeleteToken,
    AclPutPolicy,
    AclPutToken,
    CheckDefinition,
    Command,
    CreateSession,
    Deregister,
    DestroySession,
    ExpireClients,
    ExpireSessions,
    KvDelete,
    KvDeleteTree,
    KvPut,
    LockAcquire,
    LockCancel,
    LockRelease,
    Register,
    RegisterClient,
    ServiceDefinition,
    SetNodeStatus,
)
from coordd.messages.query import ListPolicies, ListTokens, Query, ResolveToken, TokenRules
from coordd.state import acl
from coordd.state.limits import Limits
from coordd.state.permissions import _REQUIRED, Permission
from tests.state.world import World

READ_APP = '{"key_prefix": {"app/": "read"}}'


def hashed(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def bootstrapped(world: World) -> None:
    world.done(AclBootstrap("root", hashed("root-secret")))


def authorizer(world: World, secret: str) -> Authorizer:
    found = world.machine.authorizer(secret)
    assert found is not None
    return found[1]


def only(rules: str) -> Authorizer:
    return Authorizer([parse_rules(rules)])


# --- tokens and policies ----------------------------------------------------------------------------------------------


def test_everything_is_allowed_before_bootstrap(world: World) -> None:
    assert not world.machine.acl_enabled
    for secret in ("", "anything"):
        assert authorizer(world, secret).allows("operator", "", "write")
    assert world.value(ResolveToken()) == TokenRules("", enabled=False, management=False, rules=())


def test_bootstrap_works_once_and_denies_by_default(world: World) -> None:
    bootstrapped(world)
    assert world.machine.acl_enabled
    assert world.machine.changes == {("acl",)}
    assert world.machine.authorizer("wrong") is None
    assert not authorizer(world, "").allows("key", "a", "read")
    assert authorizer(world, "root-secret").allows("operator", "", "write")
    world.failed(AclBootstrap("root2", hashed("x")), "denied")


def test_nobody_in_particular_can_not_be_the_first_manager(world: World) -> None:
    world.failed(AclBootstrap("anonymous", hashed("x")))
    assert not world.machine.acl_enabled


def test_the_secret_is_nowhere_in_the_state(world: World) -> None:
    bootstrapped(world)
    assert "root-secret" not in repr(world.content())


def test_a_tokens_rights_follow_its_policies(world: World) -> None:
    bootstrapped(world)
    world.done(AclPutPolicy("app", READ_APP))
    world.done(AclPutToken("t1", hashed("one"), ("app",)))
    assert authorizer(world, "one").allows("key", "app/x", "read")
    assert not authorizer(world, "one").allows("key", "app/x", "write")
    world.done(AclPutPolicy("app", '{"key_prefix": {"app/": "write"}}'))
    assert authorizer(world, "one").allows("key", "app/x", "write")
    world.done(AclPutToken("t1", b"", ()))
    assert not authorizer(world, "one").allows("key", "app/x", "read")
    world.done(AclDeleteToken("t1"))
    assert world.machine.authorizer("one") is None
    world.done(AclDeleteToken("t1"))


def test_everyone_has_the_anonymous_tokens_rights(world: World) -> None:
    bootstrapped(world)
    world.done(AclPutPolicy("dns", '{"service_prefix": {"": "read"}}'))
    world.done(AclPutToken("anonymous", b"", ("dns",)))
    assert world.machine.authorizer("")[0] == ""  # type: ignore[index]
    assert authorizer(world, "").allows("service", "web", "read")
    assert world.value(ResolveToken()) == TokenRules("", True, False, ('{"service_prefix": {"": "read"}}',))
    world.failed(AclPutToken("anonymous", b"", (), management=True))
    world.failed(AclPutToken("anonymous", hashed("x"), ()))


def test_resolve_token_gives_what_an_agent_needs(world: World) -> None:
    bootstrapped(world)
    world.done(AclPutPolicy("b", "{}"))
    world.done(AclPutPolicy("a", READ_APP))
    world.done(AclPutToken("t1", hashed("one"), ("b", "a")))
    found = world.machine.authorizer("one")
    assert found is not None
    answer = world.machine.query(ResolveToken(), found[1], found[0])
    assert answer.value == TokenRules("t1", True, False, (READ_APP, "{}"))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (AclPutPolicy("p", "{"), "invalid"),
        (AclPutPolicy("", "{}"), "invalid"),
        (AclPutPolicy("a b", "{}"), "invalid"),
        (AclPutToken("t", b"short"), "invalid"),
        (AclPutToken("t", b""), "invalid"),
        (AclPutToken("t", hashed("x"), ("nope",)), "invalid"),
        (AclPutToken("t", hashed("root-secret")), "conflict"),
        (AclPutToken("root", b""), "conflict"),
        (AclDeleteToken("root"), "conflict"),
        (AclDeletePolicy("used"), "conflict"),
    ],
)
def test_what_is_refused(world: World, command: Command, code: str) -> None:
    bootstrapped(world)
    world.done(AclPutPolicy("used", "{}"))
    world.done(AclPutToken("user", hashed("user"), ("used",)))
    world.failed(command, code)


def test_no_management_token_is_planted_before_the_bootstrap(world: World) -> None:
    world.failed(AclPutToken("early", hashed("early"), management=True), "denied")
    world.done(AclPutToken("later", hashed("later")))


def test_the_last_management_token_may_go_when_there_is_another(world: World) -> None:
    bootstrapped(world)
    world.done(AclPutToken("other", hashed("other"), management=True))
    world.done(AclDeleteToken("root"))
    world.failed(AclDeleteToken("other"), "conflict")


def test_what_a_library_says_of_bad_rules_is_not_replicated(world: World) -> None:
    """Its words change with its version, and a reply is part of the state."""
    for rules in ("{", "[]", '{"key": {"a": "read",}}'):
        assert world.failed(AclPutPolicy("p", rules)) == "the rules are no JSON of the expected form"
    assert "'kye'" in world.failed(AclPutPolicy("p", '{"kye": {}}'))


def test_a_bootstrap_takes_over_no_token_that_is_there(world: World) -> None:
    """Else whoever bootstraps would be let in by the secret that somebody else drew for it."""
    world.done(AclPutToken("root", hashed("earlier")))
    world.failed(AclBootstrap("root", hashed("root-secret")), "conflict")
    assert not world.machine.acl_enabled


def test_policies_of_one_token_are_bounded() -> None:
    world = World(limits=Limits(policies_for_one_token=2))
    for name in "abc":
        world.done(AclPutPolicy(name, "{}"))
    world.failed(AclPutToken("t", hashed("one"), ("a", "b", "c")))
    world.done(AclPutToken("t", hashed("one"), ("a", "b")))
    world.close()


def test_authorizers_are_kept_for_a_bounded_number_of_tokens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl, "_CACHED_TOKENS", 2)
    bootstrapped(world)
    for name in "abc":
        world.done(AclPutToken(name, hashed(name)))
    first = authorizer(world, "a")
    assert authorizer(world, "a") is first
    assert [authorizer(world, name).allows("key", "k", "read") for name in "bc"] == [False, False]
    again = authorizer(world, "a")
    assert again is not first, "the oldest made room, and is made anew when asked for"
    assert not again.allows("key", "k", "read")


def test_unused_policies_may_go(world: World) -> None:
    world.done(AclPutPolicy("p", "{}"))
    world.done(AclDeletePolicy("p"))
    world.done(AclDeletePolicy("p"))
    assert world.content()["policies"] == []


# --- what a request asks ----------------------------------------------------------------------------------------------


def test_every_kind_of_request_has_declared_permissions() -> None:
    assert set(_REQUIRED) == {*get_args(Command), *get_args(Query)}


WEB = ServiceDefinition("web1", "web")
NODE = Permission("node", "n1", "write")
OPERATOR = Permission("operator", "", "write")


@pytest.mark.parametrize(
    ("item", "needed"),
    [
        (KvPut("a", b""), [Permission("key", "a", "write")]),
        (KvDelete("a"), [Permission("key", "a", "write")]),
        (KvDeleteTree("a/"), [Permission("key", "a/", "write", prefix=True)]),
        (ask.KvGet("a"), [Permission("key", "a", "read")]),
        (ask.KvList("a"), []),
        (Register("n1", "1"), [NODE]),
        (Register("n1", "1", services=(WEB,)), [NODE, Permission("service", "web", "write")]),
        (Register("n1", "1", services=(WEB,), skip_node_update=True), [Permission("service", "web", "write")]),
        (Register("n9", "1", skip_node_update=True), [Permission("node", "n9", "write")]),
        (
            Register("n1", "1", services=(ServiceDefinition("db1", "mine"),), skip_node_update=True),
            [Permission("service", "db", "write"), Permission("service", "mine", "write")],
        ),
        (Register("n1", "1", checks=(CheckDefinition("new", ""),), skip_node_update=True), [NODE]),
        (
            Register("n1", "1", checks=(CheckDefinition("new", "", service_id="db1"),), skip_node_update=True),
            [Permission("service", "db", "write")],
        ),
        (
            Register(
                "n1",
                "1",
                services=(WEB,),
                checks=(CheckDefinition("disk", "", service_id="web1"),),
                skip_node_update=True,
            ),
            [NODE, Permission("service", "web", "write")],
        ),
        (Deregister("n1"), [NODE]),
        (Deregister("n1", service_id="db1"), [Permission("service", "db", "write")]),
        (Deregister("n1", service_id="nope"), [NODE]),
        (Deregister("n1", check_id="up"), [Permission("service", "db", "write")]),
        (Deregister("n1", check_id="disk"), [NODE]),
        (CreateSession("s", "n1"), [Permission("session", "n1", "write")]),
        (DestroySession("s1"), [Permission("session", "n1", "write")]),
        (DestroySession("nope"), []),
        (LockAcquire("l", "s"), [Permission("lock", "l", "write")]),
        (LockRelease("l", 1), [Permission("lock", "l", "write")]),
        (LockCancel("l", "s"), [Permission("lock", "l", "write")]),
        (RegisterClient(), [Permission("anything", "", "write")]),
        (AclBootstrap("a", b""), []),
        (AclPutPolicy("a", ""), [OPERATOR]),
        (AclDeletePolicy("a"), [OPERATOR]),
        (AclPutToken("a", b""), [OPERATOR]),
        (AclDeleteToken("a"), [OPERATOR]),
        (ListTokens(), [Permission("operator", "", "read")]),
        (ListPolicies(), [Permission("operator", "", "read")]),
        (ResolveToken(), []),
    ],
)
def test_what_a_request_needs(world: World, item: Command | Query, needed: list[Permission]) -> None:
    checks = (CheckDefinition("up", "", "passing", "db1"), CheckDefinition("disk", "", "passing"))
    world.done(Register("n1", "1", services=(ServiceDefinition("db1", "db"),), checks=checks))
    world.done(CreateSession("s1", "n1", node_checks=()))
    assert sorted(world.machine.required(item)) == sorted(needed)


@pytest.mark.parametrize("item", [SetNodeStatus(1, ()), ExpireSessions(1, ()), ExpireClients(1, ())])
def test_what_a_leader_proposes_nobody_may_send(world: World, item: Command) -> None:
    (permission,) = world.machine.required(item)
    for one in (Authorizer(management=True), Authorizer(enabled=False)):
        assert not permission.granted(one)


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (Register("n1", "1", services=(ServiceDefinition("w", "WEB"),)), '"service": {"Web": "deny"}'),
        (Register("N1", "1"), '"node": {"n1": "deny"}'),
        (Register("n1", "1"), '"node": {"N1": "deny"}'),
        (CreateSession("s", "N1"), '"session": {"n1": "deny"}'),
    ],
    ids=repr,
)
def test_another_spelling_is_no_way_round_a_rule(world: World, item: Command, rule: str) -> None:
    """Whoever asks for the service "web" is told of those called "WEB" too."""
    anything = '"service_prefix": {"": "write"}, "node_prefix": {"": "write"}, "session_prefix": {"": "write"}'
    needed = world.machine.required(item)
    assert all(permission.granted(only(f"{{{anything}}}")) for permission in needed)
    assert not all(permission.granted(only(f"{{{anything}, {rule}}}")) for permission in needed)


def test_keys_and_locks_keep_their_case() -> None:
    rules = only('{"key_prefix": {"a/": "write"}, "lock": {"l": "write"}}')
    assert not rules.allows("key", "A/x", "read")
    assert not rules.allows("lock", "L", "read")


def test_deltree_is_stopped_by_a_rule_beneath() -> None:
    permission = Permission("key", "app/", "write", prefix=True)
    assert permission.granted(only('{"key_prefix": {"": "write"}}'))
    assert not permission.granted(only('{"key_prefix": {"": "write", "app/secret": "read"}}'))
    assert not permission.granted(only('{"key_prefix": {"": "write"}, "key": {"app/secret": "deny"}}'))


# --- what a token sees ------------------------------------------------------------------------------------------------


@pytest.fixture
def full(world: World) -> World:
    for node in ("n1", "n2"):
        services = (ServiceDefinition("web1", "web", ("t",)), ServiceDefinition("db1", "db", ("u",)))
        checks = (CheckDefinition("up", "", "passing", "db1"), CheckDefinition("disk", "", "passing"))
        world.done(Register(node, "1", services=services, checks=checks))
        world.done(CreateSession(f"s-{node}", node, node_checks=()))
    for key in ("app/a", "app/b", "other"):
        world.done(KvPut(key, b"x"))
    for lock in ("l1", "l2"):
        world.grant(LockAcquire(lock, "s-n1"))
    world.done(AclPutPolicy("p", "{}"))
    world.done(AclPutToken("t", hashed("t"), ("p",)))
    return world


QUERIES: list[Query] = [
    ask.KvGet("app/a"),
    ask.KvList(""),
    ask.KvList("", keys_only=True),
    ask.ListNodes(),
    ask.NodeCatalog("n1"),
    ask.ListServices(),
    ask.ServiceHealth("web"),
    ask.ListChecks(),
    ask.ListSessions(),
    ask.ListSessions(id="s-n1"),
    ask.ListLocks(),
    ask.ListLocks("l1"),
    ListPolicies(),
    ListTokens(),
]


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_without_rules_nothing_is_seen(full: World, query: Query) -> None:
    everything = full.ask(query)
    assert not everything.filtered
    nothing = full.ask(query, Authorizer())
    assert nothing.filtered
    assert nothing.index == everything.index
    for name in ("web", "db", "n1", "n2", "app", "s-n1", "l1", "t"):
        assert f"'{name}" not in repr(nothing.value)


@pytest.mark.parametrize(
    ("query", "rules", "seen", "hidden"),
    [
        (ask.KvList(""), READ_APP, ["app/a", "app/b"], ["other"]),
        (ask.KvList("", separator="/"), READ_APP, ["app/"], ["other"]),
        (ask.ListNodes(), '{"node": {"n1": "read"}}', ["n1"], ["n2"]),
        (ask.ServiceHealth("web"), '{"node": {"n1": "read"}, "service": {"web": "read"}}', ["n1", "web1"], ["n2"]),
        (
            ask.NodeCatalog("n1"),
            '{"node": {"n1": "read"}, "service": {"web": "read"}}',
            ["web1", "disk"],
            ["db1", "up"],
        ),
        (ask.ListServices(), '{"service": {"web": "read"}}', ["web", "t"], ["db", "u"]),
        (ask.ListChecks(), '{"node_prefix": {"": "read"}}', ["disk"], ["up"]),
        (ask.ListSessions(), '{"session": {"n2": "read"}}', ["s-n2"], ["s-n1"]),
        (ask.ListLocks(), '{"lock": {"l2": "read"}}', ["l2"], ["l1"]),
    ],
    ids=repr,
)
def test_lists_show_what_the_rules_allow(
    full: World, query: Query, rules: str, seen: list[str], hidden: list[str]
) -> None:
    answer = full.ask(query, only(rules))
    assert answer.filtered
    for name in seen:
        assert repr(name) in repr(answer.value)
    for name in hidden:
        assert repr(name) not in repr(answer.value)


def test_tokens_are_listed_without_secrets(full: World) -> None:
    shown = repr(full.value(ListTokens()))
    assert "'t'" in shown
    assert hashed("t").hex() not in shown
