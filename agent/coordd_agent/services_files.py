"""Files of `services_dir` to services and checks."""

from pathlib import Path

from coordd.config import load
from coordd.errors import ConfigError
from coordd.messages.command import CheckStatus, ServiceDefinition
from coordd.messages.local import CheckSpec
from coordd_agent.registry import LocalService
from coordd_agent.settings import CheckTable, ServicesFile, ServiceTable

__all__ = ["read_services"]

_STATUS: dict[str, CheckStatus] = {"passing": "passing", "warning": "warning", "critical": "critical"}


def read_services(folder: Path | None) -> tuple[list[LocalService], list[CheckSpec]]:
    """Services and node checks of all `*.toml` files, by file name. Raises: ConfigError."""
    services: list[LocalService] = []
    checks: list[CheckSpec] = []
    if folder is None:
        return services, checks
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except OSError as error:
        raise ConfigError(f"services_dir {folder} can't be read: {(error.strerror or str(error)).lower()}") from error
    for path in paths:
        content = load(ServicesFile, path)
        services += [_service(one) for one in content.services]
        checks += [_check(one) for one in content.checks]
    return services, checks


def _service(table: ServiceTable) -> LocalService:
    definition = ServiceDefinition(
        id=table.id or table.name,
        name=table.name,
        tags=table.tags,
        address=table.address,
        port=table.port,
        meta=table.meta,
        weight_passing=table.weight_passing,
        weight_warning=table.weight_warning,
        enable_tag_override=table.enable_tag_override,
    )
    return LocalService(definition, tuple(_check(one) for one in table.checks), "file")


def _check(table: CheckTable) -> CheckSpec:
    return CheckSpec(
        id=table.id,
        name=table.name,
        http=table.http,
        method=table.method,
        headers=table.headers,
        body=table.body,
        tls_skip_verify=table.tls_skip_verify,
        tcp=table.tcp,
        ttl_ms=table.ttl_ms,
        interval_ms=table.interval_ms,
        timeout_ms=table.timeout_ms,
        success_before_passing=table.success_before_passing,
        failures_before_critical=table.failures_before_critical,
        status=_STATUS[table.status],
        notes=table.notes,
    )
