"""Every setting of an agent, as data. `config.load(AgentSettings, path)` reads them; configs/agent.toml shows all.

Files in the folder `services_dir` hold `[[services]]` and `[[checks]]` tables, read by
`config.load(ServicesFile, path)`.
"""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from coordd.config import ADDRESS, FQDN, NAME, PUBLIC_KEY, Form, setting, table

__all__ = [
    "AgentSettings",
    "CacheSettings",
    "CheckSettings",
    "CheckTable",
    "DnsSettings",
    "ServerEntry",
    "ServiceTable",
    "ServicesFile",
    "SoaSettings",
    "SyncSettings",
]

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


HOST = Form(
    "an IP address or a host's name",
    lambda text: None if FQDN.find_fault(text) is None or _is_ip(text) else "has another form",
)
TEXT = Form("a text that is not empty", lambda text: None if text else "is empty")
OPTIONAL_FQDN = Form(f"{FQDN.text}, or empty", lambda text: FQDN.find_fault(text) if text else None)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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


@table
class CacheSettings:
    """[cache]: views of what this host uses."""

    max_entries: int = setting("views kept", default=1_024, unit="entries", least=1, most=4_000)
    max_absent: int = setting("views kept of names that do not exist", default=256, unit="entries", least=1, most=4_000)
    max_bytes: int = setting("memory for views", default=32 * MIB, unit="bytes", least=64 * KIB, most=1024 * MIB)
    idle_s: int = setting("time without use after which a view ends", default=600, unit="s", least=1, most=604_800)
    max_stale_ms: int = setting(
        "age above which a view is no longer answered from; 0 for no limit",
        default=0,
        unit="ms",
        least=0,
        most=7 * 86_400_000,
    )


@table
class CheckSettings:
    """[checks]: what health checks may do."""

    allow_link_local: bool = setting(
        "let HTTP checks ask link-local addresses, where clouds keep secrets", default=False
    )


@table
class SyncSettings:
    """[sync]: how the catalog is kept equal to what is registered here."""

    interval_s: float = setting(
        "how often the catalog is compared, besides at each change", default=60.0, unit="s", least=1, most=3_600
    )
    output_interval_s: float = setting(
        "least time between two writes of a check whose output alone changed",
        default=300.0,
        unit="s",
        least=0,
        most=86_400,
    )


@table
class AgentSettings:
    """The whole file."""

    node: str = setting("name of this host in the catalog; the host's own name if empty", default="", form=NODE_NAME)
    address: str = setting("address under which others reach this host", form=HOST)
    data_dir: Path = setting("folder for registrations and identity", default=Path("/var/lib/coordd-agent"))
    local_socket: Path = setting("socket for programs on this host", default=Path("/run/coordd/agent.sock"))
    services_dir: Path | None = setting("folder of *.toml files with services and checks", default=None)
    token_file: Path | None = setting("file with the secret of the agent's ACL token", default=None)
    servers: tuple[ServerEntry, ...] = setting("servers to begin with; one is enough", form=None)
    meta: dict[str, str] = setting("free metadata of this host", default={})
    tagged_addresses: dict[str, str] = setting("more addresses, such as lan_ipv6", default={})
    dns: DnsSettings = setting("names and how they are answered", default=DnsSettings())
    cache: CacheSettings = setting("views of what this host uses", default=CacheSettings())
    checks: CheckSettings = setting("what health checks may do", default=CheckSettings())
    sync: SyncSettings = setting("how the catalog is kept up to date", default=SyncSettings())

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.servers:
            yield "servers", "is empty: at least one [[servers]] table is needed"


# --- services.d -------------------------------------------------------------------------------------------------------


@table
class CheckTable:
    """[[checks]] or [[services.checks]]: one of http, tcp and ttl_ms is given."""

    id: str = setting("the check's id; service:<id of the service> if empty", default="")
    name: str = setting("what people read", default="")
    http: str = setting("URL to ask: 2xx passes, 429 warns, anything else is critical", default="", form=URL)
    method: str = setting(
        "HTTP method", default="GET", choices=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    )
    headers: dict[str, str] = setting("HTTP headers", default={})
    body: str = setting("HTTP body", default="")
    tls_skip_verify: bool = setting("take any certificate", default=False)
    tcp: str = setting("host:port that must accept a connection", default="", form=HOST_PORT)
    ttl_ms: int = setting(
        "the service reports at least this often; 0 for another kind of check",
        default=0,
        unit="ms",
        least=0,
        most=604_800_000,
    )
    interval_ms: int = setting("between two runs", default=10_000, unit="ms", least=100, most=604_800_000)
    timeout_ms: int = setting("of one run", default=10_000, unit="ms", least=100, most=604_800_000)
    success_before_passing: int = setting(
        "successes in a row before it passes again", default=0, unit="results", least=0, most=1_000
    )
    failures_before_critical: int = setting(
        "failures in a row before it is critical", default=0, unit="results", least=0, most=1_000
    )
    status: str = setting("before the first result", default="critical", choices=("passing", "warning", "critical"))
    notes: str = setting("for people", default="")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if [bool(self.http), bool(self.tcp), bool(self.ttl_ms)].count(True) != 1:
            yield "http", "is not the only kind of check: give exactly one of http, tcp and ttl_ms"


@table
class ServiceTable:
    """[[services]]: one instance of a service on this host."""

    name: str = setting("the service's name; letters, digits and hyphens if DNS is to find it", form=TEXT)
    id: str = setting("tells instances on one host apart; the name if empty", default="")
    tags: tuple[str, ...] = setting("labels to select by", default=())
    address: str = setting("if it is not the node's", default="", form=HOST)
    port: int = setting("where it listens", default=0, unit="port", least=0, most=65_535)
    meta: dict[str, str] = setting("free metadata", default={})
    weight_passing: int = setting("its share among SRV records", default=1, unit="weight", least=1, most=65_535)
    weight_warning: int = setting("its share while in state warning", default=1, unit="weight", least=1, most=65_535)
    enable_tag_override: bool = setting("let others change the tags in the catalog", default=False)
    checks: tuple[CheckTable, ...] = setting("how the agent finds out whether it is well", default=())


@table
class ServicesFile:
    """One file in services_dir."""

    services: tuple[ServiceTable, ...] = setting("services of this host", default=())
    checks: tuple[CheckTable, ...] = setting("checks of the host itself; each needs an id", default=())

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for number, check in enumerate(self.checks):
            if not check.id:
                yield f"checks[{number}].id", "is missing: a check of the host itself needs one"
