"""How a cluster comes to be, pure: one server is told to found it, hears from every listed server, and writes entry 1.

States: idle → waiting (asked, not everybody was heard yet) → founded. It is refused when this server or any listed one
belongs to a cluster already: a second bootstrap must never make a second cluster out of the same servers (rule 77).
"""

import uuid
from collections.abc import Mapping

from coordd.errors import ConflictError
from coordd.messages.peer import Hello
from coordd.server.roster import Contact
from coordd.types import Configuration, Member, ServerId, server_name

__all__ = ["Founding"]


class Founding:
    """Mutable; on every server, of use on one."""

    def __init__(self, me: Hello) -> None:
        self._me = me
        self._heard: dict[str, tuple[Hello, str]] = {}
        """Name → (newest hello, key that proved it)."""

    def heard(self, hello: Hello, key: str) -> None:
        """`key` is known to be that of the sender; the name is the sender's, whatever else the hello says."""
        self._heard[server_name(hello.sender)] = (hello, key)

    def missing(self, listed: Mapping[str, Contact]) -> list[str]:
        """Listed servers that have not said hello under their listed key yet."""
        return [
            name
            for name, contact in sorted(listed.items())
            if name != self._me.name and (name not in self._heard or self._heard[name][1] != contact.public_key)
        ]

    def configuration(self, listed: Mapping[str, Contact]) -> Configuration:
        """Entry 1. Raises: ConflictError if a listed server belongs to a cluster, or calls its cluster otherwise."""
        members = []
        for name, contact in sorted(listed.items()):
            hello = self._me if name == self._me.name else self._heard[name][0]
            if hello.cluster_id or hello.last_index:
                raise ConflictError(f"server {name} belongs to a cluster already: this one can't be founded with it")
            if hello.cluster_name != self._me.cluster_name:
                raise ConflictError(
                    f"server {name} calls its cluster {hello.cluster_name}, this one {self._me.cluster_name}"
                )
            members.append(_member(hello.sender, contact))
        return Configuration(
            cluster_id=uuid.uuid4().hex,
            cluster_name=self._me.cluster_name,
            members=tuple(sorted(members, key=lambda member: member.id)),
        )


def _member(server: ServerId, contact: Contact) -> Member:
    return Member(server, contact.raft_address, contact.client_address, contact.public_key, voter=True)
