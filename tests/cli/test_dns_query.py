"""The DNS question: asked again when lost, over TCP when truncated, and deaf to answers that are not its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from coordd.errors import InvalidError, TimedOutError, TransportError
from coordd_cli.dns_query import ask
from tests.cli.small_cluster import coordctl

Answer = Callable[[dns.message.Message, bool], list[bytes]]
"""Packets to send for a question; the flag says that it came over TCP."""


@contextmanager
def name_server(answer: Answer) -> Iterator[int]:
    """One on UDP and TCP; gives its port."""
    stream = socket.create_server(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(stream.getsockname())

    def over_udp() -> None:
        while True:
            packet, address = datagrams.recvfrom(65_535)
            if not packet:
                return
            for reply in answer(dns.message.from_wire(packet), False):
                datagrams.sendto(reply, address)

    def over_tcp() -> None:
        while True:
            connection, _ = stream.accept()
            with connection:
                packet = connection.recv(65_535)
                if not packet:
                    return
                for reply in answer(dns.message.from_wire(packet[2:]), True):
                    # In two pieces: a stream has no packets.
                    framed = len(reply).to_bytes(2, "big") + reply
                    connection.sendall(framed[:5])
                    connection.sendall(framed[5:])

    threads = [threading.Thread(target=over_udp), threading.Thread(target=over_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield stream.getsockname()[1]
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", datagrams.getsockname())
        with socket.create_connection(stream.getsockname()):
            pass
        for thread in threads:
            thread.join()
        stream.close()
        datagrams.close()


def reply(question: dns.message.Message, *records: str) -> dns.message.Message:
    answer = dns.message.make_response(question)
    asked = question.question[0]
    if records:
        answer.answer.append(dns.rrset.from_text(asked.name, 7, "IN", asked.rdtype, *records))
    return answer


def test_an_answer() -> None:
    with name_server(lambda question, tcp: [reply(question, "10.0.0.1", "10.0.0.2").to_wire()]) as port:
        answer = ask("127.0.0.1", port, "Web.service.coord", "A", 5)
    assert (answer.status, answer.tcp) == ("NOERROR", False)
    assert sorted((one.name, one.type, one.ttl, one.data) for one in answer.answers) == [
        ("Web.service.coord.", "A", 7, "10.0.0.1"),
        ("Web.service.coord.", "A", 7, "10.0.0.2"),
    ]


def test_a_lost_question_is_asked_again() -> None:
    asked = []

    def answer(question: dns.message.Message, tcp: bool) -> list[bytes]:
        asked.append(question.id)
        return [reply(question, "10.0.0.1").to_wire()] if len(asked) > 1 else []

    with name_server(answer) as port:
        assert ask("127.0.0.1", port, "web.service.coord", "A", 10).answers
    assert len(asked) == 2


def test_a_truncated_answer_is_fetched_over_tcp() -> None:
    def answer(question: dns.message.Message, tcp: bool) -> list[bytes]:
        answer = reply(question, "1 1 80 a.coord.")
        if not tcp:
            answer = reply(question)
            answer.flags |= dns.flags.TC
        return [answer.to_wire()]

    with name_server(answer) as port:
        found = ask("127.0.0.1", port, "_web._tcp.service.coord", "SRV", 5)
    assert found.tcp
    assert [one.data for one in found.answers] == ["1 1 80 a.coord."]


def test_answers_to_others_do_not_count() -> None:
    def answer(question: dns.message.Message, tcp: bool) -> list[bytes]:
        other_id = dns.message.make_query("web.service.coord", "A", id=(question.id + 1) % 65536)
        other_name = dns.message.make_query("evil.service.coord", "A", id=question.id)
        return [
            b"\x00",
            question.to_wire(),
            reply(other_id, "6.6.6.6").to_wire(),
            reply(other_name, "6.6.6.6").to_wire(),
            reply(question, "10.0.0.1").to_wire(),
        ]

    with name_server(answer) as port:
        assert [one.data for one in ask("127.0.0.1", port, "web.service.coord", "A", 5).answers] == ["10.0.0.1"]


def test_no_answer() -> None:
    with name_server(lambda question, tcp: []) as port, pytest.raises(TimedOutError, match="no DNS answer"):
        ask("127.0.0.1", port, "web.service.coord", "A", 0.2)
    with pytest.raises(TransportError, match="nobody answers DNS"):
        ask("127.0.0.1", port, "web.service.coord", "A", 1)


@pytest.mark.parametrize(("name", "kind"), [("web.coord", "NO"), ("a" * 64 + ".coord", "A"), ("a" * 300, "A")])
def test_what_can_not_be_asked(name: str, kind: str) -> None:
    with pytest.raises(InvalidError):
        ask("127.0.0.1", 9, name, kind, 1)


def test_the_command(environment: dict[str, str]) -> None:
    asked = []

    def answer(question: dns.message.Message, tcp: bool) -> list[bytes]:
        asked.append(question.question[0].to_text())
        answer = reply(question, *(["10.0.0.1"] if "web" in asked[-1] else []))
        if "none" in asked[-1]:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return [answer.to_wire()]

    with name_server(answer) as port:
        environment["COORD_DNS_ADDRESS"] = f"127.0.0.1:{port}"
        found = coordctl("resolve", "web", environment=environment)
        assert (found.returncode, found.stdout.split()[4:]) == (0, ["web.service.coord.", "7", "A", "10.0.0.1"])
        none = coordctl("resolve", "none.service.coord", "--dns-port", str(port), environment=environment)
        assert (none.returncode, none.stderr) == (3, "coordctl: none.service.coord: no such name\n")
        empty = coordctl("resolve", "h1.node.coord", "--type", "aaaa", environment=environment)
        assert (empty.returncode, empty.stderr) == (3, "coordctl: h1.node.coord: no AAAA record\n")
    assert asked == ["web.service.coord. IN A", "none.service.coord. IN A", "h1.node.coord. IN AAAA"]
