"""`coordctl services` and `coordctl checks`: what this host offers, and the whole catalog."""

from typing import Annotated

import typer

from coordd.messages.client import Ok
from coordd.messages.command import CheckStatus, ServiceDefinition
from coordd.messages.local import (
    CheckSpec,
    DeregisterService,
    ListLocalChecks,
    ListLocalServices,
    RegisterService,
    UpdateTtlCheck,
)
from coordd.messages.query import (
    Catalog,
    CheckInfo,
    Checks,
    Health,
    HealthEntry,
    ListChecks,
    ListServices,
    ServiceHealth,
    ServiceNames,
)
from coordd_cli.call import Call, UsageError, command
from coordd_cli.render import shortened
from coordd_cli.words import milliseconds, pairs

services = typer.Typer(no_args_is_help=True, help="Register and list services.")
checks = typer.Typer(no_args_is_help=True, help="List checks, and report for TTL checks.")

_WORST = ("critical", "warning", "passing")
Note = Annotated[str, typer.Option(help="What people should read beside the status.")]
CheckId = Annotated[str, typer.Argument(help="The check, such as service:web.")]
Local = Annotated[bool, typer.Option("--local", help="Ask the agent for its own, not the catalog.")]


@services.command("register")
@command
def register(
    call: Call,
    name: Annotated[str, typer.Argument(help="The service's name.")],
    id: Annotated[str, typer.Option(help="Tells instances on one host apart; the name if left out.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens.")] = 0,
    address: Annotated[str, typer.Option(help="If it is not the node's.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    meta: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    http: Annotated[str, typer.Option(metavar="URL", help="Check by HTTP: 2xx passes, 429 warns.")] = "",
    tcp: Annotated[str, typer.Option(metavar="HOST:PORT", help="Check by a TCP connection.")] = "",
    ttl: Annotated[
        int,
        typer.Option(
            parser=milliseconds,
            metavar="DURATION",
            show_default=False,
            help="Check that the service reports this often, by `coordctl checks pass`.",
        ),
    ] = 0,
    interval: Annotated[
        int, typer.Option(parser=milliseconds, metavar="DURATION", show_default="10s", help="Between checks.")
    ] = 10_000,
    check_timeout: Annotated[
        int, typer.Option(parser=milliseconds, metavar="DURATION", show_default="10s", help="Of one check.")
    ] = 10_000,
) -> None:
    """Put a service of this host under the agent's care, in place of one with the same id."""
    service = ServiceDefinition(id or name, name, tuple(tag or ()), address, port, pairs(meta or ()))
    kinds = [kind for kind, given in (("http", http), ("tcp", tcp), ("ttl", ttl)) if given]
    if len(kinds) > 1:
        raise UsageError(f"give one of --http, --tcp and --ttl, not {' and '.join(kinds)}")
    spec = CheckSpec(http=http, tcp=tcp, ttl_ms=ttl, interval_ms=interval, timeout_ms=check_timeout)
    reply = call.link.local(RegisterService(service, (spec,) if kinds else ()), Ok)
    _tell(call, f"service {service.id} is registered", service.id, reply)


@services.command("deregister")
@command
def deregister(call: Call, id: Annotated[str, typer.Argument(help="The service's id.")]) -> None:
    """Take a service and its checks out of the agent's care."""
    _tell(call, f"service {id} is deregistered", id, call.link.local(DeregisterService(id), Ok))


@services.command("list")
@command
def list_services(
    call: Call,
    name: Annotated[str, typer.Argument(help="Show the instances of this service.")] = "",
    local: Local = False,
) -> None:
    """List the catalog's services, the instances of one, or the agent's own."""
    if local:
        entries = call.link.local_read(ListLocalServices(), Catalog).entries
        instances = [one.service for entry in entries for one in entry.services]
        rows = [
            {"service": s.name, "id": s.id, "port": s.port, "address": s.address, "tags": s.tags} for s in instances
        ]
        call.render.rows(rows, ["service", "id", "port", "tags"])
    elif name:
        health = call.link.read(ServiceHealth(name), Health).entries
        call.render.rows(map(_instance, health), ["service", "id", "node", "address", "port", "status", "tags"])
    else:
        names = call.link.read(ListServices(), ServiceNames).services
        call.render.rows([{"service": service, "tags": tags} for service, tags in names], ["service", "tags"])


@checks.command("list")
@command
def list_checks(
    call: Call,
    node: Annotated[str, typer.Option(help="Only of this node.")] = "",
    service: Annotated[str, typer.Option(help="Only of this service.")] = "",
    status: Annotated[str, typer.Option(help="Only passing, warning or critical ones.")] = "",
    local: Local = False,
) -> None:
    """List checks with their newest results; a table shows the beginning of long ones."""
    if local:
        found = call.link.local_read(ListLocalChecks(service), Checks).checks
    else:
        found = call.link.read(ListChecks(node, service, status), Checks).checks
    wanted = [one for one in found if node in ("", one.node) and status in ("", one.check.status)]
    rows = [_check(one) for one in wanted]
    if not call.render.json:
        rows = [row | {"output": shortened(row["output"])} for row in rows]
    call.render.rows(rows, ["node", "check", "service", "status", "output"])


@checks.command("pass")
@command
def pass_(call: Call, check: CheckId, note: Note = "") -> None:
    """Report that a TTL check passes."""
    _report(call, check, "passing", note)


@checks.command("warn")
@command
def warn(call: Call, check: CheckId, note: Note = "") -> None:
    """Report that a TTL check warns."""
    _report(call, check, "warning", note)


@checks.command("fail")
@command
def fail(call: Call, check: CheckId, note: Note = "") -> None:
    """Report that a TTL check is critical."""
    _report(call, check, "critical", note)


def _report(call: Call, check: str, status: CheckStatus, note: str) -> None:
    _tell(call, f"check {check} is {status}", check, call.link.local(UpdateTtlCheck(check, status, note), Ok))


def _tell(call: Call, sentence: str, id_: str, reply: Ok) -> None:
    """The agent has done it; the catalog may hear of it later."""
    call.render.done(sentence, id=id_, index=reply.index, text=reply.text)
    if reply.text:
        call.render.note(f"the catalog does not know yet: {reply.text}")


def _instance(entry: HealthEntry) -> dict[str, object]:
    service = entry.service.service
    statuses = {one.check.status for one in entry.checks}
    return {
        "service": service.name,
        "id": service.id,
        "node": entry.node.node,
        "address": service.address or entry.node.address,
        "port": service.port,
        "status": next((status for status in _WORST if status in statuses), "passing"),
        "tags": service.tags,
        "meta": service.meta,
        "checks": [_check(one) for one in entry.checks],
    }


def _check(info: CheckInfo) -> dict[str, object]:
    check = info.check
    return {
        "node": info.node,
        "check": check.id,
        "name": check.name,
        "service": info.service_name or check.service_id,
        "status": check.status,
        "output": check.output,
        "notes": check.notes,
        "type": check.type,
    }
