"""One disk of three says that it has synced and has not; then the power fails everywhere.

Nothing that was acknowledged is lost, since two honest disks have it; and the liar is noticed by its high-water mark, on which
the lie is not told: it neither votes nor counts until the others have given back what it forgot.
"""

import random
import time
from pathlib import Path

import pytest

from tests.integration import shim
from tests.integration.disk import LoopDisk
from tests.integration.shim import Shim
from tests.integration.test_kills import Storm, read_all
from tests.integration.test_power_cut import cluster_on, cut, forgetful
from tests.integration.test_power_cut import pytestmark as needs_root_and_ext4
from tests.integration.writers import violations

pytestmark = [
    *needs_root_and_ext4,
    pytest.mark.slow,
    pytest.mark.skipif(bool(shim.missing()), reason=shim.missing() or "never"),
]


@pytest.mark.timeout(240)
def test_a_disk_that_lies_loses_nothing_and_is_found_out(tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with LoopDisk(tmp_path) as disk, cluster_on(disk, tmp_path) as cluster:
        liar = cluster.servers[1]
        liar.kill()
        lie = Shim(shim.build(tmp_path), tmp_path / "rule")
        lie.rule("sync", "raft.db*", "lie")
        liar.environment = lie.environment
        liar.start()
        storm = Storm(cluster, chance)
        storm.begin()
        found: list[str] = []
        for _ in range(6):
            time.sleep(chance.uniform(0.2, 1.0))  # the moment is random: nothing is waited for
            cluster.whole()
            cut(disk, cluster)
            found = forgetful(cluster, tmp_path)
            assert all(text.startswith(f"{liar.name} ") for text in found), found
            cluster.start()
            storm.progress()
            if found:
                break
        assert found, "the lie was never told in vain"
        books = storm.end()
        figures = cluster.converged()
        assert not any(each["refilling"] for each in figures)
        assert not violations(books, read_all(cluster))
