"""What is registered on this host, and how each check stands. Nobody else decides about it; the catalog is a copy.

Pure memory: no clock, no disk, no loop. `saved_registrations` and `saved_reports` give what is to be kept over
restarts, `restore` takes it back; who owns the registry writes it. `on_change` is called with the ids of the checks that
changed their status or output, and with an empty set when services came or went.

Services come from files or from the local socket. A file wins over an earlier registration of the same id, and what a
file says can't be deregistered over the socket: the next reload would bring it back.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

import msgspec

from coordd.errors import BusyError, ConflictError, InvalidError, NotFoundError, StorageError
from coordd.messages.command import CheckDefinition, CheckStatus, ServiceDefinition
from coordd.messages.local import CheckSpec

__all__ = ["CheckState", "LocalService", "Registry", "TtlReport", "catalog_check", "check_fault", "service_fault"]

MAX_SERVICES = 4096
MAX_CHECKS_PER_SERVICE = 64
MAX_TEXT_BYTES = 512
MIN_INTERVAL_MS, MAX_INTERVAL_MS = 100, 7 * 24 * 3600 * 1000
RESERVED_CHECKS = frozenset({"serfHealth"})
"""The leader's own check of this node."""

Origin: TypeAlias = Literal["file", "socket"]


class LocalService(msgspec.Struct, frozen=True):
    """A service under the agent's care; its checks have ids and names."""

    definition: ServiceDefinition
    checks: tuple[CheckSpec, ...]
    origin: Origin = "socket"


class CheckState(msgspec.Struct, frozen=True):
    spec: CheckSpec
    service_id: str
    """"" for a check of the node."""
    status: CheckStatus
    output: str = ""


class TtlReport(msgspec.Struct, frozen=True):
    """The last report of a TTL check."""

    status: CheckStatus
    output: str
    expires_at: float
    """Wall clock, in seconds: it must mean something after a restart."""


class _Saved(msgspec.Struct, frozen=True):
    version: int
    services: tuple[LocalService, ...] = ()


class _SavedReports(msgspec.Struct, frozen=True):
    version: int
    reports: dict[str, TtlReport] = {}


VERSION = 1


class Registry:
    def __init__(self, on_change: Callable[[frozenset[str]], None] = lambda ids: None) -> None:
        self.services: dict[str, LocalService] = {}
        self.checks: dict[str, CheckState] = {}
        self.reports: dict[str, TtlReport] = {}
        self._node_checks: tuple[CheckSpec, ...] = ()
        self._on_change = on_change

    # --- registering --------------------------------------------------------------------------------------------------

    def register(self, definition: ServiceDefinition, checks: Iterable[CheckSpec]) -> None:
        """Put a service in place of one with the same id. A check that stays as it was keeps its status.

        Raises: InvalidError, ConflictError, BusyError; then nothing has changed.
        """
        known = self.services.get(definition.id)
        if known is None and len(self.services) >= MAX_SERVICES:
            raise BusyError(f"this agent has {MAX_SERVICES} services, which is its limit; deregister some")
        if known is not None and known.origin == "file":
            raise ConflictError(f"service {definition.id} is defined in a configuration file; change it there")
        self._put(LocalService(definition, _named(definition, tuple(checks))))

    def deregister(self, service_id: str) -> None:
        """Raises: NotFoundError, ConflictError."""
        known = self.services.get(service_id)
        if known is None:
            raise NotFoundError(f"no service with id {service_id} is registered at this agent")
        if known.origin == "file":
            raise ConflictError(f"service {service_id} is defined in a configuration file; remove it there")
        self._drop(service_id)
        self._on_change(frozenset())

    def load_files(self, services: Iterable[LocalService], node_checks: Iterable[CheckSpec]) -> None:
        """Take over what the files say now: what they no longer say is gone. Raises: InvalidError, nothing changed."""
        named = [LocalService(one.definition, _named(one.definition, one.checks), "file") for one in services]
        wanted = {one.definition.id: one for one in named}
        if len(wanted) != len(named):
            raise InvalidError("two services in the configuration files have the same id")
        node_checks = tuple(node_checks)
        for spec in node_checks:
            if fault := check_fault(spec):
                raise InvalidError(f"check {spec.id}: {fault}")
        self._refuse_shared_checks(wanted, node_checks)
        for service_id, known in list(self.services.items()):
            if known.origin == "file" and service_id not in wanted:
                self._drop(service_id)
        for fresh in wanted.values():
            if self.services.get(fresh.definition.id) != fresh:
                self._put(fresh)
        self._replace_checks("", self._node_checks, node_checks)
        self._node_checks = node_checks
        self._on_change(frozenset())

    # --- results ------------------------------------------------------------------------------------------------------

    def report(self, check_id: str, status: CheckStatus, output: str) -> None:
        """A check's result. One for a check that is gone meanwhile is ignored."""
        known = self.checks.get(check_id)
        if known is not None and (known.status, known.output) != (status, output):
            self.checks[check_id] = msgspec.structs.replace(known, status=status, output=output)
            self._on_change(frozenset({check_id}))

    def report_ttl(self, check_id: str, status: CheckStatus, output: str, wall_now: float) -> None:
        """The service's own report. Raises: NotFoundError, InvalidError for a check of another kind."""
        known = self.checks.get(check_id)
        if known is None:
            raise NotFoundError(f"no check with id {check_id} is registered at this agent")
        if not known.spec.ttl_ms:
            raise InvalidError(f"check {check_id} is no TTL check: the agent finds out by itself")
        self.reports[check_id] = TtlReport(status, output, wall_now + known.spec.ttl_ms / 1000)
        self.report(check_id, status, output)

    # --- over restarts ------------------------------------------------------------------------------------------------

    def saved_registrations(self) -> bytes:
        services = tuple(one for one in self.services.values() if one.origin == "socket")
        return msgspec.json.format(msgspec.json.encode(_Saved(VERSION, services)), indent=1)

    def saved_reports(self) -> bytes:
        reports = {check_id: one for check_id, one in self.reports.items() if check_id in self.checks}
        return msgspec.json.encode(_SavedReports(VERSION, reports))

    def restore(self, registrations: bytes | None, reports: bytes | None, wall_now: float) -> None:
        """What was saved, before files are loaded. Raises: StorageError."""
        try:
            saved = msgspec.json.decode(registrations, type=_Saved) if registrations else _Saved(VERSION)
            known = msgspec.json.decode(reports, type=_SavedReports) if reports else _SavedReports(VERSION)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(f"the agent's saved registrations can't be read: {error}") from error
        if max(saved.version, known.version) > VERSION:
            raise StorageError("the agent's saved registrations were written by a newer version of coordd-agent")
        # Reports first: a check takes its status from there.
        self.reports = {check_id: one for check_id, one in known.reports.items() if one.expires_at > wall_now}
        for service in saved.services:
            self._put(service)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _put(self, service: LocalService) -> None:
        known = self.services.get(service.definition.id)
        foreign = next(
            (one.id for one in service.checks if self._owner(one.id) not in (None, service.definition.id)), None
        )
        if foreign is not None:
            raise ConflictError(f"check id {foreign} is in use by another service or by the node")
        self.services[service.definition.id] = service
        self._replace_checks(service.definition.id, known.checks if known else (), service.checks)
        self._on_change(frozenset())

    def _refuse_shared_checks(self, wanted: Mapping[str, LocalService], node_checks: Iterable[CheckSpec]) -> None:
        kept = [one for one in self.services.values() if one.origin == "socket" and one.definition.id not in wanted]
        ids = [spec.id for one in [*kept, *wanted.values()] for spec in one.checks] + [spec.id for spec in node_checks]
        if twice := next((each for each in ids if ids.count(each) > 1), None):
            raise InvalidError(f"check id {twice} is used twice among the services of this host")

    def _owner(self, check_id: str) -> str | None:
        known = self.checks.get(check_id)
        return None if known is None else known.service_id

    def _drop(self, service_id: str) -> None:
        self._replace_checks(service_id, self.services.pop(service_id).checks, ())

    def _replace_checks(self, service_id: str, old: Iterable[CheckSpec], new: Iterable[CheckSpec]) -> None:
        fresh = {spec.id: spec for spec in new}
        for spec in old:
            if fresh.get(spec.id) != spec:
                self.checks.pop(spec.id, None)
                if spec.id not in fresh:
                    self.reports.pop(spec.id, None)
        for check_id, spec in fresh.items():
            if check_id not in self.checks:
                report = self.reports.get(check_id) if spec.ttl_ms else None
                status, output = (report.status, report.output) if report else (spec.status, "")
                self.checks[check_id] = CheckState(spec, service_id, status, output)


def catalog_check(check_id: str, state: CheckState) -> CheckDefinition:
    """The check as the catalog shows it."""
    spec = state.spec
    return CheckDefinition(
        id=check_id,
        name=spec.name,
        status=state.status,
        service_id=state.service_id,
        output=state.output,
        notes=spec.notes,
        type="http" if spec.http else "tcp" if spec.tcp else "ttl",
        interval="" if spec.ttl_ms else f"{spec.interval_ms}ms",
        timeout=f"{spec.ttl_ms}ms" if spec.ttl_ms else f"{spec.timeout_ms}ms",
    )


def service_fault(definition: ServiceDefinition) -> str | None:
    """Why the service can't be registered."""
    texts: Mapping[str, str] = {"id": definition.id, "name": definition.name, "address": definition.address}
    for field, text in texts.items():
        if len(text.encode()) > MAX_TEXT_BYTES or not text.isprintable():
            return f"its {field} must be printable and at most {MAX_TEXT_BYTES} bytes long"
    if not definition.id or not definition.name:
        return "it needs an id and a name"
    if not 0 <= definition.port <= 65535:
        return f"its port {definition.port} is not from 0 to 65535"
    if min(definition.weight_passing, definition.weight_warning) < 0:
        return "its weights must not be negative"
    return None


def check_fault(spec: CheckSpec) -> str | None:
    """Why the check can't be run."""
    if (bool(spec.http), bool(spec.tcp), bool(spec.ttl_ms)).count(True) != 1:
        return "exactly one of http, tcp and ttl must be given"
    if spec.http and not spec.http.startswith(("http://", "https://")):
        return "http must be a URL with http:// or https://"
    port = spec.tcp.rpartition(":")[2]
    if spec.tcp and not (spec.tcp.rpartition(":")[0] and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return "tcp must be host:port"
    if any(not MIN_INTERVAL_MS <= each <= MAX_INTERVAL_MS for each in (spec.interval_ms, spec.timeout_ms)):
        return f"interval and timeout must be from {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS} ms"
    if spec.ttl_ms and not MIN_INTERVAL_MS <= spec.ttl_ms <= MAX_INTERVAL_MS:
        return f"ttl must be from {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS} ms"
    if min(spec.success_before_passing, spec.failures_before_critical) < 0:
        return "thresholds must not be negative"
    if spec.id in RESERVED_CHECKS:
        return f"the id {spec.id} belongs to the cluster"
    return None


def _named(definition: ServiceDefinition, checks: tuple[CheckSpec, ...]) -> tuple[CheckSpec, ...]:
    """The checks with ids and names. Raises: InvalidError if service or checks are wrong."""
    if fault := service_fault(definition):
        raise InvalidError(f"service {definition.id or definition.name} can't be registered: {fault}")
    if len(checks) > MAX_CHECKS_PER_SERVICE:
        raise InvalidError(f"service {definition.id} has more than {MAX_CHECKS_PER_SERVICE} checks")
    named = []
    for number, spec in enumerate(checks, start=1):
        if fault := check_fault(spec):
            raise InvalidError(f"check {number} of service {definition.id}: {fault}")
        standard = f"service:{definition.id}" + (f":{number}" if number > 1 else "")
        name = spec.name or f"Service '{definition.name}' check"
        named.append(msgspec.structs.replace(spec, id=spec.id or standard, name=name))
    if len({spec.id for spec in named}) != len(named):
        raise InvalidError(f"service {definition.id} has two checks with the same id")
    return tuple(named)
