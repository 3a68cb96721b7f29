"""Run one seed and say what came of it."""

import contextlib
import gc
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from coordd.errors import CoorddError
from tests.sim.summary import Summary
from tests.sim.surroundings import Options
from tests.sim.violation import Violation
from tests.sim.world import World, memory_folder

__all__ = ["Outcome", "replay_line", "run"]

SHOWN = 60
"""Lines of the trace in a failure's report."""


@dataclass
class Outcome:
    options: Options
    summary: Summary
    failure: str = ""
    """"" if every invariant held; else what did not, in one line."""
    report: str = ""
    """The end of the trace."""

    @property
    def invariant(self) -> int:
        """Number of the broken invariant; 0: none, or the servers noticed by themselves."""
        words = self.failure.split()
        return int(words[1].rstrip(":")) if words[:1] == ["invariant"] else 0


def run(options: Options, trace_file: TextIO | None = None) -> Outcome:
    """Never raises for what the simulated servers do: any exception of theirs is a finding."""
    started = time.process_time()
    failure = report = ""
    with memory_folder() as folder, _uncollected():
        world = World(options, folder, trace_file)
        try:
            world.run()
        except Violation as violation:
            failure = str(violation)
        except CoorddError as error:
            failure = f"{type(error).__name__}: {error}"
            report = _where(error)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            report = _where(error)
        finally:
            world.close()
        if failure:
            report += "\n".join(world.around.trace.newest(SHOWN))
    summary = Summary(world.around.counts, 1, world.around.schedule.now, time.process_time() - started)
    return Outcome(options, summary, failure, report)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """A run makes little garbage that counting references does not free: collecting it while it goes on takes time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _where(error: Exception) -> str:
    return "".join(traceback.format_exception(error)) + "\n"


def replay_line(options: Options) -> str:
    """The command that shows this failure again."""
    paranoid = " --paranoid" if options.paranoid else ""
    return (
        f"python -m tests.sim --seeds {options.seed}..{options.seed} --seconds {options.seconds:g}"
        f" --servers {options.servers}{paranoid} --trace trace.txt"
    )
