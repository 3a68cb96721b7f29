"""`coordctl kv`: keys and values."""

import sys
from typing import Annotated

import typer

from coordd.errors import ConflictError, InvalidError, NotFoundError
from coordd.messages.codec import MAX_VALUE_BYTES
from coordd.messages.command import Done, Fence, KvDelete, KvDeleteTree, KvPut
from coordd.messages.query import Keys, KvGet, KvList, KvPair, KvPairs
from coordd_cli.call import Call, UsageError, command
from coordd_cli.render import shortened
from coordd_cli.words import parse_fence, read_bytes

app = typer.Typer(no_args_is_help=True, help="Read and write keys.")

Key = Annotated[str, typer.Argument(help="The key.")]
Cas = Annotated[
    int | None,
    typer.Option(min=0, help="Only if the key's modify index is this; 0: only if there is no such key."),
]
FenceOption = Annotated[
    Fence | None,
    typer.Option(parser=parse_fence, metavar="NAME:TOKEN", help="Only while this grant of the lock is held."),
]


@app.command("get")
@command
def get(call: Call, key: Key) -> None:
    """Print the value of a key, byte for byte. Exit code 3 if there is none."""
    found = call.link.read(KvGet(key), KvPairs).pairs
    if not found:
        raise NotFoundError(f"there is no key {key!r}")
    if call.render.json:
        call.render.one(_row(found[0]))
    else:
        sys.stdout.buffer.write(found[0].value)
        sys.stdout.buffer.flush()


@app.command("put")
@command
def put(
    call: Call,
    key: Key,
    value: Annotated[str, typer.Argument(help="The value, or - to read it from standard input.")],
    cas: Cas = None,
    fence: FenceOption = None,
    flags: Annotated[int, typer.Option(min=0, help="A number kept beside the value.")] = 0,
) -> None:
    """Set a key."""
    content = read_bytes(value)
    if len(content) > MAX_VALUE_BYTES:
        raise InvalidError(f"a value has at most {MAX_VALUE_BYTES} bytes, not {len(content)}")
    done = call.link.write(KvPut(key, content, flags, cas=cas, fence=fence), Done)
    _demand(done, key, cas)
    call.render.done(
        f"{key}: version {done.version}, index {done.index}", key=key, index=done.index, version=done.version
    )


@app.command("delete")
@command
def delete(
    call: Call,
    key: Key,
    cas: Cas = None,
    fence: FenceOption = None,
    recurse: Annotated[bool, typer.Option("--recurse", help="Delete every key that begins with KEY.")] = False,
) -> None:
    """Delete a key. It is no error if there is none."""
    if recurse and (cas is not None or fence is not None):
        raise UsageError("--recurse goes neither with --cas nor with --fence")
    done = call.link.write(KvDeleteTree(key) if recurse else KvDelete(key, cas, fence), Done)
    _demand(done, key, cas)
    call.render.done(f"{key}: deleted, index {done.index}", key=key, index=done.index)


@app.command("list")
@command
def list_(
    call: Call,
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with this.")] = "",
    keys: Annotated[bool, typer.Option("--keys", help="Leave the values out.")] = False,
    separator: Annotated[str, typer.Option(help="Fold keys that go on behind this into one; keys only.")] = "",
) -> None:
    """List keys with their values; a table shows the beginning of long ones."""
    if keys or separator:
        names = call.link.read(KvList(prefix, keys_only=True, separator=separator), Keys).keys
        call.render.rows([{"key": name} for name in names], ["key"])
    else:
        found = call.link.read(KvList(prefix), KvPairs).pairs
        rows = [_row(one) if call.render.json else _row(one) | {"value": shortened(one.value)} for one in found]
        call.render.rows(rows, ["key", "value", "version", "modify_index"])


def _demand(done: Done, key: str, cas: int | None) -> None:
    if not done.ok:
        reason = f"its modify index is not {cas}" if cas else "it exists"
        raise ConflictError(f"{key} was not changed: {reason}")


def _row(pair: KvPair) -> dict[str, object]:
    try:
        value: str | None = pair.value.decode()
    except UnicodeDecodeError:
        value = None
    row: dict[str, object] = {"key": pair.key, "value": value}
    if value is None:
        # JSON knows only text; base64 is said by the name.
        import base64

        row = {"key": pair.key, "value": None, "value_base64": base64.b64encode(pair.value).decode()}
    names = ("flags", "create_index", "modify_index", "lock_index", "version", "session")
    return row | {name: getattr(pair, name) for name in names}
