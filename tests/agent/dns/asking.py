"""Asks a resolver as dnspython does, without a socket."""

import random

import dns.edns
import dns.message
import dns.rdatatype
import dns.rrset

from coordd_agent.dns.resolver import Resolver, Waiting
from coordd_agent.settings import DnsSettings
from tests.agent.dns.catalog import HandmadeCatalog

__all__ = ["Asker", "texts"]


class Asker:
    def __init__(self, catalog: HandmadeCatalog, settings: DnsSettings | None = None, seed: int = 1) -> None:
        self.resolver = Resolver(catalog, settings or DnsSettings(), random.Random(seed))

    def ask(
        self,
        name: str,
        qtype: str = "A",
        *,
        tcp: bool = False,
        size: int = 0,
        options: tuple[dns.edns.Option, ...] = (),
    ) -> dns.message.Message:
        """`size`: of the UDP payload, with EDNS; 0 without EDNS."""
        query = dns.message.make_query(name, qtype, use_edns=0 if size else -1, payload=size, options=list(options))
        reply = self.resolver.reply(query.to_wire(), over_tcp=tcp)
        assert reply is not None
        assert not isinstance(reply, Waiting), f"no view for {reply.missing}"
        answer = dns.message.from_wire(reply)
        assert answer.id == query.id
        # The question comes back byte for byte, in the case it was asked in.
        assert reply[12 : 12 + len(query.question[0].name.to_wire() or b"")] == query.question[0].name.to_wire()
        return answer

    def wire(self, packet: bytes) -> bytes | None:
        reply = self.resolver.reply(packet, over_tcp=False)
        assert not isinstance(reply, Waiting)
        return reply


def texts(section: list[dns.rrset.RRset]) -> list[str]:
    """Records as text, sorted: `owner ttl class type data`."""
    return sorted(line for rrset in section for line in rrset.to_text().splitlines())
