"""Question to answer: a pure function of the question, the views, the settings, the clock's value and a random source.

`answer(question, views, settings, rng, now)` follows Consul, its quirks included. Views that are not there are noted in
`views.missing`; the answer is then SERVFAIL, or lacks what only they could have told. Whoever asks may get the missing
views and ask again.
"""

import random
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from dnslib import RR, DNSLabel

from coordd_agent.dns import records as make
from coordd_agent.dns.names import (
    AddressLookup,
    Lookup,
    NodeLookup,
    Outside,
    ReverseLookup,
    ServiceLookup,
    parse,
)
from coordd_agent.dns.packets import NOTIMP, NXDOMAIN, REFUSED, SERVFAIL, Answer, Record
from coordd_agent.dns.question import Question
from coordd_agent.dns.views import Instance, NodeView, Views
from coordd_agent.settings import DnsSettings

__all__ = ["answer"]

A, NS, SOA, PTR, TXT, AAAA, SRV, AXFR, ANY = 1, 2, 6, 12, 16, 28, 33, 252, 255
MAX_ALIASES = 3
"""How many host names may lead to one another."""
MAX_NAME_SERVERS = 3


def answer(question: Question, views: Views, settings: DnsSettings, rng: random.Random, now: float) -> Answer:
    return _Asked(question, views, settings, rng, int(now)).answer()


class _Asked:
    """One question being answered. `datacenter` and the domain that was used are part of every name in the answer."""

    def __init__(
        self, question: Question, views: Views, settings: DnsSettings, rng: random.Random, serial: int
    ) -> None:
        self.qtype = question.qtype
        self.owner = DNSLabel(question.name)
        self.views = views
        self.settings = settings
        self.rng = rng
        self.serial = serial
        self.lookup = self._parse(question.name, question.qtype)
        self.domain = settings.domains[0] if isinstance(self.lookup, Outside) else self.lookup.domain

    def answer(self) -> Answer:
        lookup = self.lookup
        if isinstance(lookup, Outside):
            return Answer(REFUSED, authoritative=False)
        if isinstance(lookup, ReverseLookup):
            return self._reverse(lookup)
        if self.qtype == AXFR:
            return Answer(NOTIMP)
        if self.qtype == SOA:
            records, glue = self._name_servers()
            return Answer(records=[Record(self._soa())], authority=records, additional=glue)
        if self.qtype == NS:
            records, glue = self._name_servers()
            return Answer(records=[Record(rr) for rr in records], additional=glue, shuffled=True)
        if isinstance(lookup, ServiceLookup):
            return self._service(lookup)
        if isinstance(lookup, NodeLookup):
            return self._node(lookup)
        if isinstance(lookup, AddressLookup):
            return self._address(lookup)
        return self._no_such_name()

    # --- kinds of names -----------------------------------------------------------------------------------------------

    def _service(self, lookup: ServiceLookup) -> Answer:
        instances = self._instances(lookup)
        if instances is None:
            return Answer(SERVFAIL)
        if not instances:
            return self._no_such_name()
        ttl = self.settings.service_ttl_of(lookup.service)
        shuffled = len(instances) > 1
        if self.qtype == SRV:
            return Answer(records=self._srv_records(instances, ttl), shuffled=shuffled)
        records: list[Record] = []
        if self.qtype in (A, AAAA, ANY, TXT):
            records = self._address_records(self.owner, instances, self.qtype, ttl, lookup, depth=0)
            if self.settings.a_record_limit:
                records = records[: self.settings.a_record_limit]
        if not records:
            return Answer(authority=[self._soa()])
        return Answer(records=records, shuffled=shuffled)

    def _node(self, lookup: NodeLookup) -> Answer:
        if self.qtype not in (A, AAAA, ANY, TXT):
            return Answer()
        if not lookup.local:
            return self._no_such_name()
        node = self._find_node(lookup.node)
        if node is None:
            return Answer(SERVFAIL)
        if not node:
            return self._no_such_name()
        ttl = self.settings.node_ttl_s
        text = list(make.txt_records(self.owner, node[0].meta, ttl))
        if self.qtype == TXT:
            return Answer(records=[Record(rr) for rr in text])
        records = self._node_address(self.owner, node[0], self.qtype, ttl, lookup, depth=0)
        if self.qtype == ANY:
            return Answer(records=records + [Record(rr) for rr in text])
        return Answer(records=records, additional=text if self.settings.node_meta_txt else [])

    def _address(self, lookup: AddressLookup) -> Answer:
        if lookup.address is None:
            return Answer()
        record = make.address_record(self.owner, lookup.address, self.settings.node_ttl_s)
        if self.qtype in (ANY, record.rtype):
            return Answer(records=[Record(record)])
        return Answer(additional=[record])

    def _reverse(self, lookup: ReverseLookup) -> Answer:
        if lookup.address is None:
            return self._no_such_name()
        nodes = self.views.nodes()
        if nodes is None:
            return Answer(SERVFAIL)
        target = next((self._node_name(node) for node in nodes if make.ip_of(node.address) == lookup.address), None)
        if target is None:
            found = (one for one in self.views.known_instances() if make.ip_of(one.address) == lookup.address)
            target = next((make.domain_name(f"{one.service}.service.{self._tail()}") for one in found), None)
        if target is None:
            return self._no_such_name()
        if self.qtype not in (PTR, ANY):
            return Answer(authority=[self._soa()])
        return Answer(records=[Record(make.ptr_record(self.owner, target))])

    def _no_such_name(self) -> Answer:
        return Answer(NXDOMAIN, authority=[self._soa()])

    # --- what the views say -------------------------------------------------------------------------------------------

    def _instances(self, lookup: ServiceLookup) -> list[Instance] | None:
        """The instances that may be answered, in random order; None if nothing is known of the service."""
        known = self.views.service(lookup.service)
        if known is None:
            return None
        wanted = ("passing",) if self.settings.only_passing else ("passing", "warning")
        fit = [one for one in known if one.status in wanted and (not lookup.tag or lookup.tag in one.tags)]
        self.rng.shuffle(fit)
        return fit

    def _find_node(self, name: str) -> tuple[NodeView, ...] | None:
        """The node, or a server of that name: NS records point to servers, which need no agent beside them."""
        node = self.views.node(name)
        if not node:
            servers = [one for one in self._server_nodes() if one.name.lower() == name]
            return tuple(servers[:1]) or node
        return node

    def _server_nodes(self) -> Iterable[NodeView]:
        for server in self.views.servers():
            host = server.client_address.rpartition(":")[0].strip("[]")
            yield NodeView(server.id.partition("#")[0], host)

    # --- records ------------------------------------------------------------------------------------------------------

    def _srv_records(self, instances: list[Instance], ttl: int) -> list[Record]:
        records, seen = [], set()
        for one in instances:
            identity = (one.node.name, one.address or one.node.address, one.port)
            target, ip = self._srv_target(one)
            if identity in seen or target is None:
                continue
            seen.add(identity)
            additional = [make.address_record(target, ip, ttl)] if ip is not None else []
            if not one.address and ip is None:
                additional += self._alias(target, one.node.address, ttl, depth=0)
            node_name = self._node_name(one.node)
            if self.settings.node_meta_txt and node_name is not None:
                additional += make.txt_records(node_name, one.node.meta, self.settings.node_ttl_s)
            records.append(Record(make.srv_record(self.owner, one.weight, one.port, target, ttl), tuple(additional)))
        return records

    def _srv_target(self, one: Instance) -> tuple[DNSLabel | None, IPv4Address | IPv6Address | None]:
        """Where an SRV record points, and the address to add; None for a host name, which others resolve."""
        own = _tagged(one, SRV) or one.address
        ip = make.ip_of(own or one.node.address)
        if own and ip is None:
            return make.domain_name(own), None
        target = None if own else self._node_name(one.node)
        if target is None and ip is not None:
            target = make.domain_name(f"{ip.packed.hex()}.addr.{self._tail()}")
        return target, ip

    def _address_records(
        self, owner: DNSLabel, instances: list[Instance], qtype: int, ttl: int, lookup: Lookup, depth: int
    ) -> list[Record]:
        """Each address of the asked family once; if there is none, the first host name."""
        records: dict[object, Record] = {}
        hosts: list[str] = []
        for one in instances:
            address = _tagged(one, qtype) or one.address or _node_tagged(one.node, qtype) or one.node.address
            ip = make.ip_of(address)
            if ip is None and one.address == address and self._parse_text(address) == lookup:
                # A service whose address is its own name would lead to itself.
                ip = make.ip_of(one.node.address)
            if ip is None:
                hosts.append(address)
            elif _fits(ip, qtype) and ip not in records:
                records[ip] = Record(make.address_record(owner, ip, ttl))
        if records or not hosts:
            return list(records.values())
        return [Record(rr) for rr in self._alias(owner, hosts[0], ttl, depth)]

    def _node_address(
        self, owner: DNSLabel, node: NodeView, qtype: int, ttl: int, lookup: Lookup, depth: int
    ) -> list[Record]:
        address = _node_tagged(node, qtype) or node.address
        ip = make.ip_of(address)
        if ip is not None:
            return [Record(make.address_record(owner, ip, ttl))] if _fits(ip, qtype) else []
        return [Record(rr) for rr in self._alias(owner, address, ttl, depth)]

    def _alias(self, owner: DNSLabel, host: str, ttl: int, depth: int) -> list[RR]:
        """CNAME to `host`, and what is known of it if it is one of our own names: always its A records, as Consul."""
        target = make.domain_name(host)
        if target is None or depth >= MAX_ALIASES:
            return []
        chain = [make.cname_record(owner, target, ttl)]
        lookup = self._parse_text(host)
        if isinstance(lookup, ServiceLookup):
            instances = self._instances(lookup) or []
            inner = self._address_records(target, instances, A, ttl, lookup, depth + 1)
            return chain + [record.rr for record in inner]
        if isinstance(lookup, NodeLookup) and lookup.local and (node := self._find_node(lookup.node)):
            inner = self._node_address(target, node[0], A, ttl, lookup, depth + 1)
            text = make.txt_records(target, node[0].meta, ttl) if self.settings.node_meta_txt else ()
            return [*chain, *(record.rr for record in inner), *text]
        return chain

    def _name_servers(self) -> tuple[list[RR], list[RR]]:
        """NS records of up to three servers, and their addresses."""
        servers = list(self._server_nodes())
        self.rng.shuffle(servers)
        owner, ttl = DNSLabel(self.domain.encode()), self.settings.node_ttl_s
        records, glue = [], []
        for server in servers[:MAX_NAME_SERVERS]:
            name, ip = self._node_name(server), make.ip_of(server.address)
            if name is not None and ip is not None:
                records.append(make.ns_record(owner, name, ttl))
                glue.append(make.address_record(name, ip, ttl))
        return records, glue

    def _soa(self) -> RR:
        return make.soa_record(DNSLabel(self.domain.encode()), self.settings.soa, self.serial)

    # --- names --------------------------------------------------------------------------------------------------------

    def _tail(self) -> str:
        return f"{self.settings.datacenter}.{self.domain}"

    def _node_name(self, node: NodeView) -> DNSLabel | None:
        return make.domain_name(f"{node.name}.node.{self._tail()}")

    def _parse(self, name: tuple[bytes, ...], qtype: int) -> Lookup:
        return parse(name, qtype, self.settings.domains, self.settings.datacenter)

    def _parse_text(self, host: str) -> Lookup:
        name = make.domain_name(host)
        return Outside() if name is None else self._parse(name.label, A)


def _fits(ip: IPv4Address | IPv6Address, qtype: int) -> bool:
    # Asked for TXT, a service answers with its addresses: odd, but what Consul does.
    return qtype in (ANY, TXT) or (qtype == A) == (ip.version == 4)


def _tagged(one: Instance, qtype: int) -> str:
    """The instance's tagged address for this question, or ""."""
    return _choose(qtype, lambda tag: one.tagged_addresses.get(tag, ("", 0))[0])


def _node_tagged(node: NodeView, qtype: int) -> str:
    return _choose(qtype, lambda tag: node.tagged_addresses.get(tag, ""))


def _choose(qtype: int, tagged: Callable[[str], str]) -> str:
    if qtype == A:
        return tagged("lan_ipv4")
    return tagged("lan_ipv6")
