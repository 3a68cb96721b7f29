"""`coordctl keys`: the key pairs by which servers know each other."""

from pathlib import Path
from typing import Annotated

import typer

from coordd_cli.call import Call, command

app = typer.Typer(no_args_is_help=True, help="Make key pairs.")


@app.command("generate")
@command
def generate(
    call: Call,
    out: Annotated[Path | None, typer.Option(help="Write the pair to this new file, mode 0600.")] = None,
) -> None:
    """Draw a CURVE key pair and print its public key. Without --out the secret one is printed too."""
    from coordd.transport.security import generate as draw
    from coordd.transport.security import write_key_file

    pair = draw()
    if out is None:
        call.render.one({"public_key": pair.public, "secret_key": pair.secret})
        return
    write_key_file(out, pair)
    call.render.done(pair.public, public_key=pair.public, file=str(out))
