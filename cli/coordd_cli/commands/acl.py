"""`coordctl acl`: tokens and policies. A token's secret is drawn here and leaves this process only as its SHA-256."""

import os
from pathlib import Path
from typing import Annotated

import typer

from coordd.errors import ConfigError, NotFoundError
from coordd.messages.command import (
    AclBootstrap,
    AclDeletePolicy,
    AclDeleteToken,
    AclPutPolicy,
    AclPutToken,
    Done,
)
from coordd.messages.query import ListPolicies, ListTokens, Policies, Tokens
from coordd_cli.call import Call, command
from coordd_cli.render import as_object
from coordd_cli.words import read_text

app = typer.Typer(no_args_is_help=True, help="Say who may do what.")
token = typer.Typer(no_args_is_help=True, help="Tokens: who.")
policy = typer.Typer(no_args_is_help=True, help="Policies: what.")
app.add_typer(token, name="token")
app.add_typer(policy, name="policy")

Out = Annotated[
    Path | None,
    typer.Option("--out", help="Write the secret to this new file, mode 0600, instead of showing it."),
]


@app.command("bootstrap")
@command
def bootstrap(call: Call, out: Out = None) -> None:
    """Create the first management token and deny everything that no token allows. Works once."""
    _require_new(out)
    accessor, secret = _draw()
    call.link.write(AclBootstrap(accessor, _hash(secret)), Done)
    _hand_over(call, accessor, secret, out)


@token.command("create")
@command
def create(
    call: Call,
    policy: Annotated[list[str] | None, typer.Option("--policy", help="May be repeated.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    management: Annotated[bool, typer.Option("--management", help="May do everything.")] = False,
    out: Out = None,
) -> None:
    """Create a token."""
    _require_new(out)
    accessor, secret = _draw()
    call.link.write(AclPutToken(accessor, _hash(secret), tuple(policy or ()), description, management), Done)
    _hand_over(call, accessor, secret, out)


@token.command("update")
@command
def update(
    call: Call,
    accessor: Annotated[str, typer.Argument(help="The token; `anonymous` is the one of those who show none.")],
    policy: Annotated[list[str] | None, typer.Option("--policy", help="All that it shall have.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    management: Annotated[bool, typer.Option("--management", help="May do everything.")] = False,
) -> None:
    """Give a token other policies. Its secret stays."""
    done = call.link.write(AclPutToken(accessor, b"", tuple(policy or ()), description, management), Done)
    call.render.done(f"token {accessor} is changed", accessor=accessor, index=done.index)


@token.command("list")
@command
def list_tokens(call: Call) -> None:
    """List tokens, without their secrets, which nobody has."""
    found = call.link.read(ListTokens(), Tokens).tokens
    rows = [as_object(one) for one in found]
    call.render.rows(rows, ["accessor", "description", "policies", "management"])


@token.command("delete")
@command
def delete_token(call: Call, accessor: Annotated[str, typer.Argument(help="Not the secret.")]) -> None:
    """Delete a token. Exit code 3 if there is none: a misspelt one must not pass for one that is deleted."""
    if not any(one.accessor == accessor for one in call.link.read(ListTokens(), Tokens).tokens):
        raise NotFoundError(f"there is no token with the accessor {accessor!r}")
    done = call.link.write(AclDeleteToken(accessor), Done)
    call.render.done(f"token {accessor} is deleted", accessor=accessor, index=done.index)


@policy.command("put")
@command
def put_policy(
    call: Call,
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    rules: Annotated[str, typer.Argument(help="Rules as JSON, @FILE with them, or - for standard input.")],
    description: Annotated[str, typer.Option(help="For people.")] = "",
) -> None:
    """Create or replace a policy, such as '{"key_prefix": {"app/": "write"}, "service": {"web": "read"}}'."""
    from coordd.acl.rules import parse_rules

    text = read_text(rules)
    parse_rules(text)
    done = call.link.write(AclPutPolicy(name, text, description), Done)
    call.render.done(f"policy {name} is set", name=name, index=done.index)


@policy.command("list")
@command
def list_policies(call: Call, name: Annotated[str, typer.Argument(help="Only this one.")] = "") -> None:
    """List policies with their rules."""
    found = call.link.read(ListPolicies(name), Policies).policies
    rows = [as_object(one) for one in found]
    call.render.rows(rows, ["name", "description", "rules"])


@policy.command("delete")
@command
def delete_policy(call: Call, name: Annotated[str, typer.Argument(help="The policy's name.")]) -> None:
    """Delete a policy. Tokens that name it lose what it allowed. Exit code 3 if there is none."""
    if not call.link.read(ListPolicies(name), Policies).policies:
        raise NotFoundError(f"there is no policy {name!r}")
    done = call.link.write(AclDeletePolicy(name), Done)
    call.render.done(f"policy {name} is deleted", name=name, index=done.index)


def _draw() -> tuple[str, str]:
    """A new token's accessor, which may be known, and its secret."""
    import secrets
    import uuid

    return str(uuid.uuid4()), secrets.token_urlsafe(24)


def _hash(secret: str) -> bytes:
    import hashlib

    return hashlib.sha256(secret.encode()).digest()


def _require_new(out: Path | None) -> None:
    """Before the token is made: its secret could not be had again."""
    if out is not None and (out.exists() or not os.access(out.parent, os.W_OK)):
        raise ConfigError(f"{out} exists already, or its folder can't be written")


def _hand_over(call: Call, accessor: str, secret: str, out: Path | None) -> None:
    if out is None:
        call.render.one({"accessor": accessor, "secret": secret})
        return
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
    call.render.one({"accessor": accessor, "file": str(out)})
