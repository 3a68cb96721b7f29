"""coordctl: the tree of commands.

`coordctl --help` loads every module of commands, so they import only what is light at their top: no ZeroMQ, no rich.
"""

from typing import Annotated

import typer

from coordd_cli.call import AGENT, CONSISTENCY, OUTPUT, SERVERS, TIMEOUT, TOKEN_FILE, remember_options
from coordd_cli.commands import acl, cluster, demo, dev, keys, kv, locks, operator, resolve, services, sessions

__all__ = ["app", "main"]

app = typer.Typer(
    name="coordctl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Service discovery, health, keys and locks.

    Every option before the command may also stand behind it, or be given by the environment (COORD_AGENT,
    COORD_SERVERS, COORD_TOKEN, COORD_TOKEN_FILE, COORD_OUTPUT, COORD_TIMEOUT_S, COORD_CONSISTENCY,
    COORD_DNS_ADDRESS), by ~/.config/coordd/coordctl.toml or by /etc/coordd/coordctl.toml; the first place counts.

    Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 denied, 5 no leader, 6 lock lost, 7 outcome unknown, 124 timed
    out.""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"coordctl {importlib.metadata.version('coordd')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    agent: AGENT = None,
    servers: SERVERS = None,
    token_file: TOKEN_FILE = None,
    output: OUTPUT = None,
    timeout_s: TIMEOUT = None,
    consistency: CONSISTENCY = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    given = {
        "agent": agent,
        "servers": servers,
        "token_file": token_file,
        "output": output,
        "timeout_s": timeout_s,
        "consistency": consistency,
    }
    remember_options(context, given)


app.add_typer(kv.app, name="kv")
app.add_typer(services.services, name="services")
app.add_typer(services.checks, name="checks")
locks.add_to(app)
app.add_typer(sessions.app, name="session")
resolve.add_to(app)
cluster.add_to(app)
app.add_typer(operator.app, name="operator")
app.add_typer(acl.app, name="acl")
app.add_typer(keys.app, name="keys")
dev.add_to(app)
demo.add_to(app)


def main() -> None:
    app(prog_name="coordctl")


if __name__ == "__main__":
    main()
