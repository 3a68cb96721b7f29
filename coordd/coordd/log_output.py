"""Log lines of the daemons on standard error: one for each event, logfmt or JSON, never a secret.

Modules of the server log through structlog, those of the agent through the standard library (as its asyncio and aiohttp do);
both come out of one renderer, so that a reader of logs meets one form. Facts beside the event: keywords in the one case,
`extra={"facts": {…}}` in the other.
"""

import logging
import sys

import structlog

__all__ = ["Log", "open_log"]

Log = structlog.typing.FilteringBoundLogger


def open_log(form: str, level: str = "info", **bound: str) -> Log:
    """`form` is text or json, `level` one of debug, info, warning, error; `bound` stands in every line of the logger given back."""
    least = logging.getLevelNamesMapping()[level.upper()]
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = _renderer(form)
    structlog.configure(
        processors=[*common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(["facts"]), _spread_facts, *common],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    log: Log = structlog.get_logger(**bound)
    return log


def _renderer(form: str) -> structlog.typing.Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(default=str)
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)


def _spread_facts(
    logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A record's facts become keys of the line."""
    line.update(line.pop("facts", {}))
    return line
