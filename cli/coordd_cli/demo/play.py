"""Runs the steps in their order and keeps the report. One that can't be done ends the play; one whose expectation fails
does not, since its work is done. What programs do not exist yet, is announced and not played."""

import importlib.util
import time
from collections.abc import Collection, Sequence

from coordd.errors import CoorddError
from coordd_cli.demo.report import Report
from coordd_cli.demo.stage import Stage, UnmetError
from coordd_cli.demo.steps import Step
from coordd_cli.processes import MODULES

__all__ = ["play"]


def play(steps: Sequence[Step], report: Report, *, keep: bool, broken: Collection[str]) -> None:
    """Play all steps; those named in `broken` expect the opposite of what they should."""
    started = time.monotonic()
    stage = Stage(report, keep)
    left = {}
    try:
        able = True
        for step in steps:
            able = _play_one(step, stage, report, step.name in broken) if able else _skip(step, report)
    finally:
        left = stage.close()
        report.finish(time.monotonic() - started, left)


def _play_one(step: Step, stage: Stage, report: Report, broken: bool) -> bool:
    """Whether the play can go on."""
    report.begin(step.name, step.title)
    missing = [name for name in step.needs if importlib.util.find_spec(MODULES[name]) is None]
    if missing:
        report.end("not yet", 0.0, f"there is no {' and no '.join(missing)} yet")
        return True
    stage.broken = broken
    started = time.monotonic()
    try:
        step.play(stage)
    except UnmetError as error:
        report.end("failed", time.monotonic() - started, str(error))
    except (CoorddError, OSError, LookupError, ValueError) as error:
        report.end("failed", time.monotonic() - started, f"{type(error).__name__}: {error}")
        return False
    else:
        report.end("ok", time.monotonic() - started)
    return True


def _skip(step: Step, report: Report) -> bool:
    report.begin(step.name, step.title)
    report.end("skipped", 0.0)
    return False
