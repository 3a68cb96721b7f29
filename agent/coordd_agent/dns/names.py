"""What a name asks for: pure reading of the question's name by Consul's grammar.

`parse(name, qtype, domains, datacenter)` looks for the rightmost of the words `service`, `node`, `addr`, …: what is
left of it names the thing, what is right of it the datacenter. Labels are compared without regard to case. The result
is one of the lookups below; nothing is looked up here.
"""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

__all__ = [
    "AddressLookup",
    "Lookup",
    "NodeLookup",
    "Outside",
    "ReverseLookup",
    "ServiceLookup",
    "Unknown",
    "parse",
    "split_name",
]

SRV = 33

# Consul's kinds that this product does not have stand here too: a node or datacenter of such a name could not be asked
# for there either, and `virtual.node.coord` must not become a service.
_KINDS = frozenset({"service", "connect", "virtual", "ingress", "node", "query", "addr"})


class ServiceLookup(NamedTuple):
    service: str
    tag: str
    """"" : any."""
    domain: str


class NodeLookup(NamedTuple):
    node: str
    domain: str
    local: bool
    """False: of another datacenter, where nothing is known."""


class AddressLookup(NamedTuple):
    address: IPv4Address | IPv6Address | None
    """None: no address has that many digits."""
    domain: str


class ReverseLookup(NamedTuple):
    address: IPv4Address | IPv6Address | None
    """None: the name under `arpa` is malformed."""
    domain: str


class Unknown(NamedTuple):
    """In our domain, but a name that nothing can have."""

    domain: str


class Outside(NamedTuple):
    """In none of our domains."""


Lookup: TypeAlias = ServiceLookup | NodeLookup | AddressLookup | ReverseLookup | Unknown | Outside


def split_name(domain: str) -> tuple[str, ...]:
    """`Service.Example.` to ("service", "example")."""
    return tuple(domain.lower().rstrip(".").split("."))


def parse(name: Sequence[bytes], qtype: int, domains: Sequence[str], datacenter: str) -> Lookup:
    """`domains`: the primary one first, without trailing dot."""
    try:
        labels = tuple(label.decode("ascii").lower() for label in name)
    except UnicodeDecodeError:
        # No name that we could have registered for DNS; where it would have belonged is still to be found out.
        labels = tuple(label.decode("latin-1").lower() for label in name)
    if labels[-1:] == ("arpa",):
        return ReverseLookup(_reverse_address(labels), domains[0])
    # The longer domain first: one may be a suffix of the other.
    for domain in sorted(domains, key=len, reverse=True):
        suffix = split_name(domain)
        if labels[-len(suffix) :] == suffix:
            return _inside(labels[: -len(suffix)], qtype, domain, datacenter)
    return Outside()


def _inside(labels: tuple[str, ...], qtype: int, domain: str, datacenter: str) -> Lookup:
    unknown = Unknown(domain)
    if not all(label.isascii() and label.isprintable() for label in labels):
        return unknown
    for at in range(len(labels) - 1, -1, -1):
        if labels[at] in _KINDS:
            return _of_kind(labels[at], labels[:at], labels[at + 1 :], domain, datacenter)
        if qtype == SRV and labels[at].startswith("_"):
            # The word "service" may be left out of an SRV question.
            return _of_kind("service", labels[: at + 1], labels[at + 1 :], domain, datacenter)
    return unknown


def _of_kind(kind: str, left: tuple[str, ...], right: tuple[str, ...], domain: str, datacenter: str) -> Lookup:
    if not left:
        return Unknown(domain)
    if kind == "addr":
        return _address(left, domain)
    asked_datacenter = _datacenter(right)
    if asked_datacenter is None:
        return Unknown(domain)
    local = asked_datacenter in ("", datacenter.lower())
    if kind == "node":
        return NodeLookup(".".join(left), domain, local)
    if kind == "service" and local:
        return _service(left, domain)
    return Unknown(domain)


def _datacenter(right: tuple[str, ...]) -> str | None:
    """Nothing, `<dc>` or `<dc>.dc`; None for anything else, which is never silently ignored."""
    if len(right) == 2 and right[1] == "dc":
        return right[0]
    if len(right) <= 1:
        return "".join(right)
    return None


def _service(left: tuple[str, ...], domain: str) -> ServiceLookup:
    if len(left) == 2 and left[0].startswith("_") and left[1].startswith("_"):
        tag = left[1][1:]
        return ServiceLookup(left[0][1:], "" if tag == "tcp" else tag, domain)
    # All labels before the service's name are one tag: tags may contain dots, service names can't here.
    return ServiceLookup(left[-1], ".".join(left[:-1]), domain)


def _address(left: tuple[str, ...], domain: str) -> Lookup:
    digits = left[0]
    if len(left) != 1:
        return Unknown(domain)
    if len(digits) not in (8, 32):
        return AddressLookup(None, domain)
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return Unknown(domain)
    if len(packed) * 2 != len(digits):  # fromhex overlooks blanks
        return Unknown(domain)
    return AddressLookup(ipaddress.ip_address(packed), domain)


def _reverse_address(labels: tuple[str, ...]) -> IPv4Address | IPv6Address | None:
    try:
        if labels[-2:-1] == ("in-addr",) and len(labels) == 6:
            return IPv4Address(".".join(reversed(labels[:4])))
        if labels[-2:-1] == ("ip6",) and len(labels) == 34 and all(len(label) == 1 for label in labels[:32]):
            return IPv6Address(bytes.fromhex("".join(reversed(labels[:32]))))
    except ValueError:
        pass
    return None
