"""A client that fills our queue and goes must not end this process: libzmq 4.3.5 aborts if one of its own heartbeats falls due on
a connection whose reading it has stopped and whose other end is gone. So there are none (`transport.sockets`)."""

import subprocess
import sys

ACTOR = """
import time
from coordd.transport.clients import ClientSocket, Connection
from coordd.transport.security import Gate, generate
from tests.transport.support import collect, gated_context, wait_until, zmq_context

pair = generate()
with gated_context() as (inside, gate), zmq_context() as outside:
    clients = ClientSocket.on_network(inside, pair, "127.0.0.1:0", gate)
    connection = Connection.to_server(outside, clients.address, pair.public, generate())
    wait_until(lambda: connection.up)
    sent = 0

    def full():
        global sent
        tried = [connection.send(bytes(4096)) for _ in range(500)]
        sent += sum(tried)
        return sent > 1500 and not any(tried)

    wait_until(full)
    connection.close()
    # Longer than any heartbeat's interval: there is nothing to see while all is well.
    until = time.monotonic() + 2.5
    wait_until(lambda: time.monotonic() > until)
    got = collect(lambda: clients.receive(100, 10_000_000), 1000)
    other = Connection.to_server(outside, clients.address, pair.public, generate())
    wait_until(lambda: other.up)
    assert other.send(b"after")
    wait_until(lambda: any(data == b"after" for _, data in clients.receive(100, 10_000_000)))
    other.close()
    clients.close()
print("alive")
"""


def test_a_client_that_fills_the_queue_and_goes_ends_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", ACTOR], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("alive\n", 0), done.stderr[-2000:]
