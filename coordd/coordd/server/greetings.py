"""Hellos between servers, and what follows from them: identities are learned, a cluster is founded, a new server let in.

Before there is a configuration a server greets everybody it knows of; afterwards a leader greets servers that are about to
be added, and members that have not told it yet, in their present life, which feature level they support.
A server that waits to join asks the member of its `[join]` table for the list of servers, so that it will let them in.
"""

import msgspec

from coordd.errors import ConfigError, ConflictError, CoorddError, RequestError
from coordd.log_output import Log
from coordd.messages.client import PROTOCOL_VERSION, Request, Servers, ServersRequest
from coordd.messages.codec import decode_reply, encode_request
from coordd.messages.peer import Hello
from coordd.raft.events import Founded
from coordd.raft.output import Accepted
from coordd.server.founding import Founding
from coordd.server.levels import Levels
from coordd.server.links import PeerLinks
from coordd.server.node import Node
from coordd.server.operator import Operator
from coordd.server.roster import Contact, Roster
from coordd.server.settings import JoinSettings
from coordd.transport.clients import Connection, Context
from coordd.transport.security import generate

__all__ = ["Greetings"]

_EVERY_SECONDS = 0.25
_ASK_SECONDS = 1.0
_REPLY_MESSAGES = 16
_SILENCE_SECONDS = 5.0


class Greetings:
    """Mutable; one per server."""

    def __init__(
        self,
        *,
        me: Hello,
        node: Node,
        links: PeerLinks,
        roster: Roster,
        founding: Founding,
        levels: Levels,
        operator: Operator,
        join: JoinSettings | None,
        context: Context,
        log: Log,
    ) -> None:
        self._me = me
        self._node = node
        self._links = links
        self._roster = roster
        self._founding = founding
        self._levels = levels
        self._operator = operator
        self._join = join
        self._context = context
        self._log = log
        self._greet_at = 0.0
        self._ask_at = 0.0
        self._asked: Connection | None = None
        self._told_strange: set[str] = set()
        """Keys that were warned of once; only accepted keys get this far."""
        self._unanswered_since: float | None = None

    def turn(self, now: float) -> None:
        """About ten times a second."""
        if now >= self._greet_at:
            self._greet_at = now + _EVERY_SECONDS
            for key in self._to_greet():
                self._links.send_to_key(key, self._hello(answer=False))
        if not self._roster.configured:
            self._found(now)
            if self._join is not None:
                self._ask_for_servers(self._join, now)
        elif self._asked is not None:
            self._asked.close()
            self._asked = None

    def _to_greet(self) -> list[str]:
        known = self._links.contacts()
        if not self._roster.configured:
            return known
        wanted = set(self._levels.to_ask())
        return [key for key in known if key in wanted or self._roster.is_expected(key)]

    def _hello(self, *, answer: bool) -> Hello:
        return msgspec.structs.replace(
            self._me, cluster_id=self._links.cluster_id, last_index=self._node.raft.replica.log.last, answer=answer
        )

    def heard(self, key: str, hello: Hello) -> None:
        self._roster.greeted(hello.sender, key)
        self._founding.heard(hello, key)
        self._levels.heard(key, hello)
        if not hello.answer:
            self._links.send_to_key(key, self._hello(answer=True))
        strange = hello.cluster_name != self._me.cluster_name or (
            hello.cluster_id and self._links.cluster_id and hello.cluster_id != self._links.cluster_id
        )
        if strange and key not in self._told_strange:
            self._told_strange.add(key)
            self._log.warning(
                "server of another cluster",
                server=hello.name,
                its_cluster=f"{hello.cluster_name}/{hello.cluster_id}",
                our_cluster=f"{self._me.cluster_name}/{self._links.cluster_id}",
            )

    def _found(self, now: float) -> None:
        """Asked to found the cluster: as soon as everybody listed was heard."""
        if not self._operator.founding_asked or self._founding.missing(self._roster.listed()):
            return
        try:
            configuration = self._founding.configuration(self._roster.listed())
        except RequestError as error:
            self._log.error("founding refused", reason=error.text)
            self._operator.founding_failed(error)
            return
        answer = self._node.found(Founded(configuration), now)
        if isinstance(answer, Accepted):
            self._log.info("founded", cluster=configuration.cluster_id, servers=[m.name for m in configuration.members])
            self._operator.founded()
        else:
            self._operator.founding_failed(ConflictError(f"this server can't found a cluster: {answer.value}"))

    # --- joining ------------------------------------------------------------------------------------------------------

    def _ask_for_servers(self, join: JoinSettings, now: float) -> None:
        if self._asked is not None:
            for frame in self._asked.receive(_REPLY_MESSAGES):
                self._unanswered_since = None
                self._take_list(frame)
            if self._asked.lost:
                self._asked.close()
                self._asked = None
        if now < self._ask_at:
            return
        self._ask_at = now + _ASK_SECONDS
        self._unanswered_since = self._unanswered_since or now
        if now - self._unanswered_since > _SILENCE_SECONDS:
            self._unanswered_since = now
            self._log.warning("no answer from the server in [join]: is it its client address?", address=join.address)
        if self._asked is None:
            self._asked = Connection.to_server(self._context, join.address, join.public_key, generate())
        if self._asked.up:
            self._asked.send(encode_request(Request(PROTOCOL_VERSION, 1, "", 1000, ServersRequest())))

    def _take_list(self, frame: bytes) -> None:
        try:
            body = decode_reply(frame).body
            if isinstance(body, Servers) and body.cluster_id:
                if body.cluster_name != self._me.cluster_name:
                    raise ConfigError(
                        f"the server named in [join] belongs to cluster {body.cluster_name},"
                        f" cluster_name is {self._me.cluster_name}"
                    )
                self._roster.take_list(
                    Contact(s.id.partition("#")[0], s.raft_address, s.client_address, s.public_key)
                    for s in body.servers
                )
                self._links.follow_roster()
        except ConfigError:
            raise
        except CoorddError as error:
            self._log.warning("unreadable list of servers", reason=str(error))

    def close(self) -> None:
        if self._asked is not None:
            self._asked.close()
