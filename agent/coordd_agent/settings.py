"""Every setting of an agent, as data. `config.load(AgentSettings, path)` reads them; configs/agent.toml shows all.

Files in the folder `services_dir` hold `[[services]]` and `[[checks]]` tables, read by
`config.load(ServicesFile, path)`.
"""

import re

from coordd.config import ADDRESS, FQDN, NAME, PUBLIC_KEY, Form, setting, table

__all__ = ["DnsSettings"]

KIB = 1024
MIB = 1024 * KIB
MAX_TTL_S = 2**31 - 1


def _node_fault(text: str) -> str | None:
    labels = text.split(".")
    fits = all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", label) for label in labels)
    return None if fits and len(text) <= 200 else "has another form"


NODE_NAME = Form("letters, digits and hyphens, also in parts joined by dots, at most 200 characters", _node_fault)
TTL_NAME = Form(
    "a service's name, its beginning with * behind it, or * for all",
    lambda text: None if re.fullmatch(r"[^*\s]+\*?|\*", text) else "has another form",
)


OPTIONAL_FQDN = Form(f"{FQDN.text}, or empty", lambda text: FQDN.find_fault(text) if text else None)


def _host_port_fault(text: str) -> str | None:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        return "has no host, or no port from 1 to 65535"
    return None


HOST_PORT = Form("host:port such as 127.0.0.1:5432", _host_port_fault)
URL = Form(
    "a URL with http:// or https://", lambda text: None if re.match(r"https?://[^/\s]+", text) else "has another form"
)


@table
class ServerEntry:
    """[[servers]]: where to begin. Further servers are learned from the cluster."""

    address: str = setting("the server's client address", form=ADDRESS)
    public_key: str = setting("the server's public key", form=PUBLIC_KEY)


@table
class ServiceTtl:
    """[[dns.service_ttl]]: how long resolvers may keep a service's records; the longest name that fits counts."""

    name: str = setting("the service, its beginning followed by *, or * for all", form=TTL_NAME)
    ttl_s: int = setting("TTL of its records", unit="s", least=0, most=MAX_TTL_S)


@table
class SoaSettings:
    """[dns.soa]: the times in the zone's SOA record."""

    refresh_s: int = setting("refresh", default=3_600, unit="s", least=0, most=MAX_TTL_S)
    retry_s: int = setting("retry", default=600, unit="s", least=0, most=MAX_TTL_S)
    expire_s: int = setting("expire", default=86_400, unit="s", least=0, most=MAX_TTL_S)
    minimum_ttl_s: int = setting("how long a negative answer may be kept", default=0, unit="s", least=0, most=MAX_TTL_S)


@table
class DnsSettings:
    """[dns]: names and how they are answered."""

    address: str = setting("UDP and TCP address of the DNS server", default="127.0.0.1:8600", form=ADDRESS)
    datacenter: str = setting("the label that may follow a kind: web.service.dc1.coord", default="dc1", form=NAME)
    domain: str = setting("names end in this", default="coord", form=FQDN)
    alt_domain: str = setting('names may end in this as well; "" for none', default="consul", form=OPTIONAL_FQDN)
    node_ttl_s: int = setting("TTL of nodes' records", default=0, unit="s", least=0, most=MAX_TTL_S)
    service_ttl: tuple[ServiceTtl, ...] = setting("TTL of services' records; 0 for those not listed", default=())
    only_passing: bool = setting("leave out instances in state warning, too", default=False)
    udp_answer_limit: int = setting(
        "records in a UDP answer to a resolver that takes 512 bytes", default=3, unit="records", least=1, most=8
    )
    a_record_limit: int = setting(
        "A and AAAA records in any answer; 0 for no limit", default=0, unit="records", least=0, most=65_535
    )
    enable_truncate: bool = setting("set the TC bit when records were left out of a UDP answer", default=False)
    node_meta_txt: bool = setting("add a node's metadata as TXT records to its addresses", default=True)
    max_wait_ms: int = setting(
        "how long a query waits for the first view of what it asks for", default=1_000, unit="ms", least=0, most=30_000
    )
    max_waiting: int = setting(
        "queries that wait at once; beyond it they get no answer", default=256, unit="queries", least=1, most=65_536
    )
    packed_entries: int = setting("finished answers kept", default=8_192, unit="entries", least=16, most=1_000_000)
    packed_bytes: int = setting(
        "memory for finished answers", default=8 * MIB, unit="bytes", least=64 * KIB, most=1024 * MIB
    )
    tcp_connections: int = setting("TCP connections at once", default=128, unit="connections", least=1, most=65_536)
    tcp_idle_ms: int = setting(
        "silence after which a TCP connection is closed", default=10_000, unit="ms", least=100, most=600_000
    )
    soa: SoaSettings = setting("times in the SOA record", default=SoaSettings())

    @property
    def domains(self) -> tuple[str, ...]:
        """The primary domain first, in lower case and without trailing dots."""
        return tuple(dict.fromkeys(d.lower().rstrip(".") for d in (self.domain, self.alt_domain) if d))

    def service_ttl_of(self, service: str) -> int:
        """TTL of a service: its own entry, else the longest beginning that fits, else that of *."""
        best, ttl = -1, 0
        for entry in self.service_ttl:
            name = entry.name.lower()
            if name == service:
                return entry.ttl_s
            if name.endswith("*") and service.startswith(name[:-1]) and len(name) > best:
                best, ttl = len(name), entry.ttl_s
        return ttl
