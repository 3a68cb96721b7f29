"""Structured log lines on standard error, one for each event; never a secret."""

import sys

import structlog

__all__ = ["Log", "open_log"]

Log = structlog.typing.FilteringBoundLogger
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def open_log(form: str, level: str, **bound: str) -> Log:
    """`form` is text or json, `level` one of debug, info, warning, error; `bound` stands in every line."""
    render: structlog.typing.Processor
    if form == "json":
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger(**bound)
    return log
