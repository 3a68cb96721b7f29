"""`coordctl resolve`: what the agent's DNS says, asked by a real DNS packet."""

from dataclasses import asdict
from typing import Annotated

import typer

from coordd.config import split_address
from coordd.errors import CoorddError, InvalidError, NotFoundError
from coordd.messages.client import Info, InfoRequest
from coordd_cli.call import Call, command

__all__ = ["add_to"]

DEFAULT_DNS = "127.0.0.1:8600"
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

    host, port = split_address(_dns_address(call))
    full = name if "." in name else f"{name}.service.coord"
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


def _dns_address(call: Call) -> str:
    """As it is set; else where the agent says; else the usual place, for DNS may answer when the agent's socket doesn't."""
    if call.settings.dns_address:
        return call.settings.dns_address
    if not call.resolved.direct:
        try:
            figures = call.link.request(InfoRequest(), Info, INFO_SECONDS).figures
            return str(figures.get("dns_address", DEFAULT_DNS))
        except CoorddError:
            pass
    return DEFAULT_DNS
