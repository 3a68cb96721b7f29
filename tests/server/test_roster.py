"""Who is let in, who is reached, and whose word is believed."""

from coordd.server.roster import Contact, Roster
from coordd.types import Configuration, Member, ServerId
from tests.server.words import key, sid

ONE, TWO, THREE, FOUR = (sid(f"s{n}") for n in range(1, 5))


def contact(name: str) -> Contact:
    return Contact(name, f"{name}:8310", f"{name}:8311", key(name))


def member(server: ServerId) -> Member:
    name = server.partition("#")[0]
    return Member(server, f"{name}:8310", f"{name}:8311", key(name), True)


def configuration(*servers: ServerId) -> Configuration:
    return Configuration("c1", "test", tuple(map(member, servers)))


def unfounded() -> Roster:
    return Roster(key("s1"), [contact("s1"), contact("s2"), contact("s3")])


def founded() -> Roster:
    roster = unfounded()
    roster.follow([configuration(ONE, TWO, THREE)], [])
    return roster


def test_before_there_is_a_cluster_the_list_decides() -> None:
    roster = unfounded()
    assert not roster.configured
    assert roster.contacts() == {key("s2"): "s2:8310", key("s3"): "s3:8310"}
    assert roster.believes(TWO, key("s2"))
    assert not roster.believes(TWO, key("s3"))
    assert not roster.believes(sid("s9"), key("s2"))
    assert not roster.believes(sid("s9"), key("s9"))


def test_a_hello_is_believed_under_the_name_that_belongs_to_the_key() -> None:
    for roster in (unfounded(), founded()):
        assert roster.believes_hello(TWO, key("s2"))
        assert roster.believes_hello(sid("s2", 99), key("s2"))
        assert not roster.believes_hello(TWO, key("s3"))
        assert not roster.believes_hello(sid("s9"), key("s9"))


def test_with_a_configuration_only_its_members_speak_each_under_its_own_key() -> None:
    roster = founded()
    assert roster.believes(TWO, key("s2"))
    assert not roster.believes(TWO, key("s3"))
    assert not roster.believes(sid("s2", 2), key("s2"))  # a wiped server is not the old one
    roster.greeted(sid("s2", 2), key("s2"))
    assert not roster.believes(sid("s2", 2), key("s2"))


def test_the_list_has_no_weight_once_there_is_a_configuration() -> None:
    roster = Roster(key("s1"), [contact("s1"), contact("s2"), contact("s4")])
    roster.follow([configuration(ONE, TWO)], [])
    assert set(roster.contacts()) == {key("s2")}
    assert not roster.believes(FOUR, key("s4"))
    assert roster.key_of(FOUR) is None


def test_members_of_every_configuration_in_force_are_reached() -> None:
    roster = unfounded()
    roster.follow([configuration(ONE, TWO), configuration(ONE, THREE)], [])
    assert set(roster.contacts()) == {key("s2"), key("s3")}


def test_who_left_before_this_server_led_is_found_in_earlier_configurations() -> None:
    roster = Roster(key("s1"), [])
    roster.follow([configuration(ONE, TWO)], [TWO, THREE], [configuration(ONE, TWO, THREE)])
    assert roster.key_of(THREE) == key("s3")
    roster.follow([configuration(ONE, TWO)], [TWO], [configuration(ONE, TWO, THREE)])
    assert roster.key_of(THREE) is None


def test_who_is_departing_is_told_so_and_then_no_more() -> None:
    roster = founded()
    roster.follow([configuration(ONE, TWO)], [TWO, THREE])
    assert roster.key_of(THREE) == key("s3")
    assert key("s3") in roster.contacts()
    assert roster.believes(THREE, key("s3"))
    roster.follow([configuration(ONE, TWO)], [TWO])
    assert roster.key_of(THREE) is None
    assert key("s3") not in roster.contacts()
    assert not roster.believes(THREE, key("s3"))


def test_a_server_about_to_be_added_may_say_hello_and_nothing_else() -> None:
    roster = founded()
    roster.expect(contact("s4"))
    assert roster.contacts()[key("s4")] == "s4:8310"
    assert roster.is_expected(key("s4"))
    assert not roster.is_expected(key("s2"))
    assert roster.believes_hello(FOUR, key("s4"))
    roster.greeted(FOUR, key("s4"))
    assert roster.identity_under(key("s4")) == FOUR
    assert roster.key_of(FOUR) == key("s4")
    assert not roster.believes(FOUR, key("s4"))
    roster.expect_no_more("s4")
    assert key("s4") not in roster.contacts()
    assert not roster.believes_hello(FOUR, key("s4"))


def test_the_hello_of_an_earlier_life_does_not_add_a_server() -> None:
    roster = founded()
    roster.greeted(THREE, key("s3"))
    roster.follow([configuration(ONE, TWO)], [])
    roster.expect(contact("s3"))
    assert roster.identity_under(key("s3")) is None
    roster.greeted(sid("s3", 2), key("s3"))
    assert roster.identity_under(key("s3")) == sid("s3", 2)


def test_however_many_lives_are_claimed_one_is_remembered_for_each_key() -> None:
    roster = unfounded()
    for life in range(1, 1000):
        roster.greeted(sid("s2", life), key("s2"))
    assert roster.identity_under(key("s2")) == sid("s2", 999)
    assert len(roster._learned) == 1


def test_a_joining_server_believes_those_it_was_told_of() -> None:
    roster = Roster(key("s4"), [])
    assert roster.contacts() == {}
    roster.take_list([contact("s1"), contact("s2")])
    assert set(roster.contacts()) == {key("s1"), key("s2")}
    assert roster.believes(ONE, key("s1"))


def test_names_for_the_log() -> None:
    roster = founded()
    roster.take_list([])
    assert [roster.name_of(key("s2")), roster.name_of(key("s9"))] == ["s2", key("s9")]


def test_rule_78_the_local_file_says_where_members_are_reached() -> None:
    roster = Roster(key("s1"), [], {"s2": ("10.9.9.2:1", "10.9.9.2:2"), "s9": ("10.9.9.9:1", "10.9.9.9:2")})
    roster.follow([configuration(ONE, TWO, THREE)], [])
    assert roster.contacts() == {key("s2"): "10.9.9.2:1", key("s3"): "s3:8310"}
    assert roster.addresses(member(TWO)) == ("10.9.9.2:1", "10.9.9.2:2")
    assert roster.addresses(member(THREE)) == ("s3:8310", "s3:8311")
    assert roster.believes(TWO, key("s2"))
