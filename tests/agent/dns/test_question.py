"""Bytes that anyone may send."""

import os
import random

import dns.edns
import dns.message
import dns.opcode
import pytest

from coordd_agent.dns.question import Unreadable, read_question
from tests.agent.dns.asking import Asker
from tests.agent.dns.catalog import HandmadeCatalog

PLAIN = dns.message.make_query("Web.service.coord", "SRV", id=7).to_wire()


def reply_to(packet: bytes) -> bytes | None:
    with pytest.raises(Unreadable) as caught:
        read_question(packet)
    return caught.value.reply


def test_reads_labels_in_their_case_and_the_section_as_it_came() -> None:
    question = read_question(PLAIN)
    assert question.name == (b"Web", b"service", b"coord")
    assert question.qtype == 33
    assert question.section == PLAIN[12:]
    assert question.edns is None
    assert question.key == PLAIN[2:]


def test_options_are_left_out_of_the_key() -> None:
    def key(*options: dns.edns.Option) -> bytes:
        return read_question(
            dns.message.make_query("a.coord", "A", use_edns=0, payload=1232, options=list(options)).to_wire()
        ).key

    plain = dns.message.make_query("a.coord", "A", use_edns=0, payload=1232).to_wire()
    assert key() == plain[2:]
    assert key(dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")) == key()


def test_a_client_subnet_has_no_key() -> None:
    query = dns.message.make_query("a.coord", "A", use_edns=0, options=[dns.edns.ECSOption("10.0.0.0", 8)])
    question = read_question(query.to_wire())
    assert question.key == b""
    assert question.edns is not None
    assert question.edns.subnet == b"\0\1\x08\0\x0a"


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        PLAIN[:11],
        PLAIN[:20],
        PLAIN[:-1],
        PLAIN[:2] + b"\x81" + PLAIN[3:],  # a response
        PLAIN[:12] + b"\xc0\x0c" + PLAIN[-4:],  # a pointer to itself
        PLAIN[:12] + b"\x40" + PLAIN[13:],  # a label of a kind that does not exist
        PLAIN[:12] + b"\x3fx" * 140 + b"\0" + PLAIN[-4:],
        PLAIN[:11] + b"\1" + PLAIN[12:],  # an additional record that is not there
    ],
)
def test_what_is_no_question_gets_no_reply(packet: bytes) -> None:
    assert reply_to(packet) is None


@pytest.mark.parametrize("opcode", [dns.opcode.STATUS, dns.opcode.UPDATE])
def test_other_opcodes_are_not_implemented(opcode: dns.opcode.Opcode) -> None:
    packet = bytearray(PLAIN)
    packet[2] |= opcode << 3
    reply = reply_to(bytes(packet))
    assert reply is not None
    message = dns.message.from_wire(reply)
    assert (message.rcode(), message.opcode(), message.id) == (dns.rcode.NOTIMP, opcode, 7)
    assert not message.flags & dns.flags.AA


@pytest.mark.parametrize("count", [0, 2])
def test_not_exactly_one_question_is_a_format_error(count: int) -> None:
    reply = reply_to(PLAIN[:5] + bytes([count]) + PLAIN[6:])
    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR


def test_no_bytes_break_it() -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    rng = random.Random(seed)
    asker = Asker(HandmadeCatalog())
    starts = [
        dns.message.make_query("a.b.web.service.coord", "ANY", use_edns=0, payload=4096).to_wire(),
        dns.message.make_query("0a000001.addr.dc1.consul", "A").to_wire(),
        dns.message.make_query("1.0.0.10.in-addr.arpa", "PTR").to_wire(),
        dns.message.make_query("_a._b.service.coord", "SRV", options=[dns.edns.ECSOption("10.0.0.0", 8)]).to_wire(),
    ]
    replies = 0
    for _ in range(10_000):
        packet = bytearray(rng.choice(starts))
        for _ in range(rng.randrange(4)):
            packet[rng.randrange(2, len(packet))] = rng.randrange(256)
        if rng.random() < 0.2:
            del packet[rng.randrange(len(packet)) :]
        try:
            reply = asker.wire(bytes(packet))
        except Exception as error:
            raise AssertionError(f"seed {seed}, packet {packet.hex()}") from error
        if reply is not None:
            replies += 1
            dns.message.from_wire(reply, ignore_trailing=False)
    assert replies > 3_000, f"seed {seed}"
