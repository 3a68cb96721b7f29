"""How much fits, what is left out, and what EDNS says back."""

import dns.edns
import dns.flags
import dns.rcode
import pytest

from coordd.messages.command import ServiceDefinition
from coordd_agent.settings import DnsSettings
from tests.agent.dns.asking import Asker, texts
from tests.agent.dns.catalog import HandmadeCatalog, node


def large(count: int, prefix: str = "10.0", meta: dict[str, str] | None = None) -> HandmadeCatalog:
    catalog = HandmadeCatalog()
    for number in range(count):
        address = f"{prefix}.{number // 250}.{number % 250 + 1}" if "." in prefix else f"{prefix}::{number + 1:x}"
        info = node(f"h{number}", address, meta)
        catalog.add(info, ServiceDefinition(f"big{number}", "big", port=80, address=address), "passing")
    return catalog


def count(asker: Asker, qtype: str = "A", **how: object) -> int:
    answer = asker.ask("big.service.consul", qtype, **how).answer  # type: ignore[arg-type]
    return sum(len(rrset) for rrset in answer)


@pytest.mark.parametrize(("size", "records"), [(0, 3), (1, 3), (512, 3), (513, 29), (4096, 30)])
def test_udp_size(size: int, records: int) -> None:
    assert count(Asker(large(30)), size=size) == records


def test_udp_answer_limit_is_a_setting() -> None:
    assert count(Asker(large(30), DnsSettings(udp_answer_limit=8))) == 8


def test_a_record_limit_holds_everywhere_but_for_srv() -> None:
    asker = Asker(large(30), DnsSettings(a_record_limit=5))
    assert [count(asker, tcp=True), count(asker, size=4096), count(asker, "SRV", tcp=True)] == [5, 5, 30]


def test_large_targets_lose_answers_at_512_bytes() -> None:
    # Measured without compression, so that it fits also when somebody sends it on uncompressed.
    asker = Asker(large(30, "fd00", {"some": "metadata"}))
    reply = asker.ask("big.service.coord", "SRV")
    assert len(reply.answer[0]) == 2
    targets = {record.target for record in reply.answer[0]}
    assert {rrset.name for rrset in reply.additional if rrset.rdtype == 28} == targets


@pytest.mark.parametrize("size", range(512, 3000, 37))
@pytest.mark.parametrize("qtype", ["A", "SRV", "ANY"])
def test_no_message_is_larger_than_was_asked(size: int, qtype: str) -> None:
    asker = Asker(large(100, meta={"key": "v" * 60}))
    reply = asker.ask("big.service.coord", qtype, size=size)
    assert len(reply.to_wire(max_size=65535)) <= size + 200  # dnspython compresses otherwise; the real size is below
    query = dns.message.make_query("big.service.coord", qtype, use_edns=0, payload=size)
    wire = asker.wire(query.to_wire())
    assert wire is not None
    assert len(wire) <= size


def test_one_answer_always_stays_and_its_additional_records_give_way() -> None:
    asker = Asker(large(1, meta={f"k{number}": "v" * 200 for number in range(5)}))
    reply = asker.ask("big.service.coord", "SRV")
    assert len(reply.answer[0]) == 1
    assert not reply.additional


def test_tcp_takes_thousands() -> None:
    asker = Asker(large(5000))
    reply = asker.ask("big.service.coord", tcp=True)
    assert 4_000 <= len(reply.answer[0]) <= 4096
    assert len(asker.ask("big.service.coord", "SRV", tcp=True).answer[0]) > 500


def test_tc_only_if_wanted() -> None:
    assert not Asker(large(30)).ask("big.service.coord").flags & dns.flags.TC
    asker = Asker(large(30), DnsSettings(enable_truncate=True))
    assert asker.ask("big.service.coord").flags & dns.flags.TC
    assert not asker.ask("big.service.coord", size=4096).flags & dns.flags.TC
    assert not asker.ask("big.service.coord", tcp=True).flags & dns.flags.TC


def test_edns_is_echoed_if_asked_for() -> None:
    asker = Asker(large(1))
    assert asker.ask("big.service.coord").edns == -1
    for size in (100, 1232):
        reply = asker.ask("big.service.coord", size=size)
        assert (reply.edns, reply.payload, list(reply.options)) == (0, size, [])


def test_client_subnet_is_echoed_with_scope_0_and_for_errors_with_its_own() -> None:
    asker = Asker(large(1))
    subnet = dns.edns.ECSOption("10.1.2.0", 24)
    good = asker.ask("big.service.coord", size=1232, options=(subnet,)).options[0]
    assert isinstance(good, dns.edns.ECSOption)
    assert (good.address, good.srclen, good.scopelen) == ("10.1.2.0", 24, 0)
    bad = asker.ask("none.service.coord", size=1232, options=(subnet,)).options[0]
    assert isinstance(bad, dns.edns.ECSOption)
    assert bad.scopelen == 24


def test_metadata_as_text() -> None:
    catalog = HandmadeCatalog()
    meta = {"rfc1035-00": "v=spf1 -all", "a=b`c": "x`y=z", " k ": "1", "long": "w" * 600}
    catalog.add_node(node("h1", "10.0.0.1", meta))
    lines = [line.partition(" TXT ")[2] for line in texts(Asker(catalog).ask("h1.node.coord", "TXT", tcp=True).answer)]
    assert '"v=spf1 -all"' in lines
    assert '"a`=b``c=x``y=z"' in lines
    assert '"` k` =1"' in lines
    assert sorted(map(len, max(lines, key=len).split()))[-1] == 257
