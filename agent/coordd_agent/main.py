"""`coordd-agent --config FILE`: exit code 0 clean, 2 configuration, 3 data folder, 4 address or folder in use, 1 else.

SIGTERM and SIGINT end it, a second one at once; SIGHUP reads the token and the service files again.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from coordd.config import load
from coordd.errors import ConfigError, CoorddError, InUseError, StorageError
from coordd.log_output import open_log
from coordd.version import ShowVersion
from coordd_agent.agent import Agent
from coordd_agent.settings import AgentSettings

__all__ = ["loop_factory", "main"]

log = logging.getLogger(__name__)

EXIT_CODES: tuple[tuple[type[CoorddError], int], ...] = ((ConfigError, 2), (StorageError, 3), (InUseError, 4))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="coordd-agent", description="The agent of one host.")
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="see configs/agent.toml")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how log lines look; text if left out"
    )
    options = parser.parse_args(arguments)
    open_log(options.log_format)
    try:
        settings = load(AgentSettings, options.config)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_run(settings))
    except CoorddError as error:
        return _fail(error)
    except BaseExceptionGroup as group:
        expected, unexpected = group.split(CoorddError)
        if expected is None or unexpected is not None:
            raise
        return _fail(_first(expected))
    return 0


def _fail(error: BaseException) -> int:
    log.error("%s", error)
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


async def _run(settings: AgentSettings) -> None:
    agent = Agent(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if stop.is_set():
            # Whoever asks twice does not want to wait for the disk either.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    # What was loaded until here lives for ever; the collector need not look at it again.
    gc.freeze()
    await agent.run(stop)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, else asyncio's own."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


def _first(group: BaseExceptionGroup[CoorddError]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


if __name__ == "__main__":
    sys.exit(main())
