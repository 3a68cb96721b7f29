"""A cluster is founded once, by everyone who is listed, each proved by its own key."""

import pytest

from coordd.errors import ConflictError
from coordd.server.founding import Founding
from coordd.server.roster import Contact
from tests.server.words import hello, key, sid

ONE, TWO, THREE = (sid(f"s{n}") for n in range(1, 4))
LISTED = {name: Contact(name, f"{name}:8310", f"{name}:8311", key(name)) for name in ("s1", "s2", "s3")}


def founding() -> Founding:
    return Founding(hello(ONE))


def test_it_waits_for_everybody_else() -> None:
    f = founding()
    assert f.missing(LISTED) == ["s2", "s3"]
    f.heard(hello(THREE), key("s3"))
    assert f.missing(LISTED) == ["s2"]
    f.heard(hello(TWO), key("s2"))
    assert f.missing(LISTED) == []


def test_a_hello_under_another_key_does_not_count() -> None:
    f = founding()
    f.heard(hello(TWO), key("s3"))
    assert "s2" in f.missing(LISTED)


def test_nobody_takes_anothers_place_by_what_he_calls_himself() -> None:
    f = founding()
    f.heard(hello(THREE), key("s3"))
    f.heard(hello(TWO, name="s3"), key("s2"))
    assert f.missing(LISTED) == []


def test_the_configuration_has_everyone_as_a_voter_with_identity_and_key() -> None:
    f = founding()
    f.heard(hello(TWO), key("s2"))
    f.heard(hello(sid("s3", 8)), key("s3"))
    f.heard(hello(sid("s3", 9)), key("s3"))
    configuration = f.configuration(LISTED)
    assert [(m.id, m.public_key, m.voter, m.raft_address) for m in configuration.members] == [
        (ONE, key("s1"), True, "s1:8310"),
        (TWO, key("s2"), True, "s2:8310"),
        (sid("s3", 9), key("s3"), True, "s3:8310"),
    ]
    assert configuration.cluster_name == "test"
    assert len(configuration.cluster_id) == 32
    assert f.configuration(LISTED).cluster_id != configuration.cluster_id


@pytest.mark.parametrize("strange", [{"cluster": "c9"}, {"last": 5}, {"cluster_name": "other"}])
def test_it_is_refused_when_a_listed_server_belongs_elsewhere(strange: dict[str, str]) -> None:
    f = founding()
    f.heard(hello(TWO), key("s2"))
    f.heard(hello(THREE, **strange), key("s3"))  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="s3"):
        f.configuration(LISTED)


def test_it_is_refused_when_this_server_belongs_to_a_cluster() -> None:
    f = Founding(hello(ONE, cluster="c9"))
    f.heard(hello(TWO), key("s2"))
    f.heard(hello(THREE), key("s3"))
    with pytest.raises(ConflictError, match="s1"):
        f.configuration(LISTED)
