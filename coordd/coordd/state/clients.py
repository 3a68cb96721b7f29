"""Numbered writes: each takes effect once, however often it is sent.

A client's identity is what it drew when it registered, or the index of its registration. Its row holds when it was last
heard of, its lowest outstanding number, and the results of the numbers from there on. Rows are made once for a batch: in
between, the results are kept in memory, and `flush` must come before the batch is committed. The number of kept results is
bounded, and so is the length of a result (limits.MAX_FAILURE_TEXT), so that one client's row stays below 1 MiB.
"""

import msgspec

from coordd.messages.command import CommandResult, Done, ExpireClients, Failure, RegisterClient
from coordd.messages.entry import CommandHeader
from coordd.state.limits import MAX_TIME, Refused, check_text
from coordd.state.rows import Rows
from coordd.state.schema import ClientRow

__all__ = ["Clients"]

_OPEN_CLIENTS = 16_384
"""Clients whose results are kept decoded between batches."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[int, CommandResult]).decode


class _Client:
    """One registered client, decoded."""

    __slots__ = ("last_seen", "lowest", "name", "replies")

    def __init__(self, row: ClientRow) -> None:
        self.name = row.name
        self.last_seen = row.last_seen
        self.lowest = row.lowest
        self.replies = _decode(row.replies)

    def forget_below(self, lowest: int) -> None:
        if lowest - self.lowest <= len(self.replies):
            for number in range(self.lowest, lowest):
                self.replies.pop(number, None)
        else:
            self.replies = {number: reply for number, reply in self.replies.items() if number >= lowest}
        self.lowest = lowest


class Clients:
    """The registered clients of one `Rows`."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._open: dict[int, _Client] = {}
        self._dirty: set[int] = set()

    def known_result(self, header: CommandHeader) -> CommandResult | None:
        """What to answer without applying the command; None: apply it, then call `record`."""
        index = self._rows.index
        number = header.number
        client = self._client(header.client)
        if client is None:
            return Failure(index, "unknown-client", "this client's registration has expired; register again")
        if not 1 <= header.lowest <= number <= MAX_TIME:
            return Failure(index, "invalid", "a numbered write needs 1 <= lowest <= number")
        self._dirty.add(header.client)
        client.last_seen = self._rows.now
        if header.lowest > client.lowest:
            client.forget_below(header.lowest)
        if number < client.lowest:
            return Failure(index, "invalid", f"write {number} was already acknowledged")
        if (reply := client.replies.get(number)) is not None:
            return reply
        if len(client.replies) >= self._rows.limits.replies_for_one_client:
            return Failure(index, "busy", "too many outstanding writes; wait for replies and raise `lowest`")
        return None

    def record(self, header: CommandHeader, result: CommandResult) -> None:
        """Keep the result of a write that was just applied."""
        if (client := self._client(header.client)) is not None:  # None: it expired itself
            client.replies[header.number] = result

    def register(self, rows: Rows, command: RegisterClient) -> Done:
        check_text("client name", command.name, 256)
        if rows.clients.count >= rows.limits.clients:
            raise Refused("busy", "too many clients are registered; try again later")
        client = command.id or rows.index
        if not 0 < client <= MAX_TIME:
            raise Refused("invalid", "a client's identity must be below 2**63")
        if rows.clients.get(client) is not None:
            raise Refused("conflict", "this client identity is in use: draw another")
        rows.clients.put(ClientRow(client, command.name, rows.now, 1, "{}"))
        return Done(client)

    def expire(self, rows: Rows, command: ExpireClients) -> Done:
        if command.term != rows.term:
            return Done(rows.index, ok=False)
        if len(command.clients) > rows.limits.rows_for_one_command:
            raise Refused("invalid", "too many clients in one command")
        for client in command.clients:
            if 0 < client <= MAX_TIME:
                self._open.pop(client, None)
                self._dirty.discard(client)
                rows.clients.delete(client)
        return Done(rows.index)

    def flush(self) -> None:
        """Hand what changed to the row layer, one row a client."""
        put = self._rows.clients.put
        for number in sorted(self._dirty):
            client = self._open[number]
            replies = _encode(client.replies).decode()
            put(ClientRow(number, client.name, client.last_seen, client.lowest, replies))
        self._dirty.clear()
        if len(self._open) > _OPEN_CLIENTS:
            self._open.clear()

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._open.clear()
        self._dirty.clear()

    def _client(self, number: int) -> _Client | None:
        client = self._open.get(number)
        if client is None and number <= MAX_TIME and (row := self._rows.clients.get(number)) is not None:
            client = self._open[number] = _Client(row)
        return client
