"""Clusters that the tests of this folder share in shape, not in life: each test has its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import ServerCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ServerCluster]:
    """Three servers, founded."""
    with ServerCluster(tmp_path / "cluster") as servers:
        servers.bootstrap()
        yield servers
