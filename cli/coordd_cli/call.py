"""What every command is given: its settings, a connection when it asks for one, and a way to print.

`@command` turns `def get(call: Call, key: ...)` into what typer runs: it adds the options that all commands share,
makes the `Call`, and turns errors of coordd into a sentence and an exit code. The shared options are also understood
before the command's name; of two the later one wins.
"""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeAlias

import typer

from coordd.errors import ConfigError, CoorddError, DeniedError, RequestError
from coordd_cli.exits import ExitCode, exit_code
from coordd_cli.render import Renderer
from coordd_cli.settings import Resolved, resolve, system_file, user_file

if TYPE_CHECKING:
    from coordd_cli.connect import Link

__all__ = [
    "AGENT",
    "CONSISTENCY",
    "OUTPUT",
    "SERVERS",
    "TIMEOUT",
    "TOKEN_FILE",
    "Call",
    "UsageError",
    "command",
    "remember_options",
]

P = ParamSpec("P")

AGENT: TypeAlias = Annotated[Path | None, typer.Option("--agent", help="Socket of the local agent.")]
SERVERS: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="ADDRESS@KEY", help="Ask this server, not the agent. May be repeated."),
]
TOKEN_FILE: TypeAlias = Annotated[Path | None, typer.Option("--token-file", help="File with the ACL token's secret.")]
OUTPUT: TypeAlias = Annotated[
    str | None, typer.Option("--output", metavar="table|json", help="How to print results; a table if left out.")
]
TIMEOUT: TypeAlias = Annotated[
    float | None, typer.Option("--timeout", help="Seconds to wait for an answer; 10 if left out.")
]
CONSISTENCY: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--consistency",
        metavar="default|consistent|stale",
        help="Who answers a read: the leader; any server, up to date by a majority; any server as it is.",
    ),
]

_SHARED: dict[str, Any] = {
    "agent": AGENT,
    "servers": SERVERS,
    "token_file": TOKEN_FILE,
    "output": OUTPUT,
    "timeout_s": TIMEOUT,
    "consistency": CONSISTENCY,
}
_CONTEXT = "typer_context"


class UsageError(ConfigError):
    """The command line asks for something that does not go together (exit 2)."""


class Call:
    """One run of a command."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.settings = resolved.settings
        self.render = Renderer(resolved.settings.output)
        self._link: Link | None = None

    @property
    def link(self) -> "Link":
        """The way to the agent or the servers, opened at first use."""
        if self._link is None:
            from coordd_cli.connect import Link

            self._link = Link(self.resolved)
        return self._link

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


def remember_options(context: typer.Context, given: dict[str, Any]) -> None:
    """Keep what stood before the command's name. Inner groups come later and win."""
    context.obj = {**(context.obj or {}), **{key: value for key, value in given.items() if value not in (None, [])}}


def command(function: Callable[Concatenate[Call, P], None]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        context: typer.Context = kwargs.pop(_CONTEXT)
        remember_options(context, {key: kwargs.pop(key) for key in _SHARED})
        render = Renderer(context.obj.get("output", os.environ.get("COORD_OUTPUT", "")))
        call: Call | None = None
        try:
            call = Call(resolve(context.obj, os.environ, user_file(os.environ), system_file()))
            render = call.render
            function(call, *args, **kwargs)
        except CoorddError as error:
            raise typer.Exit(_report(error, render, call)) from error
        except UnicodeEncodeError as error:
            # The shell hands over any bytes; names and keys are text.
            raise typer.Exit(_report(UsageError("an argument is not valid UTF-8"), render, call)) from error
        finally:
            if call is not None:
                call.close()

    _add_parameters(run, function)
    return run


def _add_parameters(run: Callable[..., None], function: Callable[..., None]) -> None:
    """Give `run` the signature that typer reads: the function's own but for `call`, then the shared options."""
    signature = inspect.signature(function)
    own = list(signature.parameters.values())[1:]
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(_CONTEXT, kind, annotation=typer.Context)]
    shared += [inspect.Parameter(key, kind, default=None, annotation=type_) for key, type_ in _SHARED.items()]
    parameters = [*(one.replace(kind=kind) for one in own), *shared]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}


def _report(error: CoorddError, render: Renderer, call: Call | None) -> ExitCode:
    """Print the last word of a failed command."""
    status = exit_code(error)
    code = error.code if isinstance(error, RequestError) else "usage" if isinstance(error, ConfigError) else "error"
    sentence = str(error)
    if isinstance(error, DeniedError) and call is not None:
        sentence += f" (token: {call.resolved.token_source if call.resolved.read_token() else 'none given'})"
    render.error(sentence, code, status)
    return status
