"""The agent: all its parts on one loop, owned by one task group.

`Agent(settings)` takes what can fail at start (folder, sockets, files) and raises ConfigError, StorageError or
InUseError; `run(stop)` serves until `stop` is set. `reload` reads token and service files again.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine, Mapping

from coordd.client.aio import AsyncClient
from coordd.errors import ConfigError, CoorddError, InvalidError
from coordd.messages.client import Info, Ok, ReadResult, ReplyBody, Servers, ServersRequest
from coordd.messages.local import (
    CheckSpec,
    DeregisterService,
    ListLocalChecks,
    ListLocalServices,
    LocalBody,
    RegisterService,
    UpdateTtlCheck,
)
from coordd.messages.query import Catalog, CatalogEntry, CheckInfo, Checks, NodeInfo, Query, ServiceInfo
from coordd_agent import info
from coordd_agent.beats import Beats
from coordd_agent.cache import Cache
from coordd_agent.cluster import Backoff
from coordd_agent.dns.resolver import Resolver
from coordd_agent.dns.server import DnsServer, bind
from coordd_agent.keeper import Keeper
from coordd_agent.local import LocalSocket
from coordd_agent.registry import LocalService, Registry, catalog_check
from coordd_agent.relay import Relay
from coordd_agent.rights import Rights, read_token
from coordd_agent.runner import CheckRunner
from coordd_agent.services_files import read_services
from coordd_agent.settings import AgentSettings
from coordd_agent.sync import LocalNode
from coordd_agent.syncer import Syncer

__all__ = ["Agent"]

log = logging.getLogger(__name__)

LIST_SERVERS_S = 30.0
SWEEP_S = 30.0
PUSH_SHARE = 0.8
"""Of the caller's time that a push to the catalog may take: the answer must still get back."""


class _StopError(Exception):
    """Ends the task group from inside."""


class Agent:
    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._started_at = time.monotonic()
        self._tasks: asyncio.TaskGroup | None = None
        self._dns: DnsServer | None = None
        token = read_token(settings.token_file)
        files = read_services(settings.services_dir)
        self._dns_sockets = bind(settings.dns.address)
        self._keeper = Keeper(settings.data_dir)
        self._registry = Registry(self._registry_changed)
        self._node = LocalNode(
            settings.node or socket.gethostname(),
            settings.address,
            self._keeper.node_id(),
            settings.meta,
            settings.tagged_addresses,
        )
        given = {one.address: one.public_key for one in settings.servers}
        self._client = AsyncClient(
            (dict(self._keeper.servers()) | given).items(),
            token=token,
            name=f"agent {self._node.name}",
            on_servers=self._servers_learned,
        )
        self._rights = Rights(self._client, on_answer=lambda: self._cache.renew())
        self._syncer = Syncer(self._node, self._registry, self._client, settings.sync)
        self._cache = Cache(
            self._client, settings.cache, self._start, on_change=self._view_changed, trusted=self._rights.trusted
        )
        self._beats = Beats(
            self._node.name,
            self._client,
            on_taken=self._cache.contact,
            on_unknown=self._syncer.look_again,
            on_denied=self._rights.ask_again,
        )
        self._resolver = Resolver(self._cache, settings.dns)
        self._runner = CheckRunner(self._registry, settings.checks.allow_link_local, self._start)
        self._registry.restore(self._keeper.registrations, self._keeper.reports, time.time())
        self._load(files)
        relay = Relay(self._client, self._start)
        settings.local_socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._local = LocalSocket(settings.local_socket, self, relay, self._start)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`. Any task's failure ends all."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._serve(stop)
        except* _StopError:
            pass
        finally:
            self._local.close()
            self._client.close()
            self._keeper.close()

    def reload(self) -> None:
        """SIGHUP: read token and service files again; what is wrong is said, and stays as it was."""
        try:
            token = read_token(self._settings.token_file)
            files = read_services(self._settings.services_dir)
            self._load(files)
        except CoorddError as error:
            log.error("not reloaded: %s", error)
            return
        if token != self._client.token:
            self._client.token = token
            self._rights.ask_again()
        self._syncer.look_again()
        log.info("reloaded", extra={"facts": {"services": len(self._registry.services)}})

    # --- what the local socket asks for -------------------------------------------------------------------------------

    async def answer(self, body: LocalBody, budget_s: float) -> ReplyBody:
        """Raises: RequestError, StorageError."""
        match body:
            case RegisterService(service=service, checks=checks):
                self._registry.register(service, checks)
                await self._keeper.save_registrations(self._registry.saved_registrations)
            case DeregisterService(service_id=service_id):
                self._registry.deregister(service_id)
                await self._keeper.save_registrations(self._registry.saved_registrations)
            case UpdateTtlCheck(check_id=check_id, status=status, output=output):
                self._registry.report_ttl(check_id, status, output, time.time())
                self._runner.renew(check_id)
                self._keeper.save_reports_soon()
            case ListLocalServices():
                return ReadResult(1, Catalog((self._entry(),)))
            case ListLocalChecks(service_id=service_id):
                found = self._checks()
                return ReadResult(1, Checks(tuple(c for c in found if service_id in ("", c.check.service_id))))
        pushed = await self._syncer.push(budget_s * PUSH_SHARE)
        return Ok(pushed.index, pushed.problem)

    def info(self) -> Info:
        now = time.monotonic()
        counters = self._resolver.counters
        ages = self._cache.ages()
        statuses = [state.status for state in self._registry.checks.values()]
        figures: dict[str, str | int | float | bool] = {
            "kind": "agent",
            "node": self._node.name,
            "datacenter": self._settings.dns.datacenter,
            "dns_address": self._dns.address if self._dns else "",
            "dns_domain": self._settings.dns.domain,
            "servers_connected": bool(self._client.connected),
            "servers_contact_ms": _since(self._beats.taken_at, now),
            "token": self._token_state(),
            "services": len(self._registry.services),
            "checks": len(statuses),
            "checks_critical": statuses.count("critical"),
            "unsynced": self._syncer.unsynced,
            "last_sync_ms": _since(self._syncer.synced_at, now),
            "problem": self._syncer.problem,
            "cache_entries": len(self._cache),
            "cache_bytes": self._cache.bytes,
            "cache_oldest_ms": int(max(ages.values(), default=0.0) * 1000),
            "dns_queries": counters.packed + counters.built + counters.unreadable,
            "dns_packed_hits": counters.packed,
            "dns_built": counters.built,
            "dns_nxdomain": counters.nxdomain,
            "dns_servfail": counters.servfail,
            "dns_dropped": counters.dropped,
            "dns_failed": counters.failed,
            "dns_tcp_connections": self._dns.tcp_connections if self._dns else 0,
            "packed_entries": len(self._resolver.udp) + len(self._resolver.tcp),
            "packed_bytes": self._resolver.udp.bytes + self._resolver.tcp.bytes,
            "memory_bytes": info.memory_bytes(),
            "uptime_ms": int((now - self._started_at) * 1000),
        }
        if self._rights.acl_enabled is not None:
            figures["acl_enabled"] = self._rights.acl_enabled
        return Info(figures | dict(info.view_ages(ages)))

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _serve(self, stop: asyncio.Event) -> None:
        for forever in (
            self._keeper.run(self._registry.saved_reports),
            self._beats.run(),
            self._rights.run(),
            self._syncer.run(),
            self._list_servers(),
            self._sweep(),
            self._local.run(),
        ):
            self._start(forever)
        self._runner.follow(time.time())
        async with DnsServer(self._resolver, self._settings.dns, self._dns_sockets, self._start) as dns:
            self._dns = dns
            facts = {"node": self._node.name, "dns": dns.address, "socket": str(self._settings.local_socket)}
            log.info("ready", extra={"facts": facts})
            await stop.wait()
            log.info("stopping")
            await self._runner.close()
        raise _StopError

    def _start(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        if self._tasks is None:
            work.close()
            raise RuntimeError("the agent does not run")
        return self._tasks.create_task(work)

    def _token_state(self) -> str:
        # A valid token may be too narrow for something: then `problem` says for what.
        refused = self._syncer.denied or self._cache.denied
        return "denied" if refused and not self._rights.trusted() else self._rights.state

    async def _list_servers(self) -> None:
        """Follow the cluster's servers by name: DNS names them in NS records."""
        backoff = Backoff(0.5, LIST_SERVERS_S)
        while True:
            try:
                reply = await self._client.request(ServersRequest())
            except CoorddError:
                await asyncio.sleep(backoff.pause())
                continue
            backoff.reset()
            if isinstance(reply, Servers) and reply.servers != self._cache.server_list:
                self._cache.server_list = reply.servers
                self._resolver.servers_changed()
            await asyncio.sleep(LIST_SERVERS_S)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._cache.sweep(self._resolver.used_queries())

    def _load(self, files: tuple[list[LocalService], list[CheckSpec]]) -> None:
        try:
            self._registry.load_files(*files)
        except InvalidError as error:
            raise ConfigError(f"services_dir {self._settings.services_dir}: {error}") from error

    def _registry_changed(self, checks: frozenset[str]) -> None:
        self._syncer.changed()
        if not checks and self._tasks is not None:
            self._runner.follow(time.time())

    def _view_changed(self, query: Query) -> None:
        self._resolver.view_changed(query)

    def _servers_learned(self, servers: Mapping[str, str]) -> None:
        if self._tasks is not None:
            self._start(self._keeper.save_servers(servers))

    def _entry(self) -> CatalogEntry:
        node = self._node
        described = NodeInfo(node.name, node.address, node.node_id, node.meta, node.tagged_addresses, 0, 0)
        services = sorted(self._registry.services.items())
        return CatalogEntry(
            described, tuple(ServiceInfo(node.name, one.definition, 0, 0) for _, one in services), self._checks()
        )

    def _checks(self) -> tuple[CheckInfo, ...]:
        found = []
        for check_id, state in sorted(self._registry.checks.items()):
            service = self._registry.services.get(state.service_id)
            name, tags = (service.definition.name, service.definition.tags) if service else ("", ())
            found.append(CheckInfo(self._node.name, catalog_check(check_id, state), name, tags, 0, 0))
        return tuple(found)


def _since(at: float | None, now: float) -> int:
    return -1 if at is None else int((now - at) * 1000)
