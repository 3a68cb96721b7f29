"""What is registered, how it survives a restart, and what is refused."""

import pytest

from coordd.errors import ConflictError, InvalidError, NotFoundError, StorageError
from coordd.messages.command import ServiceDefinition
from coordd.messages.local import CheckSpec
from coordd_agent.registry import LocalService, Registry

WEB = ServiceDefinition("web", "web", port=80)
TCP = CheckSpec(tcp="127.0.0.1:80")
TTL = CheckSpec(ttl_ms=60_000)


def test_checks_get_ids_and_names() -> None:
    registry = Registry()
    registry.register(WEB, [TCP, TTL, CheckSpec(id="own", name="Own", tcp="h:1")])
    assert list(registry.checks) == ["service:web", "service:web:2", "own"]
    assert registry.checks["service:web"].spec.name == "Service 'web' check"
    assert registry.checks["service:web"].status == "critical"


def test_registering_again_keeps_the_status_of_unchanged_checks() -> None:
    registry = Registry()
    registry.register(WEB, [TCP, TTL])
    registry.report("service:web", "passing", "fine")
    registry.report("service:web:2", "passing", "fine")
    registry.register(WEB, [TCP, CheckSpec(ttl_ms=1_000)])
    assert registry.checks["service:web"].status == "passing"
    assert registry.checks["service:web:2"].status == "critical"


def test_changes_are_told_once() -> None:
    told: list[frozenset[str]] = []
    registry = Registry(told.append)
    registry.register(WEB, [TCP])
    registry.report("service:web", "passing", "fine")
    registry.report("service:web", "passing", "fine")
    registry.report("gone", "passing", "fine")
    assert told == [frozenset(), frozenset({"service:web"})]


def test_restart() -> None:
    registry = Registry()
    registry.register(WEB, [TCP, TTL])
    registry.report("service:web", "passing", "fine")
    registry.report_ttl("service:web:2", "warning", "so so", wall_now=1000.0)
    saved = (registry.saved_registrations(), registry.saved_reports())

    soon = Registry()
    soon.restore(*saved, wall_now=1059.0)
    assert soon.services == registry.services
    # What the agent finds out by itself it finds out anew; what only the service can say is kept while it holds.
    assert soon.checks["service:web"].status == "critical"
    assert (soon.checks["service:web:2"].status, soon.checks["service:web:2"].output) == ("warning", "so so")

    late = Registry()
    late.restore(*saved, wall_now=1061.0)
    assert late.checks["service:web:2"].status == "critical"


def test_files_win_and_what_they_drop_is_gone() -> None:
    registry = Registry()
    registry.register(WEB, [TCP])
    in_file = LocalService(ServiceDefinition("web", "web", port=81), (), "file")
    registry.load_files([in_file], [CheckSpec(id="disk", ttl_ms=1000)])
    assert registry.services["web"].definition.port == 81
    assert list(registry.checks) == ["disk"]
    with pytest.raises(ConflictError, match="configuration file"):
        registry.register(WEB, [])
    with pytest.raises(ConflictError, match="configuration file"):
        registry.deregister("web")
    assert b"81" not in registry.saved_registrations()
    registry.load_files([], [])
    assert not registry.services
    assert not registry.checks


@pytest.mark.parametrize(
    "check",
    [
        CheckSpec(),
        CheckSpec(tcp="h:1", ttl_ms=1000),
        CheckSpec(http="ftp://h/"),
        CheckSpec(tcp="h"),
        CheckSpec(tcp="h:70000"),
        CheckSpec(tcp="h:1", interval_ms=1),
        CheckSpec(ttl_ms=-5),
        CheckSpec(tcp="h:1", failures_before_critical=-1),
        CheckSpec(id="serfHealth", tcp="h:1"),
    ],
)
def test_checks_that_cannot_be_run(check: CheckSpec) -> None:
    registry = Registry()
    with pytest.raises(InvalidError, match="check 1 of service web"):
        registry.register(WEB, [check])
    assert not registry.services


@pytest.mark.parametrize(
    "service",
    [
        ServiceDefinition("", "x"),
        ServiceDefinition("x", ""),
        ServiceDefinition("x", "x", port=70_000),
        ServiceDefinition("a\nb", "x"),
    ],
)
def test_services_that_cannot_be_registered(service: ServiceDefinition) -> None:
    with pytest.raises(InvalidError, match="can't be registered"):
        Registry().register(service, [])


def test_one_check_id_for_two_services_is_refused() -> None:
    registry = Registry()
    registry.register(WEB, [CheckSpec(id="c", tcp="h:1")])
    other = ServiceDefinition("other", "other")
    with pytest.raises(ConflictError, match="check id c is in use"):
        registry.register(other, [CheckSpec(id="c", tcp="h:1")])
    with pytest.raises(InvalidError, match="check id c is used twice"):
        registry.load_files([LocalService(other, (CheckSpec(id="c", tcp="h:1"),))], [])
    assert list(registry.services) == ["web"]


def test_reports_only_for_ttl_checks() -> None:
    registry = Registry()
    registry.register(WEB, [TCP])
    with pytest.raises(InvalidError, match="no TTL check"):
        registry.report_ttl("service:web", "passing", "", 0.0)
    with pytest.raises(NotFoundError, match="no check with id x"):
        registry.report_ttl("x", "passing", "", 0.0)
    with pytest.raises(NotFoundError, match="no service with id x"):
        registry.deregister("x")


def test_what_cannot_be_read_is_not_overwritten() -> None:
    with pytest.raises(StorageError, match="can't be read"):
        Registry().restore(b"{", None, 0.0)
    with pytest.raises(StorageError, match="newer version"):
        Registry().restore(b'{"version": 99}', None, 0.0)
