"""`coordctl session`: what locks and ephemeral keys hang on."""

from typing import Annotated

import typer

from coordd.messages.command import DestroySession, Done
from coordd.messages.query import ListSessions, Sessions
from coordd_cli.call import Call, command
from coordd_cli.render import as_object

app = typer.Typer(no_args_is_help=True, help="List and end sessions.")


@app.command("list")
@command
def list_(call: Call, node: Annotated[str, typer.Option(help="Only of this node.")] = "") -> None:
    """List sessions."""
    found = call.link.read(ListSessions(node=node), Sessions).sessions
    rows = [as_object(one) for one in found]
    call.render.rows(rows, ["id", "name", "node", "ttl_ms", "lock_delay_ms", "behavior"])


@app.command("destroy")
@command
def destroy(call: Call, id: Annotated[str, typer.Argument(help="The session's id.")]) -> None:
    """End a session: its locks are released, or its keys deleted. It is no error if there is none."""
    done = call.link.write(DestroySession(id), Done)
    call.render.done(f"session {id} has ended", id=id, index=done.index)
