"""How many messages a second one ROUTER echoes to one DEALER, both CURVE, each in a process of its own.

    python -m tests.bench.transport [--seconds 5] [--size 300] [--in-flight 256]

Prints messages/s there and back, and the CPU time that the answering process used for each: the part of a server's budget
that the transport takes.
"""

import argparse
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection as Pipe

from coordd.transport.clients import ClientSocket, Connection, Poller, close_context, open_context
from coordd.transport.security import Gate, KeyPair, generate

_SLICE = 256
_SLICE_BYTES = 8 * 1024 * 1024


def echo(pair: KeyPair, pipe: Pipe) -> None:
    """Answer until the pipe says stop; then tell the CPU seconds used."""
    context = open_context()
    gate = Gate(context)
    socket = ClientSocket.on_network(context, pair, "127.0.0.1:0", gate)
    pipe.send(socket.address)
    poller = Poller()
    poller.register(socket)
    poller.register(pipe.fileno())
    while pipe.fileno() not in poller.poll(None):
        for connection, frame in socket.receive(_SLICE, _SLICE_BYTES):
            socket.send(connection, frame)
    pipe.send(time.process_time())
    socket.close()
    gate.close()
    close_context(context)


def measure(address: str, key: str, seconds: float, size: int, in_flight: int) -> float:
    """Messages there and back in a second, with `in_flight` under way at any time."""
    context = open_context()
    connection = Connection.to_server(context, address, key, generate())
    poller = Poller()
    poller.register(connection)
    while not connection.up:
        poller.poll(1)
    frame = bytes(size)
    for _ in range(in_flight):
        connection.send(frame)
    began, done = time.monotonic(), 0
    while (now := time.monotonic()) - began < seconds:
        received = connection.receive(_SLICE)
        for _ in received:
            connection.send(frame)
        done += len(received)
        # Receiving nothing has looked at everything there was: only now is it safe to wait for an edge.
        if not received:
            poller.poll(0.01)
    connection.close()
    close_context(context)
    return done / (now - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--in-flight", type=int, default=256)
    options = parser.parse_args()
    pair = generate()
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=echo, args=(pair, theirs))
    process.start()
    rate = measure(ours.recv(), pair.public, options.seconds, options.size, options.in_flight)
    ours.send("stop")
    cpu = ours.recv()
    process.join()
    print(f"{rate:,.0f} messages/s of {options.size} bytes there and back, {options.in_flight} in flight")
    print(f"{cpu / max(1.0, rate * options.seconds) * 1e6:.1f} µs of CPU for each at the answering side")
    return 0 if rate else 1


if __name__ == "__main__":
    sys.exit(main())
