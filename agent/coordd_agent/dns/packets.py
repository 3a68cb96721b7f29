"""Answer to bytes: sections into one message, cut to what the asker can take.

`pack(question, answer, settings, over_tcp)` gives the message from its third byte on (the two bytes of id are
whoever sends it's), never larger than the transport allows. What is left out goes in Consul's order: first the
authority section, then records from the end of the answer, each with the additional records that belong to it; one
record always stays.
"""

from struct import Struct

import msgspec
from dnslib import RR
from dnslib.label import DNSBuffer, DNSLabel

from coordd_agent.dns.question import CLIENT_SUBNET, NOTIFY, OPT, Question
from coordd_agent.settings import DnsSettings

__all__ = ["NOERROR", "NOTIMP", "NXDOMAIN", "REFUSED", "SERVFAIL", "Answer", "Record", "pack"]

NOERROR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 2, 3, 4, 5
SRV = 33

MIN_UDP, MAX_UDP, UDP_HEADER = 512, 65_467, 8
MAX_TCP = 65_523
MAX_TCP_ANSWERS, MAX_TCP_SRV_ANSWERS = 4_096, 1_024
FLAGS_AND_ID = 4
MAX_POINTER = 0x3FFF

_COUNTS = Struct("!HHHH")
_OPT_RECORD = Struct("!BHHIH")
_OPTION = Struct("!HH")


class Record(msgspec.Struct):
    """One record of the answer section and the additional records that stand or fall with it."""

    rr: RR
    additional: tuple[RR, ...] = ()


class Answer(msgspec.Struct):
    rcode: int = NOERROR
    authoritative: bool = True
    records: list[Record] = []
    authority: list[RR] = []
    additional: list[RR] = []
    shuffled: bool = False
    """The order of the records was drawn: asked again, the answer may look different."""


class _Buffer(DNSBuffer):  # type: ignore[misc]  # dnslib has no types
    """dnslib's buffer, without pointers beyond what a pointer can hold, and with none at all if asked."""

    def __init__(self, compress: bool) -> None:
        super().__init__()
        self.compress = compress

    def encode_name(self, name: DNSLabel) -> None:
        labels = name.label
        for at in range(len(labels)):
            rest = labels[at:]
            known = self.names.get(rest)
            if known is not None and self.compress:
                self.pack("!H", 0xC000 | known)
                return
            if self.offset <= MAX_POINTER:
                self.names.setdefault(rest, self.offset)
            self.append(bytes((len(labels[at]),)) + labels[at])
        self.append(b"\0")


def pack(question: Question, answer: Answer, settings: DnsSettings, over_tcp: bool) -> bytes:
    records = answer.records
    with_opt = question.edns is not None and answer.rcode != REFUSED
    opt_bytes = len(_opt(question, answer.rcode)) if with_opt else 0
    compress_measured = True
    if over_tcp:
        srv = bool(records) and records[0].rr.rtype == SRV
        records = records[: MAX_TCP_SRV_ANSWERS if srv else MAX_TCP_ANSWERS]
        room = MAX_TCP - opt_bytes
    else:
        size = min(max(MIN_UDP, question.edns.size if question.edns else MIN_UDP), MAX_UDP)
        room = size - max(UDP_HEADER, opt_bytes)
        if size == MIN_UDP:
            records = records[: settings.udp_answer_limit]
            # Whoever forwards it may send it uncompressed, and must not come to more than 512 bytes then.
            compress_measured = False
    body, kept = _fit(question, answer, records, room, compress_measured)
    cut = kept < len(answer.records) and settings.enable_truncate and not over_tcp
    return _flags(question, answer, cut) + body + (_opt(question, answer.rcode) if with_opt else b"")


def _fit(question: Question, answer: Answer, records: list[Record], room: int, compress: bool) -> tuple[bytes, int]:
    """Counts and sections, with the header in at most `room` bytes as measured, and the number of records kept."""
    authority, additional = answer.authority, answer.additional

    def sections(compressed: bool) -> bytes:
        return _sections(question, answer, records, authority, additional, compressed)

    body = sections(compress)
    if len(body) > room - FLAGS_AND_ID:
        authority = []
        records = records[: _estimate(question, records, additional, room, compress)]
        while len(body := sections(compress)) > room - FLAGS_AND_ID and len(records) > 1:
            records = records[:-1]
        if len(body) > room - FLAGS_AND_ID:
            records, additional = [Record(record.rr) for record in records], []
            compress = False
    return (body if compress else sections(True)), len(records)


def _estimate(question: Question, records: list[Record], additional: list[RR], room: int, compress: bool) -> int:
    """How many records fit, give or take one: names shrink a little differently in their final order."""
    buffer = _begin(question, compress)
    for rr in additional:
        rr.pack(buffer)
    for fitting, record in enumerate(records):
        record.rr.pack(buffer)
        for rr in record.additional:
            rr.pack(buffer)
        if buffer.offset > room:
            return fitting + 1
    return len(records)


def _begin(question: Question, compress: bool) -> _Buffer:
    buffer = _Buffer(compress)
    buffer.append(bytes(12))
    buffer.encode_name(DNSLabel(question.name))
    buffer.append(question.section[-4:])
    return buffer


def _sections(
    question: Question, answer: Answer, records: list[Record], authority: list[RR], additional: list[RR], compress: bool
) -> bytes:
    """Everything behind the flags: the counts and the sections, without OPT."""
    buffer = _begin(question, compress)
    extra = 0
    for record in records:
        record.rr.pack(buffer)
    for rr in authority:
        rr.pack(buffer)
    for record in records:
        for rr in record.additional:
            rr.pack(buffer)
            extra += 1
    for rr in additional:
        rr.pack(buffer)
    with_opt = question.edns is not None and answer.rcode != REFUSED
    counts = _COUNTS.pack(1, len(records), len(authority), extra + len(additional) + with_opt)
    return counts + bytes(buffer.data[12:])


def _flags(question: Question, answer: Answer, cut: bool) -> bytes:
    # Of what the asker set, RD and CD are copied; Consul doesn't copy RD from a NOTIFY.
    asked = question.flags & (0x0010 if question.opcode == NOTIFY else 0x0110)
    flags = 0x8000 | question.opcode << 11 | answer.authoritative << 10 | cut << 9 | asked | answer.rcode
    return flags.to_bytes(2, "big")


def _opt(question: Question, rcode: int) -> bytes:
    edns = question.edns
    if edns is None:
        return b""
    option = b""
    if edns.subnet:
        # Our answers are the same for everyone (scope 0); errors are said for the asked network only.
        scope = edns.subnet[2] if rcode != NOERROR else 0
        value = edns.subnet[:3] + bytes((scope,)) + edns.subnet[4:]
        option = _OPTION.pack(CLIENT_SUBNET, len(value)) + value
    return _OPT_RECORD.pack(0, OPT, edns.size, 0, len(option)) + option
