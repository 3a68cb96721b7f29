"""One DNS question to one server, over UDP and, if the answer was truncated, over TCP.

An answer counts only with our id and question, from the address asked: anybody can send a datagram. Raises:
TimedOutError without an answer, TransportError for one that can't be read.
"""

import secrets
import socket
import time
from dataclasses import dataclass

import dnslib

from coordd.errors import InvalidError, TimedOutError, TransportError

__all__ = ["DnsAnswer", "DnsRecord", "ask", "record_types"]

_RETRY_SECONDS = 1.0
_EDNS_BYTES = 1232


@dataclass(frozen=True)
class DnsRecord:
    """One resource record, its data as text."""

    name: str
    type: str
    ttl: int
    data: str


@dataclass(frozen=True)
class DnsAnswer:
    """What came back. `status` is NOERROR, NXDOMAIN, …; NOERROR with no answers says that there is no such type."""

    status: str
    answers: tuple[DnsRecord, ...]
    authority: tuple[DnsRecord, ...]
    additional: tuple[DnsRecord, ...]
    tcp: bool


def record_types() -> list[str]:
    return sorted(name for name in dnslib.QTYPE.reverse if name.isalnum())


def ask(host: str, port: int, name: str, record_type: str, timeout: float) -> DnsAnswer:
    """Ask `host` (numeric) for records of `name`."""
    if record_type not in dnslib.QTYPE.reverse:
        raise InvalidError(f"{record_type!r} is no type of DNS record; try A, AAAA, SRV, TXT, PTR or ANY")
    question = _question(name, record_type)
    deadline = time.monotonic() + timeout
    record, tcp = _over_udp(host, port, question, deadline), False
    if record.header.tc:
        record, tcp = _over_tcp(host, port, question, deadline), True
    return DnsAnswer(
        dnslib.RCODE.get(record.header.rcode),
        tuple(map(_record, record.rr)),
        tuple(map(_record, record.auth)),
        tuple(_record(one) for one in record.ar if one.rtype != dnslib.QTYPE.OPT),
        tcp,
    )


def _question(name: str, record_type: str) -> dnslib.DNSRecord:
    try:
        question = dnslib.DNSRecord.question(name, record_type)
        question.header.id = secrets.randbits(16)
        question.add_ar(dnslib.EDNS0(udp_len=_EDNS_BYTES))
        question.pack()
    except UnicodeError as error:
        raise InvalidError(f"{name!r} is no DNS name: a part between dots has 1 to 63 characters") from error
    except (dnslib.DNSError, ValueError) as error:
        raise InvalidError(f"{name!r} can't be asked for: {error}") from error
    return question


def _over_udp(host: str, port: int, question: dnslib.DNSRecord, deadline: float) -> dnslib.DNSRecord:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        # Connected: the kernel takes datagrams from that address alone, and tells when nobody listens there.
        channel.connect((host, port))
        packet = question.pack()
        while (left := deadline - time.monotonic()) > 0:
            channel.settimeout(min(left, _RETRY_SECONDS))
            try:
                channel.send(packet)
                return _matching(channel, question)
            except TimeoutError:
                continue
            except ConnectionRefusedError as error:
                raise TransportError(f"nobody answers DNS at {host}:{port}; is the agent running?") from error
    raise TimedOutError(f"no DNS answer from {host}:{port}")


def _matching(channel: socket.socket, question: dnslib.DNSRecord) -> dnslib.DNSRecord:
    """The first answer that is one to `question`. Raises: TimeoutError."""
    while True:
        packet = channel.recv(65_535)
        try:
            record = dnslib.DNSRecord.parse(packet)
        except dnslib.DNSError:
            continue
        if _answers(record, question):
            return record


def _over_tcp(host: str, port: int, question: dnslib.DNSRecord, deadline: float) -> dnslib.DNSRecord:
    try:
        with socket.create_connection((host, port), max(0.05, deadline - time.monotonic())) as channel:
            packet = question.pack()
            channel.sendall(len(packet).to_bytes(2, "big") + packet)
            size = int.from_bytes(_exactly(channel, 2, deadline), "big")
            record = dnslib.DNSRecord.parse(_exactly(channel, size, deadline))
    except TimeoutError as error:
        raise TimedOutError(f"no DNS answer from {host}:{port} over TCP") from error
    except (OSError, dnslib.DNSError) as error:
        raise TransportError(f"no readable DNS answer from {host}:{port} over TCP: {error}") from error
    if not _answers(record, question):
        raise TransportError(f"{host}:{port} answered another DNS question over TCP")
    return record


def _exactly(channel: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        part = channel.recv(size - len(data))
        if not part:
            raise OSError("the connection ended early")
        data += part
    return data


def _answers(record: dnslib.DNSRecord, question: dnslib.DNSRecord) -> bool:
    return bool(
        record.header.qr
        and record.header.id == question.header.id
        and len(record.questions) == 1
        and str(record.q.qname).lower() == str(question.q.qname).lower()
        and record.q.qtype == question.q.qtype
    )


def _record(record: dnslib.RR) -> DnsRecord:
    return DnsRecord(str(record.rname), dnslib.QTYPE.get(record.rtype), record.ttl, str(record.rdata))
