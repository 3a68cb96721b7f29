"""`coordctl resolve`: what the agent's DNS says, asked by a real DNS packet."""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from coordd.config import split_address
from coordd.errors import CoorddError, InvalidError, NotFoundError
from coordd.messages.client import Info, InfoRequest
from coordd_cli.call import Call, UsageError, command

__all__ = ["add_to"]

DEFAULT_ADDRESS = "127.0.0.1:8600"
DEFAULT_DOMAIN = "coord"
INFO_SECONDS = 1.0


def add_to(app: typer.Typer) -> None:
    app.command("resolve")(resolve)


@command
def resolve(
    call: Call,
    name: Annotated[str, typer.Argument(help="Such as web.service.coord, or just web for a service.")],
    record_type: Annotated[str, typer.Option("--type", help="A, AAAA, SRV, TXT, ANY, …")] = "A",
    dns_port: Annotated[int, typer.Option(min=0, max=65535, help="The agent's DNS port, if it is not found.")] = 0,
) -> None:
    """Ask the agent's DNS. Exit code 3 if there is no such name or no such record."""
    from coordd_cli import dns_query

    if record_type.upper() not in dns_query.record_types():
        raise UsageError(f"{record_type!r} is no type of DNS record; try A, AAAA, SRV, TXT, PTR or ANY")
    address, domain = _dns_place(call)
    host, port = split_address(address)
    full = name if "." in name else f"{name}.service.{domain}"
    answer = dns_query.ask(host, dns_port or port, full, record_type.upper(), call.settings.timeout_s)
    if answer.status not in ("NOERROR", "NXDOMAIN"):
        raise InvalidError(f"the agent answers {answer.status} to {full} {record_type.upper()}")
    if not answer.answers:
        reason = "no such name" if answer.status == "NXDOMAIN" else f"no {record_type.upper()} record"
        raise NotFoundError(f"{full}: {reason}")
    if call.render.json:
        call.render.one(asdict(answer))
    else:
        rows = [asdict(one) for one in (*answer.answers, *answer.additional)]
        call.render.rows(rows, ["name", "ttl", "type", "data"])


def _dns_place(call: Call) -> tuple[str, str]:
    """(address, domain): as set, else as the agent says, else the usual ones; DNS may answer when its socket does not."""
    figures: Mapping[str, object] = {}
    if not call.resolved.direct:
        with contextlib.suppress(CoorddError):
            figures = call.link.request(InfoRequest(), Info, INFO_SECONDS).figures
    address = call.settings.dns_address or figures.get("dns_address", DEFAULT_ADDRESS)
    return str(address), str(figures.get("dns_domain", DEFAULT_DOMAIN))
