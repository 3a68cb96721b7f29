"""Log lines on standard error, one for each event: `TIME LEVEL EVENT key=value …` or one JSON object; never a secret.

Facts are given as `log.info("ready", extra={"facts": {"node": "h1"}})`.
"""

import json
import logging
import sys
import time

__all__ = ["open_log"]


class _Formatter(logging.Formatter):
    def facts(self, record: logging.LogRecord) -> dict[str, object]:
        facts: dict[str, object] = dict(getattr(record, "facts", {}))
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return facts

    def stamp(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"


class _Text(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {key}={_quoted(str(value))}" for key, value in self.facts(record).items())
        return f"{self.stamp(record)} {record.levelname.lower()} {_one_line(record.getMessage())}{facts}"


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = {"timestamp": self.stamp(record), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(head | self.facts(record), default=str)


def open_log(form: str) -> None:
    """`form`: text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _one_line(text: str) -> str:
    # What others chose (names, outputs) must not look like a line of its own.
    return text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text


def _quoted(text: str) -> str:
    return text if text.isprintable() and text and not set(' "=') & set(text) else json.dumps(text, ensure_ascii=False)
