"""Bytes that are no request never end a server: they are dropped, or answered as invalid."""

import msgspec
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from coordd.errors import TransportError
from coordd.messages.client import PROTOCOL_VERSION, Error, Info, Request, Servers, ServersRequest, Write
from coordd.messages.codec import MAX_FRAME_BYTES, decode_peer, decode_reply, encode_request
from coordd.messages.codec import decode_reply as read_reply
from coordd.messages.command import KvPut, encode
from coordd.server.client_side import ClientAnswers
from coordd.server.waiting import Waiter
from tests.server.conftest import MakeDesk

NO_UTF8 = b"\xff\xfe\xfd"


def test_a_token_that_is_no_text_is_dropped(make_desk: MakeDesk) -> None:
    desk = make_desk()
    frame = encode_request(Request(PROTOCOL_VERSION, 1, "abc", 1000, ServersRequest()))
    desk.mailbox.frames.append((b"c", frame.replace(b"abc", NO_UTF8)))
    desk.run()
    assert isinstance(desk.answer(ServersRequest()), Servers), "it goes on answering"


def test_a_command_with_a_key_that_is_no_text_is_invalid(make_desk: MakeDesk) -> None:
    desk = make_desk()
    command = encode(KvPut("abc", b"v")).replace(b"abc", NO_UTF8)
    answer = desk.answer(Write(msgspec.Raw(command)))
    assert isinstance(answer, Error)
    assert answer.code == "invalid"


def test_a_command_with_a_field_too_many_is_invalid(make_desk: MakeDesk) -> None:
    """It would be logged as it is, and could mean something to a later version."""
    desk = make_desk()
    fields = msgspec.msgpack.decode(encode(KvPut("k", b"v")))
    answer = desk.answer(Write(msgspec.Raw(msgspec.msgpack.encode([*fields, "from the future"]))))
    assert isinstance(answer, Error)
    assert answer.code == "invalid"


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 40), st.integers(1, 255))
def test_no_bytes_raise_anything_but_a_transport_error(junk: bytes, at: int, flip: int) -> None:
    frame = bytearray(
        encode_request(Request(PROTOCOL_VERSION, 1, "token", 1000, Write(msgspec.Raw(encode(KvPut("key", b"v"))))))
    )
    frame[at % len(frame)] ^= flip
    for decode in (decode_peer, decode_reply):
        for data in (junk, bytes(frame)):
            try:
                decode(data)
            except TransportError:
                continue


class Socket:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, connection: bytes, frame: bytes) -> bool:
        self.frames.append(frame)
        return True


def test_an_answer_too_large_for_a_frame_becomes_an_error() -> None:
    socket = Socket()
    answers = ClientAnswers(socket)  # type: ignore[arg-type]
    assert answers.answer(Waiter(b"c", 7, 1.0), Info({"text": "x" * (MAX_FRAME_BYTES + 1)}))
    reply = read_reply(socket.frames[0])
    assert isinstance(reply.body, Error)
    assert (reply.id, reply.body.code) == (7, "invalid")
