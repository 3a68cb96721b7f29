"""Every setting of a server, as data. `config.load(ServerSettings, path)` reads them; configs/server.toml shows all.

Nothing in here may change what a command does to the replicated state: servers with different settings must agree.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path

from coordd.config import ADDRESS, NAME, PUBLIC_KEY, setting, split_address, table

__all__ = [
    "ClientSettings",
    "JoinSettings",
    "LimitSettings",
    "MovedServer",
    "RaftSettings",
    "ServerEntry",
    "ServerSettings",
    "StorageSettings",
]

KIB = 1024
MIB = 1024 * KIB
HEARTBEATS_PER_ELECTION = 3
"""One lost heartbeat, and one that comes late, must not start an election."""


@table
class RaftSettings:
    """[raft]: timing, flow control, and when the log is cut."""

    heartbeat_ms: int = setting("how often a leader says that it leads", default=60, unit="ms", least=10, most=5_000)
    election_ms: int = setting(
        "least base of the election timeout, which is drawn from one to two times that; the same on all servers; to lower"
        " it, keep each server down for the old value before it starts with the new one",
        default=300,
        unit="ms",
        least=50,
        most=60_000,
    )
    election_most_ms: int = setting(
        "what that base may grow to where the network or the disks are measured to be slow",
        default=3_000,
        unit="ms",
        least=50,
        most=60_000,
    )
    priority: int = setting(
        "servers of higher priority lead rather, as soon as they have caught up; none is preferred where it is equal",
        default=100,
        unit="points",
        least=0,
        most=1_000,
    )
    priority_hold_ms: int = setting(
        "for how long a server of higher priority must be healthy and caught up before it is handed leadership",
        default=10_000,
        unit="ms",
        least=100,
        most=3_600_000,
    )
    max_append_bytes: int = setting(
        "entries in one message to a follower", default=256 * KIB, unit="bytes", least=KIB, most=4 * MIB
    )
    max_inflight_messages: int = setting(
        "messages with entries under way to one follower, at most; fewer where more would queue",
        default=64,
        unit="messages",
        least=1,
        most=1_024,
    )
    max_inflight_bytes: int = setting(
        "entries under way to one follower, at most", default=4 * MIB, unit="bytes", least=KIB, most=256 * MIB
    )
    max_uncommitted_bytes: int = setting(
        "writes taken but not yet committed; above it clients are told to try again",
        default=16 * MIB,
        unit="bytes",
        least=2 * MIB,
        most=1024 * MIB,
    )
    memory_tail_bytes: int = setting(
        "newest entries kept in memory", default=32 * MIB, unit="bytes", least=MIB, most=4096 * MIB
    )
    compact_after_entries: int = setting(
        "applied entries behind which the log is cut", default=10_000, unit="entries", least=10, most=10_000_000
    )
    compact_after_bytes: int = setting(
        "size of the log behind which it is cut, if that comes first",
        default=64 * MIB,
        unit="bytes",
        least=64 * KIB,
        most=16_384 * MIB,
    )
    trailing_entries: int = setting(
        "entries that a cut leaves for slow followers", default=5_000, unit="entries", least=0, most=10_000_000
    )
    snapshot_chunk_bytes: int = setting(
        "one piece of a snapshot on its way to a follower", default=512 * KIB, unit="bytes", least=4 * KIB, most=4 * MIB
    )
    snapshot_credits: int = setting(
        "pieces of a snapshot under way at once", default=8, unit="pieces", least=1, most=64
    )
    snapshot_receivers: int = setting(
        "followers that are sent a snapshot at once; others wait", default=2, unit="followers", least=1, most=64
    )
    snapshot_mib_per_s: int = setting(
        "rate at which snapshots are copied, sent and verified beside the daily work",
        default=64,
        unit="MiB/s",
        least=1,
        most=100_000,
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.election_ms < HEARTBEATS_PER_ELECTION * self.heartbeat_ms:
            least = HEARTBEATS_PER_ELECTION * self.heartbeat_ms
            yield (
                "election_ms",
                (
                    f"= {self.election_ms}: must be at least {HEARTBEATS_PER_ELECTION} heartbeats: "
                    f"heartbeat_ms is {self.heartbeat_ms}, so at least {least} ms"
                ),
            )
        if self.election_most_ms < self.election_ms:
            yield (
                "election_most_ms",
                f"= {self.election_most_ms}: must be at least election_ms, which is {self.election_ms}",
            )
        if self.max_inflight_bytes < self.max_append_bytes:
            yield (
                "max_inflight_bytes",
                (f"= {self.max_inflight_bytes}: must be at least max_append_bytes, which is {self.max_append_bytes}"),
            )


@table
class StorageSettings:
    """[storage]: how far files may grow and how far the state may lag the log on disk."""

    wal_limit_bytes: int = setting(
        "size of a write-ahead log at which it is moved into its database",
        default=16 * MIB,
        unit="bytes",
        least=MIB,
        most=1024 * MIB,
    )
    state_checkpoint_ms: int = setting(
        "how often the state is made durable; a restart applies again what came later",
        default=10_000,
        unit="ms",
        least=100,
        most=3_600_000,
    )
    state_checkpoint_entries: int = setting(
        "applied entries after which the state is made durable, if that comes first",
        default=50_000,
        unit="entries",
        least=10,
        most=10_000_000,
    )
    state_cache_mib: int = setting(
        "pages of the state kept in memory; what fits is read from the disk, and verified, only once",
        default=256,
        unit="MiB",
        least=8,
        most=65_536,
    )
    scrub_interval_s: int = setting(
        "how often the state's file is read again, to find bytes that have changed by themselves",
        default=60,
        unit="s",
        least=1,
        most=86_400,
    )
    compare_every_entries: int = setting(
        "how often the servers compare their states; the same on all of them",
        default=4_096,
        unit="entries",
        least=16,
        most=1_000_000,
    )


@table
class ClientSettings:
    """[clients]: how long the cluster waits for those who have gone silent."""

    expiry_s: int = setting(
        "silence after which a client's numbered writes are forgotten", default=3_600, unit="s", least=10, most=604_800
    )
    beat_interval_ms: int = setting(
        "how often an agent says that its node lives; grows by itself with the number of nodes",
        default=1_000,
        unit="ms",
        least=100,
        most=60_000,
    )
    beat_timeout_ms: int = setting(
        "silence after which a node's check serfHealth turns critical",
        default=5_000,
        unit="ms",
        least=500,
        most=600_000,
    )
    reap_after_s: int = setting(
        "silence after which a node is removed from the catalog", default=259_200, unit="s", least=60, most=31_536_000
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.beat_timeout_ms < 2 * self.beat_interval_ms:
            yield (
                "beat_timeout_ms",
                (
                    f"= {self.beat_timeout_ms}: must be at least two beats: "
                    f"beat_interval_ms is {self.beat_interval_ms}, so at least {2 * self.beat_interval_ms} ms"
                ),
            )


@table
class LimitSettings:
    """[limits]: above each, clients are told to try again, or the request is refused."""

    pending_writes: int = setting(
        "writes that wait for their commit", default=16_384, unit="writes", least=16, most=1_000_000
    )
    pending_reads: int = setting(
        "reads that wait for their index", default=16_384, unit="reads", least=16, most=1_000_000
    )
    watches: int = setting(
        "blocking reads and subscriptions of all clients", default=16_384, unit="watches", least=16, most=1_000_000
    )
    watch_wait_ms: int = setting(
        "longest wait of a blocking read", default=600_000, unit="ms", least=1_000, most=3_600_000
    )
    watch_idle_ms: int = setting(
        "silence of a client after which its subscriptions end", default=30_000, unit="ms", least=25_000, most=3_600_000
    )


@table
class ServerEntry:
    """[[servers]]: one server of the first configuration."""

    name: str = setting("the server's name", form=NAME)
    raft_address: str = setting("where it talks to other servers", form=ADDRESS)
    client_address: str = setting("where it talks to clients", form=ADDRESS)
    public_key: str = setting("public half of its key pair", form=PUBLIC_KEY)


@table
class JoinSettings:
    """[join]: any member of the cluster that this server is to join."""

    address: str = setting("the member's client address", form=ADDRESS)
    public_key: str = setting("the member's public key", form=PUBLIC_KEY)


@table
class MovedServer:
    """[[moved]]: where a member is reached while the cluster's configuration still has addresses that are gone."""

    name: str = setting("the member's name", form=NAME)
    raft_address: str = setting("where other servers reach it now", form=ADDRESS)
    client_address: str = setting("where clients reach it now", form=ADDRESS)


@table
class ServerSettings:
    """The whole file."""

    name: str = setting("this server's name in the cluster", form=NAME)
    cluster_name: str = setting("the cluster's name, the same on all servers", form=NAME)
    data_dir: Path = setting("folder for log, state and identity, this server's alone")
    key_file: Path = setting("file with this server's key pair, from `coordctl keys generate`")
    raft_address: str = setting("where to listen for other servers", form=ADDRESS)
    raft_advertise: str = setting(
        "where other servers reach raft_address, if it is 0.0.0.0 or behind a translation", default="", form=ADDRESS
    )
    client_address: str = setting("where to listen for agents and clients", form=ADDRESS)
    client_advertise: str = setting(
        "where clients reach client_address, if it is 0.0.0.0 or behind a translation", default="", form=ADDRESS
    )
    bootstrap: bool = setting(
        "found the cluster at the first start, instead of by `coordctl operator raft bootstrap`; on one server only",
        default=False,
    )
    log_format: str = setting("how log lines look", default="text", choices=("text", "json"))
    log_level: str = setting(
        "the least important lines to log", default="info", choices=("debug", "info", "warning", "error")
    )
    raft: RaftSettings = setting("timing and flow of consensus", default=RaftSettings())
    storage: StorageSettings = setting("files", default=StorageSettings())
    clients: ClientSettings = setting("silence of clients and nodes", default=ClientSettings())
    limits: LimitSettings = setting("limits", default=LimitSettings())
    servers: tuple[ServerEntry, ...] = setting(
        "the servers that found the cluster, this one among them, in the same words on each", default=()
    )
    join: JoinSettings | None = setting("the cluster to join, in place of [[servers]]", default=None)
    moved: tuple[MovedServer, ...] = setting("members that are reached elsewhere than the cluster knows", default=())

    @property
    def raft_advertised(self) -> str:
        """The address under which other servers know this one."""
        return self.raft_advertise or self.raft_address

    @property
    def client_advertised(self) -> str:
        """The address under which clients know this server."""
        return self.client_advertise or self.client_address

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from _unreachable("raft_advertise", self.raft_advertised)
        yield from _unreachable("client_advertise", self.client_advertised)
        if self.raft_address == self.client_address:
            yield "client_address", f"= {self.client_address!r}: must differ from raft_address"
        if self.join is not None and self.servers:
            yield "join", "can't stand beside [[servers]]: a server either founds a cluster or joins one"
        if self.join is not None and self.bootstrap:
            yield "bootstrap", "= True: must be false beside [join]: a server either founds a cluster or joins one"
        if self.join is None and not self.servers:
            yield "servers", "is missing: list the servers that found the cluster in [[servers]], or name one in [join]"
        yield from _repeated("moved", "name", (entry.name for entry in self.moved))
        if self.servers:
            yield from self._own_entry_conflicts()
            for field in ("name", "raft_address", "client_address", "public_key"):
                yield from _repeated("servers", field, (getattr(entry, field) for entry in self.servers))

    def _own_entry_conflicts(self) -> Iterator[tuple[str, str]]:
        number, own = next(((n, entry) for n, entry in enumerate(self.servers) if entry.name == self.name), (0, None))
        if own is None:
            names = ", ".join(entry.name for entry in self.servers)
            yield "servers", f"has no entry for this server, whose name is {self.name!r}; it has {names}"
            return
        for field, advertised in (("raft_address", self.raft_advertised), ("client_address", self.client_advertised)):
            if (listed := getattr(own, field)) != advertised:
                yield (
                    f"servers[{number}].{field}",
                    (f"= {listed!r}: must be what this server itself advertises, which is {advertised!r}"),
                )


def _unreachable(key: str, advertised: str) -> Iterator[tuple[str, str]]:
    host, _ = split_address(advertised)
    if ipaddress.ip_address(host).is_unspecified:
        yield key, f"is missing: {advertised} means every address of this host; name the one that others reach"


def _repeated(table: str, field: str, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, int] = {}
    for number, value in enumerate(values):
        if value in seen:
            yield f"{table}[{number}].{field}", f"= {value!r}: must differ from that of {table}[{seen[value]}]"
        seen.setdefault(value, number)
