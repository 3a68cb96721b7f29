"""The operator's requests: founding the cluster, membership, leadership, a look at the log, figures.

Changes of membership take more than one step, and the one who asked hears when the last is done: adding waits for the new
server's hello and then for the commit of the entry; removing waits until the server is out; a transfer until another leads.
Every wait ends at the request's deadline, or earlier when leadership goes: then with *outcome unknown*, unless nothing was
proposed yet. At most `_MOST_WAITING` requests wait at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from coordd.config import ADDRESS, NAME
from coordd.errors import (
    BusyError,
    ConfigError,
    ConflictError,
    InvalidError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    RequestError,
)
from coordd.messages import client as wire
from coordd.messages import levels as features
from coordd.raft.events import AddServer, ChangeRequested, MoveServer, RemoveServer
from coordd.raft.output import Accepted, Refusal
from coordd.server.founding import Founding
from coordd.server.levels import Levels
from coordd.server.log_reader import LogReader
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.proposals import refusal_error
from coordd.server.roster import Contact, Roster
from coordd.server.waiting import Answers, Waiter, error_body
from coordd.transport.security import check_key
from coordd.types import Configuration, Member, ServerId

__all__ = ["Operator"]

_MOST_WAITING = 64


@dataclass(slots=True)
class _Adding:
    waiter: Waiter
    contact: Contact
    request: wire.AddServerRequest


@dataclass(slots=True)
class _Until:
    """An answer that waits for a fact."""

    waiter: Waiter
    done: Callable[[], bool]
    answer: Callable[[], wire.ReplyBody]
    lost: Callable[[], bool] = lambda: False
    """It can't be found out any more whether it happened."""


class Operator:
    """Mutable; one per server."""

    def __init__(
        self,
        *,
        node: Node,
        answers: Answers,
        roster: Roster,
        founding: Founding,
        levels: Levels,
        observed: Observed,
        log: LogReader,
        roster_changed: Callable[[], None],
        cluster: Callable[[], tuple[str, str]],
        figures: Callable[[], dict[str, str | int | float | bool]],
    ) -> None:
        """`cluster`: (id, name); `figures`: what the daemon adds to `info`."""
        self._node = node
        self._answers = answers
        self._roster = roster
        self._founding = founding
        self._levels = levels
        self._observed = observed
        self._log = log
        self._roster_changed = roster_changed
        self._cluster = cluster
        self._figures = figures
        self._adding: list[_Adding] = []
        self._until: list[_Until] = []
        self.founding_asked = False
        self._founders: list[Waiter] = []

    # --- requests -----------------------------------------------------------------------------------------------------

    def handle(self, body: wire.Body, waiter: Waiter, now: float) -> wire.ReplyBody | None:
        """Raises: RequestError."""
        waiting = len(self._adding) + len(self._until) + self._log.waiting + len(self._founders)
        if waiting >= _MOST_WAITING:
            raise BusyError("too many requests of operators wait: try again")
        match body:
            case wire.BootstrapRequest():
                self._bootstrap(waiter)
            case wire.AddServerRequest():
                self._add(body, waiter)
            case wire.RemoveServerRequest():
                self._remove(body, waiter, now)
            case wire.MoveServerRequest():
                self._move(body, waiter, now)
            case wire.TransferRequest():
                self._transfer(body, waiter, now)
            case wire.LogRequest():
                self._log.ask(body, waiter)
            case _:
                raise InvalidError("this is no request for a server")
        return None

    def _bootstrap(self, waiter: Waiter) -> None:
        if self._node.configuration is not None:
            raise ConflictError("this server belongs to a cluster already")
        if not self._roster.listed():
            raise ConflictError("this server is to join a cluster, not to found one: its configuration has [join]")
        self.founding_asked = True
        self._founders.append(waiter)

    def founded(self) -> None:
        self._end_founding(wire.Ok(1, "the cluster is founded"))

    def founding_failed(self, error: RequestError) -> None:
        self.founding_asked = False
        self._end_founding(error_body(error))

    def _end_founding(self, body: wire.ReplyBody) -> None:
        for waiter in self._founders:
            self._answers.answer(waiter, body)
        self._founders = []

    def _must_lead(self) -> None:
        if not self._node.leading:
            raise NotLeaderError("this server does not lead", self.leader_address())
        if not self._node.ready:
            raise BusyError("the leader has just been elected and is catching up: try again")

    def _add(self, request: wire.AddServerRequest, waiter: Waiter) -> None:
        self._must_lead()
        _demand_forms(request)
        contact = Contact(request.name, request.raft_address, request.client_address, request.public_key)
        configuration = self._node.configuration
        known = configuration.named(request.name) if configuration else None
        if known is not None and request.replaces not in (known.name, known.id):
            raise ConflictError(f"server {request.name} is a member already; name it with --replaces to replace it")
        owner = (
            next((m for m in configuration.members if m.public_key == request.public_key), None)
            if configuration
            else None
        )
        if owner is not None and request.replaces not in (owner.name, owner.id):
            raise ConflictError(f"that public key belongs to server {owner.name}: make another pair for the new one")
        if any(adding.contact.name == request.name for adding in self._adding):
            raise BusyError(f"server {request.name} is being added already: wait for the end of that")
        self._roster.expect(contact)
        self._roster_changed()
        self._adding.append(_Adding(waiter, contact, request))

    def _remove(self, request: wire.RemoveServerRequest, waiter: Waiter, now: float) -> None:
        self._must_lead()
        server = self._find(request.server)
        self._begin(self._node.change(ChangeRequested(RemoveServer(server), request.force), now))

        def gone() -> bool:
            configuration = self._committed()
            return configuration is not None and configuration.member(server) is None

        self._until.append(_Until(waiter, gone, lambda: wire.Ok(0, f"{server} is removed")))

    def _move(self, request: wire.MoveServerRequest, waiter: Waiter, now: float) -> None:
        self._must_lead()
        server = self._find(request.server)
        members = self._node.configuration.members if self._node.configuration else ()
        (old,) = (member for member in members if member.id == server)
        raft, client = request.raft_address or old.raft_address, request.client_address or old.client_address
        _demand_address("Raft", raft)
        _demand_address("client", client)
        for member in members:
            if member.id != server and {raft, client} & {member.raft_address, member.client_address}:
                raise ConflictError(f"server {member.name} has one of these addresses: nothing was changed")
        self._begin(self._node.change(ChangeRequested(MoveServer(server, raft, client), request.force), now))

        def moved() -> bool:
            configuration = self._committed()
            member = configuration.member(server) if configuration else None
            return member is not None and (member.raft_address, member.client_address) == (raft, client)

        self._until.append(
            _Until(waiter, moved, lambda: wire.Ok(0, f"{server} is at {raft} and {client}"), self._lost())
        )

    def _transfer(self, request: wire.TransferRequest, waiter: Waiter, now: float) -> None:
        self._must_lead()
        target = self._find(request.server) if request.server else None
        if target == self._node.raft.replica.me:
            raise ConflictError(f"server {request.server} leads already")
        chosen = self._node.transfer(target, now)
        if isinstance(chosen, Refusal):
            raise refusal_error(chosen)
        term = self._node.raft.replica.term

        def ended() -> bool:
            replica = self._node.raft.replica
            taken_over = replica.term > term and replica.leader is not None
            return taken_over or (replica.leading is not None and replica.leading.transfer is None)

        def outcome() -> wire.ReplyBody:
            leader = self._node.raft.replica.leader
            if leader == self._node.raft.replica.me:
                return error_body(BusyError("the chosen server did not take over in time: this one leads on"))
            return wire.Ok(0, f"{leader} leads now")

        self._until.append(_Until(waiter, ended, outcome))

    def _begin(self, answer: Accepted | Refusal) -> None:
        if isinstance(answer, Refusal):
            if answer in (Refusal.UNKNOWN_SERVER,):
                raise NotFoundError(answer.value)
            if answer in (Refusal.NOT_LEADER, Refusal.BUSY, Refusal.TRANSFERRING, Refusal.NOT_READY, Refusal.UNHEARD):
                raise refusal_error(answer)
            if answer is Refusal.CHANGE_PENDING:
                raise BusyError(answer.value)
            raise ConflictError(answer.value)

    def _find(self, name: str) -> ServerId:
        configuration = self._node.configuration
        if configuration is not None:
            member = configuration.member(ServerId(name)) or configuration.named(name)
            if member is not None:
                return member.id
        raise NotFoundError(f"no server {name} in the configuration")

    # --- going on -----------------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """About ten times a second: what was waited for may have happened."""
        for adding in list(self._adding):
            try:
                settled = self._go_on_adding(adding, now)
            except RequestError as error:
                self._answers.answer(adding.waiter, error_body(error))
                settled = True
            if settled:
                self._adding.remove(adding)
                self._roster.expect_no_more(adding.contact.name)
                self._roster_changed()
        still = []
        for until in self._until:
            if until.done():
                self._answers.answer(until.waiter, until.answer())
            elif until.lost():
                text = "leadership was lost before the change was known to be committed: look at the list of servers"
                self._answers.answer(until.waiter, error_body(OutcomeUnknownError(text)))
            elif until.waiter.deadline <= now:
                self._answers.answer(until.waiter, error_body(OutcomeUnknownError("not finished in time: it goes on")))
            else:
                still.append(until)
        self._until = still
        late = [waiter for waiter in self._founders if waiter.deadline <= now]
        for waiter in late:
            missing = ", ".join(self._founding.missing(self._roster.listed())) or "nobody"
            text = f"still waiting for the hello of: {missing}; the cluster is founded as soon as it comes"
            self._answers.answer(waiter, error_body(OutcomeUnknownError(text)))
            self._founders.remove(waiter)
        self._log.turn(now)

    def _go_on_adding(self, adding: _Adding, now: float) -> bool:
        """True: over. Raises: RequestError."""
        self._must_lead()
        if adding.waiter.deadline <= now:
            raise ConflictError(
                f"server {adding.contact.name} has not said hello from {adding.contact.raft_address} under that key;"
                " nothing was changed"
            )
        server = self._roster.identity_under(adding.contact.public_key)
        if server is None:
            return False
        self._levels.demand_of_newcomer(adding.contact.public_key)
        request, contact = adding.request, adding.contact
        member = Member(
            server,
            contact.raft_address,
            contact.client_address,
            contact.public_key,
            voter=False,
            promote=not request.learner,
        )
        replaces = self._find(request.replaces) if request.replaces else None
        answer = self._node.change(ChangeRequested(AddServer(member, replaces), request.force), now)
        if answer in (Refusal.CHANGE_PENDING, Refusal.NOT_READY, Refusal.TRANSFERRING, Refusal.UNHEARD):
            return False
        self._begin(answer)
        text = f"{server} is a learner" + ("" if request.learner else " and becomes a voter when caught up")

        def added() -> bool:
            configuration = self._committed()
            return configuration is not None and configuration.member(server) is not None

        self._until.append(_Until(adding.waiter, added, lambda: wire.Ok(0, text), self._lost()))
        return True

    def _lost(self) -> Callable[[], bool]:
        """Whether this leadership is over: asked later."""
        replica = self._node.raft.replica
        term = replica.term
        return lambda: replica.leading is None or replica.term != term

    def _committed(self) -> Configuration | None:
        replica = self._node.raft.replica
        return replica.configuration_at(replica.log.commit)[1]

    # --- what there is ------------------------------------------------------------------------------------------------

    def leader_address(self) -> str:
        """Client address of the server believed to lead; "" if none is."""
        replica = self._node.raft.replica
        configuration = replica.configuration
        if replica.leader is None or configuration is None or replica.leader == replica.me:
            return ""
        member = configuration.member(replica.leader)
        return self._roster.addresses(member)[1] if member else ""

    def servers(self) -> wire.Servers:
        cluster_id, cluster_name = self._cluster()
        replica = self._node.raft.replica
        configuration = replica.configuration
        if configuration is None:
            listed = [
                wire.ServerInfo(ServerId(c.name), c.raft_address, c.client_address, c.public_key, True, False)
                for _, c in sorted(self._roster.listed().items())
            ]
            return wire.Servers("", cluster_name, tuple(listed))
        members = [
            wire.ServerInfo(m.id, *self._roster.addresses(m), m.public_key, m.voter, leader=m.id == replica.leader)
            for m in configuration.members
        ]
        return wire.Servers(cluster_id, cluster_name, tuple(members), replica.configuration_index)

    def info(self, now: float) -> wire.Info:
        node, replica = self._node, self._node.raft.replica
        log = replica.log
        figures: dict[str, str | int | float | bool] = {
            "server": str(replica.me),
            "role": replica.role.value,
            "term": replica.term,
            "leader": replica.leader or "",
            "last_index": log.last,
            "durable_index": log.durable,
            "commit_index": log.commit,
            "applied_index": node.machine.applied,
            "base_index": log.base_index,
            "refilling": replica.refilling,
            "lease": node.raft.lease_valid(now),
            "disk_full": node.disk_full,
            "acl_enabled": node.machine.acl_enabled,
            "feature_level": node.machine.feature_level,
            "feature_level_supported": features.SUPPORTED,
            "state_digest": f"{node.machine.digest:032x}",
        }
        figures |= {name: getattr(self._observed, name) for name in Observed.__slots__}
        figures |= self._log.figures()
        figures |= self._figures()
        return wire.Info(figures, self._peers(now))

    def _peers(self, now: float) -> tuple[wire.PeerInfo, ...]:
        replica = self._node.raft.replica
        configuration, leading = replica.configuration, replica.leading
        rows = []
        for member in configuration.members if configuration else ():
            role = "voter" if member.voter else "learner"
            if configuration and member.id in configuration.leaving:
                role = "leaving"
            if member.id == replica.leader:
                role = "leader"
            progress = leading.peers.get(member.id) if leading else None
            contact = int((now - progress.contact) * 1000) if progress else -1
            match = progress.match if progress else 0
            priority = progress.priority if progress and progress.boot else None
            if leading and member.id == replica.me:
                match, contact, priority = replica.log.durable, 0, replica.settings.priority
            level = self._levels.supported_by(member) or 0
            rows.append(wire.PeerInfo(member.id, role, match, contact, level, priority))
        return tuple(rows)


def _demand_address(what: str, text: str) -> None:
    """Raises: InvalidError."""
    if (fault := ADDRESS.find_fault(text)) is not None:
        raise InvalidError(f"the server's {what} address is {text[:64]!r}, which {fault}: it must be {ADDRESS.text}")


def _demand_forms(request: wire.AddServerRequest) -> None:
    """What every server will use from the configuration must be usable. Raises: InvalidError."""
    if (fault := NAME.find_fault(request.name)) is not None:
        raise InvalidError(f"the new server's name is {request.name[:64]!r}, which {fault}: it must be {NAME.text}")
    _demand_address("Raft", request.raft_address)
    _demand_address("client", request.client_address)
    try:
        check_key(request.public_key)
    except ConfigError as error:
        raise InvalidError(f"the new server's public key: {error}") from error
