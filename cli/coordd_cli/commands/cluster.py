"""`coordctl nodes`, `members` and `info`: who belongs to the cluster and how they are."""

from typing import Annotated

import typer

from coordd.errors import RequestError
from coordd.messages.client import Info, InfoRequest, Servers, ServersRequest
from coordd.messages.query import Checks, ListChecks, ListNodes, Nodes
from coordd.types import server_name
from coordd_cli.call import Call, command
from coordd_cli.render import as_object

__all__ = ["add_to"]

NODE_CHECK = "serfHealth"
_STATES = {"passing": "alive", "warning": "leaving", "critical": "failed"}


def add_to(app: typer.Typer) -> None:
    app.command("nodes")(nodes)
    app.command("members")(members)
    app.command("info")(info)


@command
def nodes(call: Call) -> None:
    """List the catalog's nodes."""
    found = call.link.read(ListNodes(), Nodes).nodes
    statuses = _node_statuses(call.link.read(ListChecks(), Checks))
    rows = [{**as_object(one), "status": statuses.get(one.node, "")} for one in found]
    call.render.rows(rows, ["node", "address", "status", "meta"])


@command
def members(call: Call) -> None:
    """List servers and agents with their state. Each server is asked itself whether it is alive."""
    from coordd_cli.connect import role_of

    servers = call.link.request(ServersRequest(), Servers).servers
    answers = call.link.ask_servers(servers)
    rows = [
        {
            "name": server_name(one.id),
            "kind": "server",
            "address": one.client_address,
            "state": "alive" if one.public_key in answers else "unreachable",
            "role": role_of(one, answers),
            "id": one.id,
        }
        for one in servers
    ]
    try:
        rows += _agents(call)
    except RequestError as error:
        # Who is asked for the members may want to know why there is no leader: the servers' part is worth having.
        call.render.note(f"no agents are listed: {error}")
    call.render.rows(rows, ["name", "kind", "address", "state", "role"])


def _agents(call: Call) -> list[dict[str, str]]:
    """As any server knows them: the list must be had without a leader, too."""
    found = call.link.read(ListNodes(), Nodes, "stale").nodes
    statuses = _node_statuses(call.link.read(ListChecks(), Checks, "stale"))
    return [
        {
            "name": one.node,
            "kind": "agent",
            "address": one.address,
            "state": _STATES.get(statuses[one.node], statuses[one.node]),
            "role": "",
            "id": one.node_id,
        }
        for one in found
        if one.node in statuses
    ]


@command
def info(
    call: Call,
    figure: Annotated[str, typer.Argument(help="Print this one alone.")] = "",
) -> None:
    """Show what the agent, or with --server a server, knows of itself."""
    figures = call.link.request(InfoRequest(), Info).figures
    if not figure:
        call.render.one(dict(sorted(figures.items())))
        return
    if figure not in figures:
        raise typer.BadParameter(f"there is no figure {figure!r}; there are {', '.join(sorted(figures))}")
    call.render.done(str(figures[figure]), **{figure: figures[figure]})


def _node_statuses(checks: Checks) -> dict[str, str]:
    """The state of each node that has an agent."""
    return {one.node: one.check.status for one in checks.checks if one.check.id == NODE_CHECK}
