"""What each kind of name answers, asked with dnspython. The expectations are Consul's behaviour."""

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import pytest

from coordd.messages.command import CheckStatus, ServiceDefinition
from coordd.messages.query import ServiceHealth
from coordd_agent.dns.resolver import Waiting
from coordd_agent.settings import DnsSettings, ServiceTtl
from tests.agent.dns.asking import Asker, texts
from tests.agent.dns.catalog import HandmadeCatalog, node, server

SOA = "coord. 0 IN SOA ns.coord. hostmaster.coord. "


@pytest.fixture
def catalog() -> HandmadeCatalog:
    made = HandmadeCatalog()
    h1 = node("h1", "10.0.0.1", {"rack": "r1"})
    h2 = node("h2", "10.0.0.2")
    h3 = node("h3", "fd00::3")
    made.add(h1, ServiceDefinition("web1", "web", tags=("Blue", "v1.2"), port=80), "passing")
    made.add(h2, ServiceDefinition("web2", "web", port=81, address="10.9.9.9", weight_warning=3), "warning")
    made.add(h2, ServiceDefinition("web3", "web", tags=("blue",), port=82), "passing", "critical")
    made.add(h3, ServiceDefinition("six", "six", port=6), "passing")
    made.add(h1, ServiceDefinition("down", "down", port=1), "critical")
    made.add(h1, ServiceDefinition("outside", "outside", port=5, address="db.example.com"), "passing")
    made.add(h1, ServiceDefinition("inside", "inside", port=5, address="h2.node.coord"), "passing")
    made.add(h1, ServiceDefinition("self", "self", port=5, address="self.service.coord"), "passing")
    made.add(
        h1,
        ServiceDefinition(
            "dual",
            "dual",
            port=9,
            address="10.1.1.1",
            tagged_addresses={"lan_ipv4": ("10.1.1.1", 9), "lan_ipv6": ("fd00::9", 9)},
        ),
        "passing",
    )
    made.add_node(node("rack.h9", "10.0.0.9"))
    made.add_node(node("alias", "h1.node.coord"))
    made.server_list = (
        server("s1", "10.7.0.1"),
        server("s2", "10.7.0.2"),
        server("s3", "10.7.0.3"),
        server("s4", "10.7.0.4"),
    )
    return made


@pytest.fixture
def asker(catalog: HandmadeCatalog) -> Asker:
    return Asker(catalog)


def is_no_such_name(reply: dns.message.Message, domain: str = "coord") -> bool:
    soa = texts(reply.authority)
    return (
        reply.rcode() == dns.rcode.NXDOMAIN
        and not reply.answer
        and len(soa) == 1
        and soa[0].startswith(f"{domain}. 0 IN SOA ns.{domain}. hostmaster.{domain}. ")
        and soa[0].endswith(" 3600 600 86400 0")
    )


# --- services ---------------------------------------------------------------------------------------------------------


def test_addresses_of_a_service_without_critical_instances(asker: Asker) -> None:
    reply = asker.ask("web.service.coord")
    assert texts(reply.answer) == ["web.service.coord. 0 IN A 10.0.0.1", "web.service.coord. 0 IN A 10.9.9.9"]
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RD
    assert not reply.flags & dns.flags.RA
    assert not reply.authority
    assert not reply.additional


@pytest.mark.parametrize("name", ["web.service.consul", "WEB.Service.DC1.Coord", "web.service.dc1.dc.coord"])
def test_domain_datacenter_and_case(asker: Asker, name: str) -> None:
    reply = asker.ask(name)
    assert texts(reply.answer) == [f"{name}. 0 IN A 10.0.0.1", f"{name}. 0 IN A 10.9.9.9"]


@pytest.mark.parametrize("name", ["blue.web.service.coord", "_web._blue.service.coord", "v1.2.web.service.coord"])
def test_a_tag_is_all_labels_before_the_service(asker: Asker, name: str) -> None:
    assert texts(asker.ask(name).answer) == [f"{name}. 0 IN A 10.0.0.1"]


def test_srv_points_to_nodes_or_addresses(asker: Asker) -> None:
    reply = asker.ask("_web._tcp.service.coord", "SRV")
    assert texts(reply.answer) == [
        "_web._tcp.service.coord. 0 IN SRV 1 1 80 h1.node.dc1.coord.",
        "_web._tcp.service.coord. 0 IN SRV 1 3 81 0a090909.addr.dc1.coord.",
    ]
    assert texts(reply.additional) == [
        "0a090909.addr.dc1.coord. 0 IN A 10.9.9.9",
        "h1.node.dc1.coord. 0 IN A 10.0.0.1",
        'h1.node.dc1.coord. 0 IN TXT "rack=r1"',
    ]


def test_targets_answer_when_asked_on_their_own(asker: Asker) -> None:
    for rrset in asker.ask("web.service.coord", "SRV").answer:
        for record in rrset:
            assert asker.ask(record.target.to_text()).answer


@pytest.mark.parametrize("name", ["_web._tcp.coord", "_web._tcp.dc1.coord", "web.service.coord"])
def test_srv_may_leave_out_the_word_service(asker: Asker, name: str) -> None:
    assert len(asker.ask(name, "SRV").answer[0]) == 2


@pytest.mark.parametrize(
    ("name", "qtype"),
    [
        ("_web._tcp.coord", "A"),
        ("_web._udp.service.coord", "SRV"),
        ("_web._tcp._x.service.coord", "SRV"),
        ("_web._tcp.connect.coord", "SRV"),
        ("green.web.service.coord", "A"),
        ("down.service.coord", "A"),
        ("nothing.service.coord", "A"),
        ("web.service.dc2.coord", "A"),
        ("web.service.dc1.peer.coord", "A"),
        ("web.service.a.b.dc1.coord", "A"),
        ("coord", "A"),
        ("service.coord", "A"),
        ("node.coord", "A"),
        ("web.coord", "A"),
        ("nobody.node.coord", "A"),
        ("h1.node.dc2.coord", "A"),
        ("zzzzzzzz.addr.coord", "A"),
        ("web.virtual.coord", "A"),
        ("x.query.coord", "A"),
    ],
)
def test_names_that_do_not_exist(asker: Asker, name: str, qtype: str) -> None:
    assert is_no_such_name(asker.ask(name, qtype))


def test_soa_is_of_the_domain_that_was_asked(asker: Asker) -> None:
    assert is_no_such_name(asker.ask("nothing.service.consul"), "consul")


@pytest.mark.parametrize("qtype", ["MX", "CNAME", "PTR", "HTTPS"])
def test_types_that_a_service_does_not_have(asker: Asker, qtype: str) -> None:
    reply = asker.ask("web.service.coord", qtype)
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer
    assert texts(reply.authority)[0].startswith(SOA)


def test_a_family_that_a_service_does_not_have(asker: Asker) -> None:
    reply = asker.ask("web.service.coord", "AAAA")
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    assert texts(reply.authority)[0].startswith(SOA)
    assert texts(asker.ask("six.service.coord", "AAAA").answer) == ["six.service.coord. 0 IN AAAA fd00::3"]


@pytest.mark.parametrize("qtype", ["ANY", "TXT"])
def test_any_and_oddly_txt_give_addresses(asker: Asker, qtype: str) -> None:
    assert len(asker.ask("web.service.coord", qtype).answer[0]) == 2


def test_tagged_addresses_choose_the_family(asker: Asker) -> None:
    assert texts(asker.ask("dual.service.coord", "A").answer) == ["dual.service.coord. 0 IN A 10.1.1.1"]
    assert texts(asker.ask("dual.service.coord", "AAAA").answer) == ["dual.service.coord. 0 IN AAAA fd00::9"]
    assert texts(asker.ask("dual.service.coord", "ANY").answer) == ["dual.service.coord. 0 IN AAAA fd00::9"]
    srv = asker.ask("dual.service.coord", "SRV")
    assert texts(srv.answer)[0].endswith(f"SRV 1 1 9 {'fd00' + '0' * 27 + '9'}.addr.dc1.coord.")


def test_host_names_become_aliases(asker: Asker) -> None:
    assert texts(asker.ask("outside.service.coord").answer) == ["outside.service.coord. 0 IN CNAME db.example.com."]
    assert texts(asker.ask("inside.service.coord", "AAAA").answer) == [
        "h2.node.coord. 0 IN A 10.0.0.2",
        "inside.service.coord. 0 IN CNAME h2.node.coord.",
    ]
    assert texts(asker.ask("self.service.coord").answer) == ["self.service.coord. 0 IN A 10.0.0.1"]
    srv = asker.ask("outside.service.coord", "SRV")
    assert texts(srv.answer) == ["outside.service.coord. 0 IN SRV 1 1 5 db.example.com."]
    assert texts(srv.additional) == ['h1.node.dc1.coord. 0 IN TXT "rack=r1"']


def test_aliases_in_a_circle_come_to_an_end(catalog: HandmadeCatalog) -> None:
    for one, other in (("x", "y"), ("y", "x")):
        catalog.add(node("h1", "10.0.0.1"), ServiceDefinition(one, one, address=f"{other}.service.coord"), "passing")
    reply = Asker(catalog).ask("x.service.coord")
    assert 2 <= len(reply.answer) <= 4


def test_only_passing(catalog: HandmadeCatalog) -> None:
    asker = Asker(catalog, DnsSettings(only_passing=True))
    assert texts(asker.ask("web.service.coord").answer) == ["web.service.coord. 0 IN A 10.0.0.1"]


def test_ttl_by_the_longest_name_that_fits(catalog: HandmadeCatalog) -> None:
    names = [("*", 1), ("we*", 2), ("w*", 3), ("web", 4), ("six*", 6)]
    settings = DnsSettings(node_ttl_s=9, service_ttl=tuple(ServiceTtl(name=name, ttl_s=ttl) for name, ttl in names))
    asker = Asker(catalog, settings)
    assert asker.ask("web.service.coord").answer[0].ttl == 4
    assert asker.ask("six.service.coord", "AAAA").answer[0].ttl == 6
    assert asker.ask("dual.service.coord").answer[0].ttl == 1
    assert asker.ask("h1.node.coord").answer[0].ttl == 9
    assert settings.service_ttl_of("wet") == 2


def test_each_address_once_and_each_port_once() -> None:
    catalog = HandmadeCatalog()
    for port in (1, 2, 2):
        catalog.add(node("h1", "10.0.0.1", {"k": "v"}), ServiceDefinition(f"w{port}", "w", port=port), "passing")
    asker = Asker(catalog)
    assert len(asker.ask("w.service.coord").answer[0]) == 1
    reply = asker.ask("w.service.coord", "SRV")
    assert len(reply.answer[0]) == 2
    # The additional section is not deduplicated; dnspython folds equal records, so count them as they are sent.
    query = dns.message.make_query("w.service.coord", "SRV").to_wire()
    wire = asker.wire(query)
    assert wire is not None
    assert int.from_bytes(wire[10:12], "big") == 4


def test_names_that_cannot_stand_in_dns_are_left_out() -> None:
    catalog = HandmadeCatalog()
    catalog.add(node("bad..node", "10.0.0.1"), ServiceDefinition("w", "w", port=1), "passing")
    reply = Asker(catalog).ask("w.service.coord", "SRV")
    assert texts(reply.answer) == ["w.service.coord. 0 IN SRV 1 1 1 0a000001.addr.dc1.coord."]


# --- nodes, addresses, reverse names, the zone ------------------------------------------------------------------------


def test_a_node_with_its_metadata(asker: Asker) -> None:
    reply = asker.ask("H1.node.coord")
    assert texts(reply.answer) == ["H1.node.coord. 0 IN A 10.0.0.1"]
    assert texts(reply.additional) == ['H1.node.coord. 0 IN TXT "rack=r1"']
    assert texts(asker.ask("h1.node.coord", "TXT").answer) == ['h1.node.coord. 0 IN TXT "rack=r1"']
    assert len(asker.ask("h1.node.coord", "ANY").answer) == 2
    assert texts(asker.ask("rack.h9.node.dc1.coord").answer) == ["rack.h9.node.dc1.coord. 0 IN A 10.0.0.9"]


def test_metadata_can_be_left_out(catalog: HandmadeCatalog) -> None:
    asker = Asker(catalog, DnsSettings(node_meta_txt=False))
    assert not asker.ask("h1.node.coord").additional
    assert not [line for line in texts(asker.ask("web.service.coord", "SRV").additional) if " TXT " in line]
    assert len(asker.ask("h1.node.coord", "ANY").answer) == 2


@pytest.mark.parametrize(
    ("name", "qtype"), [("h1.node.coord", "AAAA"), ("nobody.node.coord", "MX"), ("h1.node.coord", "SRV")]
)
def test_nodes_say_nothing_without_soa(asker: Asker, name: str, qtype: str) -> None:
    reply = asker.ask(name, qtype)
    assert (reply.rcode(), reply.answer, reply.authority) == (dns.rcode.NOERROR, [], [])


def test_a_node_with_a_host_name(asker: Asker) -> None:
    assert texts(asker.ask("alias.node.coord").answer) == [
        "alias.node.coord. 0 IN CNAME h1.node.coord.",
        "h1.node.coord. 0 IN A 10.0.0.1",
        'h1.node.coord. 0 IN TXT "rack=r1"',
    ]


def test_addresses_in_names(asker: Asker) -> None:
    assert texts(asker.ask("0A000001.addr.coord").answer) == ["0A000001.addr.coord. 0 IN A 10.0.0.1"]
    wrong = asker.ask("0a000001.addr.anything.coord", "AAAA")
    assert (wrong.answer, wrong.authority) == ([], [])
    assert texts(wrong.additional) == ["0a000001.addr.anything.coord. 0 IN A 10.0.0.1"]
    six = "fd00" + "0" * 27 + "1"
    assert texts(asker.ask(f"{six}.addr.dc1.coord", "AAAA").answer) == [f"{six}.addr.dc1.coord. 0 IN AAAA fd00::1"]
    short = asker.ask("0a00.addr.coord")
    assert (short.rcode(), short.answer, short.authority) == (dns.rcode.NOERROR, [], [])


@pytest.mark.parametrize(
    ("address", "target"),
    [("10.0.0.1", "h1.node.dc1.coord."), ("fd00::3", "h3.node.dc1.coord."), ("10.9.9.9", "web.service.dc1.coord.")],
)
def test_reverse_names(asker: Asker, address: str, target: str) -> None:
    reply = asker.ask(dns.reversename.from_address(address).to_text(), "PTR")
    assert [record.target.to_text() for record in reply.answer[0]] == [target]


@pytest.mark.parametrize(
    "name", ["4.3.2.1.in-addr.arpa", "x.in-addr.arpa", "999.1.1.1.in-addr.arpa", "1.ip6.arpa", "arpa"]
)
def test_reverse_names_of_nobody(asker: Asker, name: str) -> None:
    assert is_no_such_name(asker.ask(name, "PTR"))


def test_the_zone(asker: Asker) -> None:
    soa = asker.ask("whatever.service.coord", "SOA")
    assert texts(soa.answer)[0].startswith(SOA)
    assert len(soa.authority[0]) == 3
    ns = asker.ask("coord", "NS")
    targets = {record.target.to_text() for record in ns.answer[0]}
    assert len(targets) == 3
    assert targets == {rrset.name.to_text() for rrset in ns.additional}
    assert texts(asker.ask("s1.node.dc1.coord").answer) == ["s1.node.dc1.coord. 0 IN A 10.7.0.1"]


def test_other_domains_are_refused(asker: Asker) -> None:
    reply = asker.ask("example.com", size=1232)
    assert (reply.rcode(), reply.flags & dns.flags.AA, reply.edns) == (dns.rcode.REFUSED, 0, -1)
    assert reply.flags & dns.flags.RD


def test_no_transfer(asker: Asker) -> None:
    query = bytearray(dns.message.make_query("coord", "A").to_wire())
    query[-3] = 252
    wire = asker.wire(bytes(query))
    assert wire is not None
    assert wire[3] & 15 == dns.rcode.NOTIMP
    assert wire[2] & 4, "AA"


def test_a_domain_in_another_one(catalog: HandmadeCatalog) -> None:
    asker = Asker(catalog, DnsSettings(domain="consul", alt_domain="test.consul"))
    assert asker.ask("web.service.test.consul").answer
    srv = asker.ask("web.service.test.consul", "SRV")
    assert any(line.endswith("h1.node.dc1.test.consul.") for line in texts(srv.answer))


# --- what is not known ------------------------------------------------------------------------------------------------


def test_a_missing_view_is_named(catalog: HandmadeCatalog) -> None:
    catalog.unknown.add(ServiceHealth("web"))
    packet = dns.message.make_query("WEB.service.coord", "A").to_wire()
    waiting = Asker(catalog).resolver.reply(packet, over_tcp=False)
    assert isinstance(waiting, Waiting)
    assert waiting.missing == {ServiceHealth("web")}


@pytest.mark.parametrize("name", ["coord", "a.b.coord", "x.query.coord", "web.service.elsewhere.coord", "example.com"])
def test_names_that_nothing_can_have_need_no_view(catalog: HandmadeCatalog, name: str) -> None:
    packet = dns.message.make_query(name, "A").to_wire()
    views_used: list[object] = []
    catalog.peek = lambda query: views_used.append(query)  # type: ignore[method-assign]
    assert isinstance(Asker(catalog).resolver.reply(packet, over_tcp=False), bytes)
    assert not views_used


@pytest.mark.parametrize("tcp", [False, True])
def test_an_error_of_ours_is_servfail_and_is_not_kept(
    catalog: HandmadeCatalog, tcp: bool, caplog: pytest.LogCaptureFixture
) -> None:
    asker = Asker(catalog)
    peek = catalog.peek
    catalog.peek = lambda query: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    assert asker.ask("web.service.coord", tcp=tcp).rcode() == dns.rcode.SERVFAIL
    assert asker.resolver.counters.failed == 1
    assert "question not answered" in caplog.text
    catalog.peek = peek  # type: ignore[method-assign]
    assert asker.ask("web.service.coord", tcp=tcp).answer


@pytest.mark.parametrize(("status", "weight"), [("passing", 5), ("warning", 7)])
def test_weight_by_status(status: CheckStatus, weight: int) -> None:
    catalog = HandmadeCatalog()
    service = ServiceDefinition("w", "w", port=1, weight_passing=5, weight_warning=7)
    catalog.add(node("h1", "10.0.0.1"), service, "passing", status)
    assert texts(Asker(catalog).ask("w.service.coord", "SRV").answer)[0].split()[5] == str(weight)
