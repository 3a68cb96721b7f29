"""`coordctl dev`: a server and an agent to develop against, in one terminal."""

from typing import Annotated

import typer

from coordd_cli.call import Call, command

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    app.command("dev")(dev)


@command
def dev(
    call: Call,
    dns_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where DNS is answered; 8600, or a free port if it is taken.")
    ] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show what the two log.")] = False,
) -> None:
    """Run one server and one agent with throw-away keys and data until Ctrl-C. Everything is allowed."""
    from coordd_cli.dev_cluster import run

    run(call.render, dns_port, verbose)
