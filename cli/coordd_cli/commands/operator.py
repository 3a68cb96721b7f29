"""`coordctl operator raft`: the servers' own affairs."""

from typing import Annotated

import typer

from coordd.messages.client import (
    AddServerRequest,
    BootstrapRequest,
    LogRequest,
    LogTail,
    MoveServerRequest,
    Ok,
    PeerInfo,
    RemoveServerRequest,
    Servers,
    ServersRequest,
    TransferRequest,
)
from coordd.types import ServerId, server_name
from coordd_cli.call import Call, command
from coordd_cli.render import as_object

app = typer.Typer(no_args_is_help=True, help="Run the cluster.")
raft = typer.Typer(no_args_is_help=True, help="Servers, leadership, log.")
app.add_typer(raft, name="raft")

Name = Annotated[str, typer.Argument(help="The server's name.")]
Force = Annotated[bool, typer.Option("--force", help="Also if the remaining servers could be no majority.")]


@raft.command("bootstrap")
@command
def bootstrap(call: Call) -> None:
    """Found the cluster, once, from the list of servers in the asked server's configuration file."""
    reply = call.link.request(BootstrapRequest(), Ok)
    call.render.done("the cluster is founded", index=reply.index)


@raft.command("list-peers")
@command
def list_peers(call: Call) -> None:
    """List the servers of the cluster as the leader sees them."""
    from coordd_cli.connect import role_of

    servers = call.link.request(ServersRequest(), Servers).servers
    answers = call.link.ask_servers(servers)
    roles = {one.id: role_of(one, answers) for one in servers}
    leader = next((answers.get(one.public_key) for one in servers if roles[one.id] == "leader"), None)
    peers: dict[str, PeerInfo] = {peer.id: peer for peer in leader.peers} if leader else {}
    rows = []
    for one in servers:
        peer = peers.get(one.id)
        rows.append(
            {
                "name": server_name(one.id),
                "raft_address": one.raft_address,
                "client_address": one.client_address,
                "role": roles[one.id],
                "match": peer.match if peer else None,
                "contact_ms": peer.contact_ms if peer else None,
                "level": (peer.level or None) if peer else None,
                "priority": peer.priority if peer else None,
                "id": one.id,
                "public_key": one.public_key,
            }
        )
    columns = ["name", "raft_address", "client_address", "role", "match", "contact_ms", "level", "priority"]
    call.render.rows(rows, columns)


@raft.command("add-peer")
@command
def add_peer(
    call: Call,
    name: Name,
    raft_address: Annotated[str, typer.Option("--raft", metavar="ADDRESS", help="Where other servers reach it.")],
    client_address: Annotated[str, typer.Option("--client", metavar="ADDRESS", help="Where clients reach it.")],
    public_key: Annotated[str, typer.Option("--public-key", metavar="KEY", help="Its public key.")],
    learner: Annotated[bool, typer.Option("--learner", help="Let it never become a voter by itself.")] = False,
    replaces: Annotated[str, typer.Option(metavar="NAME", help="The server that goes when this one votes.")] = "",
    force: Force = False,
) -> None:
    """Add a server that was started with [join]. It becomes a voter when it has caught up."""
    body = AddServerRequest(name, raft_address, client_address, public_key, learner, replaces, force)
    reply = call.link.request(body, Ok)
    call.render.done(f"{name} is a learner of the cluster", name=name, index=reply.index)


@raft.command("remove-peer")
@command
def remove_peer(call: Call, name: Name, force: Force = False) -> None:
    """Remove a server from the cluster."""
    reply = call.link.request(RemoveServerRequest(name, force), Ok)
    call.render.done(f"{name} is no longer of the cluster", name=name, index=reply.index)


@raft.command("move-peer")
@command
def move_peer(
    call: Call,
    name: Name,
    raft_address: Annotated[str, typer.Option("--raft", metavar="ADDRESS", help="Where other servers reach it.")] = "",
    client_address: Annotated[str, typer.Option("--client", metavar="ADDRESS", help="Where clients reach it.")] = "",
    force: Force = False,
) -> None:
    """Tell the cluster that a server has other addresses now. What is left out stays."""
    reply = call.link.request(MoveServerRequest(name, raft_address, client_address, force), Ok)
    call.render.done(f"the cluster knows the addresses of {name}", name=name, index=reply.index)


@raft.command("transfer-leader")
@command
def transfer_leader(
    call: Call, name: Annotated[str, typer.Argument(help="The server that is to lead; the best one if left out.")] = ""
) -> None:
    """Hand leadership over."""
    reply = call.link.request(TransferRequest(name), Ok)
    # The text begins with the new leader's id.
    leader = name or server_name(ServerId(reply.text.partition(" ")[0])) or "another server"
    call.render.done(f"{leader} leads", leader=leader)


@raft.command("log")
@command
def log(
    call: Call,
    first: Annotated[int, typer.Option(min=0, help="Begin with this index; 0: show the newest.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many entries.")] = 20,
) -> None:
    """Show entries of a server's log."""
    records = call.link.request(LogRequest(first, count), LogTail).records
    rows = [as_object(one) for one in records]
    call.render.rows(rows, ["index", "term", "kind", "text"])
