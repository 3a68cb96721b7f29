"""`coordd --config FILE`: one server. With `--refill` it only prepares a server with a damaged log for being refilled.

Exit codes: 0 clean, 2 configuration, 3 storage damaged or failed, 4 address or data folder in use, 5 the data need a newer
version. SIGTERM and SIGINT hand
leadership over and end within three seconds; a second one ends at once.
"""

import argparse
import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from coordd.config import load
from coordd.errors import ConfigError, CoorddError, InUseError, StorageError, UnsupportedError
from coordd.log_output import open_log
from coordd.server.daemon import Daemon
from coordd.server.settings import ServerSettings
from coordd.storage.refill import KEPT, forget_log
from coordd.version import ShowVersion

__all__ = ["main"]

_SWITCH_SECONDS = 0.0005
"""How long a helper thread may hold the interpreter while the loop wants it."""
_GC_THRESHOLDS = (50_000, 20, 100)


def main() -> None:
    """Entry point of the `coordd` script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The process's exit code."""
    options = _parse(arguments)
    os.umask(0o077)  # what SQLite creates beside its files is nobody else's business either
    try:
        settings = load(ServerSettings, options.config)
    except ConfigError as error:
        return _refuse(error)
    if options.refill:
        return _prepare_refill(settings)
    log = open_log(options.log_format or settings.log_format, settings.log_level, name=settings.name)
    try:
        daemon = Daemon(settings, log)
    except CoorddError as error:
        return _refuse(error)
    _obey_signals(daemon)
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        daemon.run()
        daemon.close()
    except CoorddError as error:
        log.error(
            "stopped", reason=str(error), exc_info=not isinstance(error, StorageError | ConfigError | UnsupportedError)
        )
        return _exit_code(error)
    log.info("stopped")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="coordd", description="One server of a coordd cluster.")
    parser.add_argument("--version", action=ShowVersion)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="settings, see configs/server.toml")
    parser.add_argument(
        "--refill",
        action="store_true",
        help="forget a damaged log, keeping what makes that safe, and end: at its next start the other servers refill it",
    )
    parser.add_argument("--log-format", choices=("text", "json"), help="overrides log_format of the file")
    return parser.parse_args(arguments)


def _prepare_refill(settings: ServerSettings) -> int:
    """`--refill`: once, on the order of an operator, and never at a start."""
    if settings.join is None and len(settings.servers) < 2:
        return _refuse(
            ConfigError("nobody could refill this server: [[servers]] lists no other one, and there is no [join]")
        )
    try:
        promised = forget_log(settings.data_dir, settings.name)
    except CoorddError as error:
        return _refuse(error)
    sys.stdout.write(
        f"Log and state are in {settings.data_dir / KEPT}. Start the server as usual: it neither votes nor counts until a"
        f" leader has given it back the {promised} entries that it once acknowledged.\n"
    )
    return 0


def _refuse(error: CoorddError) -> int:
    sys.stderr.write(f"coordd: {error}\n")
    return _exit_code(error)


def _exit_code(error: CoorddError) -> int:
    codes: dict[type[CoorddError], int] = {ConfigError: 2, InUseError: 4, UnsupportedError: 5}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 3)


def _obey_signals(daemon: Daemon) -> None:
    asked = False

    def obey(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(1)
        asked = True
        daemon.stop()

    signal.signal(signal.SIGTERM, obey)
    signal.signal(signal.SIGINT, obey)
