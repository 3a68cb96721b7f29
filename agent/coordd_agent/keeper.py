"""What the agent keeps in its data folder: registrations, TTL reports, the node's id, the servers it learned of.

Files are written in a thread, one at a time, newest content last; the loop never waits for the disk.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from coordd.errors import StorageError
from coordd_agent.store import FolderLock, read_small, write_durably

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

REPORTS_PAUSE_S = 1.0
"""TTL reports come often and matter little: they are written together."""


class Keeper:
    """Raises, when made: InUseError, StorageError."""

    def __init__(self, folder: Path) -> None:
        self._lock = FolderLock(folder)
        self._folder = folder
        self._writing = asyncio.Lock()
        self._reports_wanted = asyncio.Event()

    @property
    def registrations(self) -> bytes | None:
        return read_small(self._folder / "services.json")

    @property
    def reports(self) -> bytes | None:
        return read_small(self._folder / "ttl-reports.json")

    def node_id(self) -> str:
        """Of this installation; drawn at the first start."""
        path = self._folder / "node-id"
        known = read_small(path)
        if known is not None and known.strip():
            return known.decode(errors="replace").strip()
        drawn = str(uuid.uuid4())
        write_durably(path, drawn.encode() + b"\n")
        return drawn

    def servers(self) -> list[tuple[str, str]]:
        """(client address, public key) of the servers that were last known."""
        content = read_small(self._folder / "servers.json")
        try:
            return list(msgspec.json.decode(content, type=dict[str, str]).items()) if content else []
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(f"{self._folder / 'servers.json'} can't be read: {error}; remove it") from error

    async def save_servers(self, servers: Mapping[str, str]) -> None:
        await self._save("servers.json", msgspec.json.format(msgspec.json.encode(dict(servers)), indent=1))

    async def save_registrations(self, content: Callable[[], bytes]) -> None:
        """Durable on return. Raises: StorageError, DiskFullError."""
        async with self._writing:
            # Asked for only now: whoever waited for the lock writes what is newest.
            await asyncio.to_thread(write_durably, self._folder / "services.json", content())

    def save_reports_soon(self) -> None:
        self._reports_wanted.set()

    async def run(self, reports: Callable[[], bytes]) -> None:
        """Writes TTL reports as they come, until cancelled; then once more."""
        try:
            while True:
                await self._reports_wanted.wait()
                self._reports_wanted.clear()
                await self._save("ttl-reports.json", reports())
                await asyncio.sleep(REPORTS_PAUSE_S)
        finally:
            if self._reports_wanted.is_set():
                write_durably(self._folder / "ttl-reports.json", reports())

    def close(self) -> None:
        self._lock.close()

    async def _save(self, name: str, content: bytes) -> None:
        """What is nice to have: a failure is told, and the agent goes on."""
        try:
            async with self._writing:
                await asyncio.to_thread(write_durably, self._folder / name, content)
        except StorageError as error:
            log.warning("not saved: %s", error)
