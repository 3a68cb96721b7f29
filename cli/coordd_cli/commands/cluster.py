"""`coordctl nodes`, `members` and `info`: who belongs to the cluster and how they are."""

from typing import Annotated

import typer

from coordd.messages.client import (
    Checks,
    Info,
    InfoRequest,
    ListChecks,
    ListNodes,
    Nodes,
    Servers,
    ServersRequest,
)
from coordd.types import server_name
from coordd_cli.call import Call, command

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
    statuses = _node_statuses(call)
    found = call.link.read(ListNodes(), Nodes).nodes
    rows = [
        {
            "node": one.node,
            "address": one.address,
            "status": statuses.get(one.node, ""),
            "meta": one.meta,
            "node_id": one.node_id,
            "tagged_addresses": one.tagged_addresses,
            "create_index": one.create_index,
            "modify_index": one.modify_index,
        }
        for one in found
    ]
    call.render.rows(rows, ["node", "address", "status", "meta"])


@command
def members(call: Call) -> None:
    """List servers and agents with their state. Each server is asked itself whether it is alive."""
    servers = call.link.request(ServersRequest(), Servers).servers
    answers = call.link.ask_servers(servers)
    rows: list[dict[str, object]] = [
        {
            "name": server_name(one.id),
            "kind": "server",
            "address": one.client_address,
            "state": "alive" if one.public_key in answers else "unreachable",
            "role": "leader" if one.leader else "voter" if one.voter else "learner",
            "id": one.id,
        }
        for one in servers
    ]
    statuses = _node_statuses(call)
    rows += [
        {
            "name": one.node,
            "kind": "agent",
            "address": one.address,
            "state": _STATES.get(statuses[one.node], statuses[one.node]),
            "role": "",
            "id": one.node_id,
        }
        for one in call.link.read(ListNodes(), Nodes).nodes
        if one.node in statuses
    ]
    call.render.rows(rows, ["name", "kind", "address", "state", "role"])


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


def _node_statuses(call: Call) -> dict[str, str]:
    """The state of each node that has an agent."""
    checks = call.link.read(ListChecks(), Checks).checks
    return {one.node: one.check.status for one in checks if one.check.id == NODE_CHECK}
