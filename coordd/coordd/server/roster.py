"""Which servers this one talks to, pure: from the configuration file before there is a cluster, from the replicated
configuration afterwards.

A server is reached, and believed, by its public key: connections are kept per key, so that they outlive what is learned of
the name behind it. A message counts only if the identity it claims belongs to the key that the handshake proved.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from coordd.types import Configuration, Member, ServerId, server_name

__all__ = ["Contact", "Roster"]


class Contact(msgspec.Struct, frozen=True):
    """A server that is known by its key, with or without an identity."""

    name: str
    raft_address: str
    client_address: str
    public_key: str


class Roster:
    """Mutable; one per server. `me` is this server's own key, which is never contacted. `moved`: name → (Raft address,
    client address) of members that are reached elsewhere than the replicated configuration says (rule 78)."""

    def __init__(
        self, me: str, listed: Iterable[Contact], moved: Mapping[str, tuple[str, str]] = MappingProxyType({})
    ) -> None:
        self._me = me
        self._moved = moved
        self._listed = {contact.name: contact for contact in listed}
        """The servers of the configuration file, or those learned while joining. Of no weight once there is a cluster."""
        self._members: dict[ServerId, Member] = {}
        """Members of the latest and of the committed configuration, and some that have just left."""
        self._expected: dict[str, Contact] = {}
        """Servers about to be added, by name."""
        self._learned: dict[str, ServerId] = {}
        """Key → identity that said hello under it last. One for each key, however many lives its owner claims."""

    # --- what changes -------------------------------------------------------------------------------------------------

    def take_list(self, contacts: Iterable[Contact]) -> None:
        """What a member told a joining server."""
        self._listed = {contact.name: contact for contact in contacts}

    def follow(
        self,
        configurations: Iterable[Configuration],
        departing: Iterable[ServerId],
        earlier: Iterable[Configuration] = (),
    ) -> None:
        """The replicated configuration has changed: members that left are kept while they are being told. `earlier`: where
        those may be found that left before this server was to tell them."""
        known = {m.id: m for configuration in earlier for m in configuration.members} | self._members
        kept = {server: known[server] for server in departing if server in known}
        self._members = kept | {m.id: m for configuration in configurations for m in configuration.members}

    def expect(self, contact: Contact) -> None:
        """A server is to be added: let it in, so that it can say hello. What was heard from an earlier life is no hello."""
        self._expected[contact.name] = contact
        self._learned.pop(contact.public_key, None)

    def expect_no_more(self, name: str) -> None:
        self._expected.pop(name, None)

    def greeted(self, server: ServerId, key: str) -> None:
        """It said hello under this key."""
        self._learned[key] = server

    # --- what follows -------------------------------------------------------------------------------------------------

    @property
    def configured(self) -> bool:
        return bool(self._members)

    def addresses(self, member: Member) -> tuple[str, str]:
        """Raft and client address under which a member is reached."""
        return self._moved.get(member.name, (member.raft_address, member.client_address))

    def contacts(self) -> dict[str, str]:
        """Key → Raft address of every server to be connected to."""
        found = {m.public_key: self.addresses(m)[0] for m in self._members.values()}
        if not self._members:
            found |= {contact.public_key: contact.raft_address for contact in self._listed.values()}
        found |= {contact.public_key: contact.raft_address for contact in self._expected.values()}
        found.pop(self._me, None)
        return found

    def key_of(self, server: ServerId) -> str | None:
        """The key under which a server is reached."""
        member = self._members.get(server)
        if member is not None:
            return member.public_key
        learned = next((key for key, known in self._learned.items() if known == server), None)
        return learned or (self._by_name(server) if not self._members else None)

    def believes(self, server: ServerId, key: str) -> bool:
        """Whether Raft messages that name this sender may come under this key.

        With a configuration only its members speak; before, every listed server under its listed key.
        """
        return self.key_of(server) == key and (server in self._members or not self._members)

    def believes_hello(self, server: ServerId, key: str) -> bool:
        """Anybody whose key was let in may say who they are, under the name that belongs to the key."""
        names = {contact.name for contact in self._contacts() if contact.public_key == key}
        names |= {m.name for m in self._members.values() if m.public_key == key}
        return server_name(server) in names

    def is_expected(self, key: str) -> bool:
        """Whether this is the key of a server about to be added."""
        return any(contact.public_key == key for contact in self._expected.values())

    def name_of(self, key: str) -> str:
        """For log lines."""
        for contact in self._contacts():
            if contact.public_key == key:
                return contact.name
        return next((m.name for m in self._members.values() if m.public_key == key), key)

    def listed(self) -> Mapping[str, Contact]:
        return self._listed

    def identity_under(self, key: str) -> ServerId | None:
        """Who said hello under this key last."""
        return self._learned.get(key)

    def _contacts(self) -> list[Contact]:
        return [*self._listed.values(), *self._expected.values()]

    def _by_name(self, server: ServerId) -> str | None:
        contact = self._listed.get(server_name(server))
        return contact.public_key if contact else None
