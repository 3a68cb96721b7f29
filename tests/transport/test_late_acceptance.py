"""A server that is refused today may be let in tomorrow, and must then be heard without being restarted."""

from collections.abc import Iterator

import pytest

from coordd.transport.peers import PeerSockets
from coordd.transport.security import Gate, generate
from coordd.transport.sockets import close_context, open_context
from coordd.types import ServerId
from tests.transport.support import collect, stays_false, wait_until


@pytest.fixture
def sides() -> Iterator[tuple[PeerSockets, Gate, str, PeerSockets]]:
    contexts = open_context(), open_context()
    gates = [Gate(context) for context in contexts]
    pairs = generate(), generate()
    here, there = (
        PeerSockets(context, pair, "127.0.0.1:0", gate)
        for context, pair, gate in zip(contexts, pairs, gates, strict=True)
    )
    there.set_peers({ServerId("here"): (here.address, pairs[0].public)})
    yield here, gates[0], pairs[1].public, there
    for sockets, gate, context in zip((here, there), gates, contexts, strict=True):
        sockets.close()
        gate.close()
        close_context(context)


def test_a_key_accepted_later_is_let_in(sides: tuple[PeerSockets, Gate, str, PeerSockets]) -> None:
    here, gate, key, there = sides
    assert stays_false(lambda: bool(there.connected_peers()))
    gate.accept([key])
    wait_until(lambda: bool(there.connected_peers()))
    assert there.send(ServerId("here"), b"hello")
    assert collect(lambda: here.receive(1, 1000)) == [(key, b"hello")]
