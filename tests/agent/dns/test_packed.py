"""Ready-made answers: found again, varied, dropped with their view, bounded."""

import random
from collections import Counter

import dns.message

from coordd.messages.command import ServiceDefinition
from coordd.messages.query import Query, ServiceHealth
from coordd_agent.dns.packed import USES, VARIANTS, PackedAnswers
from coordd_agent.settings import DnsSettings
from tests.agent.dns.asking import Asker
from tests.agent.dns.catalog import HandmadeCatalog, node
from tests.agent.dns.test_packets import large


def check(packed: PackedAnswers) -> None:
    """The invariant of the class, counted anew."""
    entries = packed._entries
    assert packed.piles.keys() == entries.keys()
    assert packed.bytes == sum(len(key) + sum(map(len, entry.variants)) for key, entry in entries.items())
    named = {(query, key) for query, keys in packed._made_from.items() for key in keys}
    assert named == {(query, key) for key, entry in entries.items() for query in entry.queries}


def test_every_instance_gets_its_turn() -> None:
    asker = Asker(large(30))
    seen: Counter[str] = Counter()
    for _ in range(6_000):
        reply = asker.ask("big.service.coord")
        assert len(reply.answer[0]) == 3
        seen.update(record.address for record in reply.answer[0])
    assert len(seen) == 30
    assert asker.resolver.counters.built < 6_000 / USES + VARIANTS + 2
    # Each is expected 600 times; a variant is used some 64 * 8 times, so the spread is wide, but nobody is left out.
    assert min(seen.values()) > 100


def test_a_changed_view_drops_its_answers_alone() -> None:
    catalog = HandmadeCatalog()
    for name in ("one", "other"):
        catalog.add(node("h1", "10.0.0.1"), ServiceDefinition(name, name), "passing")
    asker = Asker(catalog)
    for name in ("one", "other", "ONE"):
        asker.ask(f"{name}.service.coord")
        asker.ask(f"{name}.service.coord", tcp=True)
    assert (len(asker.resolver.udp), len(asker.resolver.tcp)) == (3, 3)
    catalog.remove("one")
    asker.resolver.view_changed(ServiceHealth("one"))
    assert (len(asker.resolver.udp), len(asker.resolver.tcp)) == (1, 1)
    assert asker.ask("one.service.coord").rcode() == dns.rcode.NXDOMAIN
    check(asker.resolver.udp)


def test_ready_made_answers_count_as_use_of_their_views() -> None:
    catalog = large(30)
    catalog.add(node("h1", "10.0.0.1"), ServiceDefinition("other", "other"), "passing")
    asker = Asker(catalog)
    for _ in range(20):
        asker.ask("big.service.coord")
        asker.ask("other.service.coord")
    assert asker.resolver.used_queries() == {ServiceHealth("big"), ServiceHealth("other")}
    assert asker.resolver.used_queries() == set()
    built = asker.resolver.counters.built
    asker.ask("other.service.coord")
    assert asker.resolver.counters.built == built, "this one came from the pile"
    assert asker.resolver.used_queries() == {ServiceHealth("other")}


def test_options_and_ids_do_not_matter_but_size_and_case_do() -> None:
    asker = Asker(large(1))
    built = asker.resolver.counters
    for cookie in range(20):
        asker.ask(
            "big.service.coord",
            size=1232,
            options=(dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes([cookie] * 8)),),
        )
    assert built.built == 1
    asker.ask("big.service.coord", size=4096)
    asker.ask("Big.service.coord", size=4096)
    assert built.built == 3


def test_entries_and_bytes_are_bounded_under_random_use() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    packed = PackedAnswers(max_entries=20, max_bytes=3_000)
    queries: list[Query] = [ServiceHealth(str(number)) for number in range(10)]
    for _ in range(3_000):
        if rng.random() < 0.1:
            packed.drop(rng.choice(queries))
        else:
            message = bytes(rng.randrange(1, 300))
            used = rng.sample(queries, rng.randrange(3))
            packed.put(b"%d" % rng.randrange(60), message, used, varied=rng.random() < 0.5)
        assert len(packed) <= 20, f"seed {seed}"
        assert packed.bytes <= 3_000, f"seed {seed}"
        check(packed)


def test_what_names_are_asked_for_does_not_grow_without_bound() -> None:
    asker = Asker(HandmadeCatalog(), DnsSettings(packed_entries=100))
    for number in range(1_000):
        asker.ask(f"x{number}.service.coord")
    assert len(asker.resolver.udp) == 100
