"""Records, one by one: the few shapes that answers are put together from.

Names are tuples of labels here. What can't stand in DNS (a node called `a..b`, a label of 64 characters) has no name:
`encodable` tells, and then nothing is said about it.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from dnslib import AAAA, CNAME, NS, PTR, RR, SOA, SRV, TXT, A, DNSLabel

from coordd_agent.settings import SoaSettings

__all__ = [
    "address_record",
    "cname_record",
    "domain_name",
    "ip_of",
    "ns_record",
    "ptr_record",
    "soa_record",
    "srv_record",
    "txt_records",
]

TYPE_A, TYPE_NS, TYPE_CNAME, TYPE_SOA, TYPE_PTR, TYPE_TXT, TYPE_AAAA, TYPE_SRV = 1, 2, 5, 6, 12, 16, 28, 33


@lru_cache(maxsize=8192)
def ip_of(address: str) -> IPv4Address | IPv6Address | None:
    """The address, or None for a host's name."""
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


@lru_cache(maxsize=8192)
def domain_name(text: str) -> DNSLabel | None:
    """`web.service.coord` as a name, or None if it can't stand in DNS."""
    bare = text.rstrip(".")
    if not bare.isascii():
        return None
    labels = tuple(bare.encode().split(b"."))
    if any(not 1 <= len(label) <= 63 for label in labels) or len(bare) > 253:
        return None
    return DNSLabel(labels)


def address_record(owner: DNSLabel, ip: IPv4Address | IPv6Address, ttl: int) -> RR:
    if ip.version == 4:
        return RR(owner, TYPE_A, ttl=ttl, rdata=A(tuple(ip.packed)))
    return RR(owner, TYPE_AAAA, ttl=ttl, rdata=AAAA(tuple(ip.packed)))


def cname_record(owner: DNSLabel, target: DNSLabel, ttl: int) -> RR:
    return RR(owner, TYPE_CNAME, ttl=ttl, rdata=CNAME(target))


def srv_record(owner: DNSLabel, weight: int, port: int, target: DNSLabel, ttl: int) -> RR:
    return RR(owner, TYPE_SRV, ttl=ttl, rdata=SRV(1, weight, port, target))


def ns_record(owner: DNSLabel, target: DNSLabel, ttl: int) -> RR:
    return RR(owner, TYPE_NS, ttl=ttl, rdata=NS(target))


def ptr_record(owner: DNSLabel, target: DNSLabel) -> RR:
    return RR(owner, TYPE_PTR, ttl=0, rdata=PTR(target))


def soa_record(owner: DNSLabel, soa: SoaSettings, serial: int) -> RR:
    times = (serial & 0xFFFFFFFF, soa.refresh_s, soa.retry_s, soa.expire_s, soa.minimum_ttl_s)
    rdata = SOA(owner.add("ns"), owner.add("hostmaster"), times)
    return RR(owner, TYPE_SOA, ttl=soa.minimum_ttl_s, rdata=rdata)


def txt_records(owner: DNSLabel, meta: Mapping[str, str], ttl: int) -> Iterator[RR]:
    """A node's metadata, `key=value` as RFC 1464 writes it; the value alone under a key that begins with `rfc1035-`."""
    for key, value in sorted(meta.items()):
        text = value if key.lower().startswith("rfc1035-") else _rfc1464(key, value)
        data = text.encode()
        parts = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
        yield RR(owner, TYPE_TXT, ttl=ttl, rdata=TXT(parts))


def _rfc1464(key: str, value: str) -> str:
    # Blanks count only at the ends of the key, where a reader would strip them.
    quoted = re.sub(r"[`=]|^[ \t]+|[ \t]+$", lambda found: "".join("`" + char for char in found[0]), key)
    return f"{quoted}={value.replace('`', '``')}"
