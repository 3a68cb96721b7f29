"""`--version` of the daemons: what is installed, read only when somebody asks."""

import argparse
import sys
from typing import Any

__all__ = ["ShowVersion"]


class ShowVersion(argparse.Action):
    """Prints the program's name and version, and ends it with 0."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        sys.stdout.write(f"{parser.prog} {importlib.metadata.version('coordd')}\n")
        parser.exit()
