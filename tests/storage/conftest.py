"""Whatever log a test leaves open is closed after it, as a process's end would do it: without a last checkpoint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordd.storage.log_store import LogStore


@pytest.fixture(autouse=True)
def _close_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[LogStore] = []
    real = LogStore.open

    def opening(folder: Path, name: str, **options: Any) -> LogStore:
        opened.append(real(folder, name, **options))
        return opened[-1]

    monkeypatch.setattr(LogStore, "open", opening)
    yield
    for store in opened:
        store.abandon()
        store._connection.close()
