"""Key file, configuration file and data folder of different servers or clusters are told apart at the start."""

from pathlib import Path

import pytest

from coordd.errors import ConfigError
from coordd.server.belonging import require_listed_key, require_membership, was_removed
from coordd.server.main import run
from coordd.server.settings import ServerEntry, ServerSettings
from coordd.transport.security import generate, write_key_file
from coordd.types import Configuration, Member, make_server_id

OURS, OTHERS = generate(), generate()
ME = make_server_id("alpha", "0" * 32)


def settings(folder: Path = Path("/nowhere"), *, listed: str = OURS.public, cluster: str = "prod") -> ServerSettings:
    entry = ServerEntry(name="alpha", raft_address="127.0.0.1:1", client_address="127.0.0.1:2", public_key=listed)
    return ServerSettings(
        name="alpha",
        cluster_name=cluster,
        data_dir=folder / "data",
        key_file=folder / "key",
        raft_address="127.0.0.1:1",
        client_address="127.0.0.1:2",
        servers=(entry,),
    )


def remembered(key: str, cluster: str = "prod") -> Configuration:
    return Configuration("id", cluster, (Member(ME, "127.0.0.1:1", "127.0.0.1:2", key, True),))


def test_what_belongs_together_starts() -> None:
    require_listed_key(settings(), OURS.public)
    require_membership(settings(), ME, OURS.public, None)
    require_membership(settings(), ME, OURS.public, remembered(OURS.public))


def test_the_key_file_of_another_server_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"servers\[0\]\.public_key of alpha is"):
        require_listed_key(settings(listed=OTHERS.public), OURS.public)


def test_a_member_keeps_the_key_by_which_the_cluster_knows_it() -> None:
    with pytest.raises(ConfigError, match="the cluster knows alpha by"):
        require_membership(settings(), ME, OURS.public, remembered(OTHERS.public))


def test_a_server_that_was_removed_has_no_key_to_keep() -> None:
    require_membership(settings(), make_server_id("alpha", "1" * 32), OURS.public, remembered(OTHERS.public))


def test_the_data_folder_of_another_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="belongs to cluster 'prod', but cluster_name is 'test'"):
        require_membership(settings(cluster="test"), ME, OURS.public, remembered(OURS.public))


def test_a_process_under_another_servers_key_ends_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_key_file(tmp_path / "key", OURS)
    (tmp_path / "server.toml").write_text(
        'name = "alpha"\ncluster_name = "prod"\ndata_dir = "data"\nkey_file = "key"\n'
        'raft_address = "127.0.0.1:1"\nclient_address = "127.0.0.1:2"\n'
        '[[servers]]\nname = "alpha"\nraft_address = "127.0.0.1:1"\nclient_address = "127.0.0.1:2"\n'
        f"public_key = '{OTHERS.public}'\n"
    )
    assert run(["--config", str(tmp_path / "server.toml")]) == 2
    assert "one of them is another server's" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_removal_is_seen_also_by_who_hears_of_everything_at_once() -> None:
    """A server that lags gets its first membership and its last in one message."""
    member = Member(ME, "127.0.0.1:1", "127.0.0.1:2", OURS.public, voter=True)
    with_us = Configuration("c", "prod", (member,))
    without = Configuration("c", "prod", ())
    assert was_removed(ME, [with_us, without])
    assert not was_removed(ME, [])
    assert not was_removed(ME, [with_us])
    assert not was_removed(ME, [without]), "not a member yet"
    assert not was_removed(ME, [without, with_us])
    assert not was_removed(ME, [with_us, without, with_us]), "added again"
