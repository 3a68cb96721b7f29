"""Disks that fail, tear, lie or hang under one real process: `shim.c`, compiled and steered.

    shim = Shim(library, folder / "rule")
    server.environment = shim.environment
    server.start()
    shim.rule("sync", "raft.db-wal", "EIO")

What a rule is, says shim.c. One `Shim` for each process; the rule may change while it runs.
"""

import ctypes.util
import mmap
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["Shim", "build", "missing"]

_SOURCE = Path(__file__).with_name("shim.c")
_BYTES = 4096
_COUNT_AT = 4088


def missing() -> str:
    """Why there can be no shim here; "" if there can."""
    if sys.platform != "linux":
        return "needs Linux"
    return "" if shutil.which("gcc") and ctypes.util.find_library("c") else "needs gcc and the C library's headers"


def build(folder: Path) -> Path:
    """The library, compiled."""
    library = folder / "shim.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", *warnings, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


class Shim:
    """The rule of one process."""

    def __init__(self, library: Path, path: Path) -> None:
        path.write_bytes(bytes(_BYTES))
        self.environment = {"LD_PRELOAD": str(library), "COORDD_SHIM": str(path)}
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _BYTES)

    def rule(self, operation: str, pattern: str, action: str, skip: int = 0) -> None:
        self.clear()
        text = f"{operation} {pattern} {action} {skip}\0".encode()
        self._shared[_COUNT_AT:_BYTES] = bytes(_BYTES - _COUNT_AT)
        self._shared[1 : len(text)] = text[1:]
        self._shared[0] = text[0]

    def clear(self) -> None:
        self._shared[0] = 0

    @property
    def hits(self) -> int:
        """Calls that matched the rule, those that it let pass included."""
        return int.from_bytes(self._shared[_COUNT_AT:_BYTES], sys.byteorder)
