"""Which servers there are, which are reachable, and whom to ask. Pure.

Servers are known by their client address. The list that a server gives is believed because its key was pinned, or
vouched for by one that was. The addresses given at the start stay in reserve: they are used until a listed server is
up, and again when none is, since a client behind a forwarded port may reach only those.
"""

import random
from collections.abc import Mapping

from coordd.messages.client import Servers

__all__ = ["MAX_SERVERS", "ServerList"]

MAX_SERVERS = 32
"""More than a cluster ever has, with some that were replaced."""

_SUSPICION_SECONDS = 5.0


class ServerList:
    """`seeds`: address → public key ("" for an agent's path)."""

    def __init__(self, seeds: Mapping[str, str], rng: random.Random) -> None:
        self._seeds = dict(seeds)
        self._listed: dict[str, str] = {}
        self._list_index = -1
        self._rng = rng
        self._up: set[str] = set()
        self._suspect: dict[str, float] = {}
        self._rejecting: set[str] = set()
        self._home = ""
        self.cluster_id = ""
        self.leader = ""
        """Address of the server believed to lead, or ""."""

    @property
    def agent(self) -> bool:
        """Whether it is an agent's path, which has no key, in place of servers."""
        return "" in self._seeds.values()

    @property
    def targets(self) -> Mapping[str, str]:
        """Servers to be connected to: address → public key."""
        if not self._listed:
            return self._seeds
        return self._listed if self._up & self._listed.keys() else {**self._seeds, **self._listed}

    @property
    def known(self) -> Mapping[str, str]:
        """What is worth remembering for the next start."""
        return self._listed or self._seeds

    @property
    def up(self) -> frozenset[str]:
        return frozenset(self._up)

    def connected(self, address: str) -> None:
        self._up.add(address)
        self._suspect.pop(address, None)
        self._rejecting.discard(address)

    def lost(self, address: str) -> None:
        self._up.discard(address)
        self._forget(address)

    def rejected(self, address: str) -> None:
        """Somebody there does not hold the key that we know."""
        self._rejecting.add(address)

    @property
    def rejecting(self) -> list[str]:
        """Those of the targets whose keys may be wrong; an agent has none."""
        return [address for address, key in self.targets.items() if key and address in self._rejecting]

    def suspect(self, address: str, now: float) -> None:
        """It did not answer in time: ask others first for a while."""
        self._suspect[address] = now + _SUSPICION_SECONDS
        self._forget(address)

    def follow(self, servers: Servers) -> None:
        """Take over the list of a trusted server, unless it is of another cluster, empty or older than the one we
        have."""
        if self.cluster_id and servers.cluster_id != self.cluster_id:
            return
        if not servers.servers or servers.index < self._list_index:
            return
        self.cluster_id, self._list_index = servers.cluster_id, servers.index
        self._listed = {each.client_address: each.public_key for each in servers.servers[:MAX_SERVERS]}
        self._up &= self.targets.keys()
        if not self.leader:
            self.leader = next((each.client_address for each in servers.servers if each.leader), "")
        for gone in {self.leader, self._home} - self.targets.keys():
            self._forget(gone)

    def choose(self, now: float, *, leading: bool, avoid: str = "") -> str | None:
        """A server that is up, or None: the leader if it is wanted and known, else one to stay with; `avoid` last."""
        if leading and self.leader in self._up and self.leader != avoid:
            return self.leader
        if leading:
            return self._pick(now, avoid)
        if self._home not in self._up or self._home == avoid:
            self._home = self._pick(now, avoid) or ""
        return self._home or None

    def _pick(self, now: float, avoid: str) -> str | None:
        usable = sorted(self._up & self.targets.keys())
        trusted = [address for address in usable if address != avoid and self._suspect.get(address, 0.0) <= now]
        others = [address for address in usable if address != avoid]
        candidates = trusted or others or usable
        return self._rng.choice(candidates) if candidates else None

    def _forget(self, address: str) -> None:
        if self.leader == address:
            self.leader = ""
        if self._home == address:
            self._home = ""
