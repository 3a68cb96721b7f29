"""What the tests of coordctl share: an environment without the user's settings, and small clusters."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.small_cluster import SmallCluster, small_cluster


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COORD_")}
    return {**kept, "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Paths of sockets are limited to 107 bytes; pytest's own folders are long."""
    folder = Path(tempfile.mkdtemp(prefix="coordd-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server() -> Iterator[SmallCluster]:
    with small_cluster() as cluster:
        yield cluster


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[SmallCluster]:
    with small_cluster(tmp_path / "agent.sock") as cluster:
        yield cluster
