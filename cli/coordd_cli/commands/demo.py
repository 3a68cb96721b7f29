"""`coordctl demo`: the product in half a minute."""

from typing import Annotated

import typer

from coordd_cli.call import Call, command

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)


@command
def demo(
    call: Call,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running and say where it is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Report as JSON, for machines.")] = False,
    break_: Annotated[list[str] | None, typer.Option("--break", hidden=True, metavar="STEP")] = None,
) -> None:
    """Show a whole cluster on this host: three servers, two agents, what they do, and what they survive."""
    from coordd_cli.demo.play import play
    from coordd_cli.demo.report import Report
    from coordd_cli.demo.steps import STEPS

    names = [step.name for step in STEPS]
    broken = set(names if break_ == ["all"] else break_ or ())
    if unknown := broken - set(names):
        raise typer.BadParameter(f"there is no step {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    report = Report(json or call.render.json)
    play(STEPS, report, keep=keep, broken=broken)
    if report.failed:
        raise typer.Exit(1)
