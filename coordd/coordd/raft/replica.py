"""This server's Raft state, and the few things that every part of the core does with it.

`core.Raft` routes events to the modules named after the parts of the algorithm; each of them is functions over this one
object, so that the state of the algorithm stands in one place, field by field with its rule.
"""

from dataclasses import dataclass, field
from typing import Protocol

from coordd.errors import invariant
from coordd.messages.peer import RaftMessage
from coordd.raft.freshness import Freshness
from coordd.raft.log import RaftLog
from coordd.raft.output import Fact, Output, ReadReady, Role
from coordd.raft.progress import Progress
from coordd.raft.quorum import Halves, halves_of
from coordd.raft.settings import RaftSettings
from coordd.raft.timing import Timing
from coordd.types import Configuration, HardState, Index, LogSlice, LogWrite, ServerId, Term

__all__ = ["Leadership", "PendingRead", "Replica", "Rng", "Transfer"]

_MOST_RANKS = 2


class Rng(Protocol):
    """The only source of chance: seeded in tests (random.Random satisfies it)."""

    def random(self) -> float:
        """A number in [0, 1)."""


@dataclass(slots=True)
class PendingRead:
    """A linearizable read at the leader (thesis 6.4)."""

    read: int
    """The asker's number."""
    asker: ServerId | None
    """A follower that forwarded it; None: asked here."""
    index: Index = 0
    """The commit index when it was accepted; 0 while the leader has not yet committed in its term."""
    round: int = 0
    """The heartbeat round that must be confirmed: begun after the read was accepted (rule 54). 0: not yet begun."""


@dataclass(slots=True)
class Transfer:
    """Leadership on its way to another server (thesis 3.10). It ends by stepping down, or at the deadline (rule 89)."""

    target: ServerId
    deadline: float
    told: bool = False
    """TimeoutNow was sent."""


@dataclass(slots=True)
class Leadership:
    """What only a leader has. It is born and dies with the role, so nothing of it can outlive a term (rules 57, 89)."""

    term_start: Index
    """Index of the no-op: once committed, everything before is (rule 49)."""
    peers: dict[ServerId, Progress] = field(default_factory=dict)
    """Every other member, and servers just removed."""
    heartbeat_due: float = 0.0
    housekeeping_due: float = 0.0
    """The deadline of everything else a leader does now and then. Apart, since each round for a read moves the other on."""
    round: int = 0
    """The newest heartbeat round: strictly rising, made here, never by a client (rule 55)."""
    round_sent: dict[int, float] = field(default_factory=dict)
    """When each round not yet superseded by a confirmed one was sent."""
    confirmed_round: int = 0
    confirmed_at: float = float("-inf")
    """When that round was sent: at that time surely nobody else led."""
    reads: list[PendingRead] = field(default_factory=list)
    """In the order in which they were accepted; so their rounds never fall."""
    lease_until: float = 0.0
    lease_forfeited: bool = False
    """TimeoutNow was sent in this term. It may arrive late and overrides stickiness, so no lease is safe any more (58)."""
    uncommitted_bytes: int = 0
    committed_before: Index = 0
    """The commit index of an interval ago."""
    handover_after: float = float("-inf")
    """No attempt to hand over to a server of higher priority before."""
    transfer: Transfer | None = None


class Replica:
    """Mutable; owned by `core.Raft`. Invariants: `leading` exists exactly while the role is LEADER; then leader is me."""

    def __init__(self, settings: RaftSettings, rng: Rng) -> None:
        self.settings = settings
        self.rng = rng
        self.out = Output()
        """The step being made."""

        # Identity
        self.me = ServerId("")
        self.boot = 0

        # Persistent (thesis figure 3.1): changed in memory first, and vouched for by no message until durable
        self.term: Term = 0
        self.vote: ServerId | None = None
        self.log = RaftLog(LogSlice(1, [], ()), 0, 0, 0)
        self.saved = HardState()
        """Term and vote as last handed to the writer."""
        self.sequence = 0
        """Number of the last write handed over."""
        self.persisted = 0
        """Number of the last write known to be durable."""

        # Configurations: (index, configuration) of the base, if it has one, and of each such entry behind it
        self.configurations: list[tuple[Index, Configuration]] = []
        self.halves: Halves = ()
        """Voter sets of the latest configuration, which is in effect from the moment of its append."""

        self._begin()

    def _begin(self) -> None:
        """What is volatile in the algorithm: a restart begins with this."""
        self.role = Role.FOLLOWER
        self.leader: ServerId | None = None
        self.leader_contact = float("-inf")
        """When a leader was last heard, and which one: it was promised that nobody else gets a vote for T from then on."""
        self.last_leader: ServerId | None = None
        self.rank = 0
        """How many steps of priority that leader saw before this server (`priority.py`)."""
        self.freshness = Freshness()
        self.timing = Timing(
            self.settings.election_timeout, self.settings.max_election_timeout, self.settings.heartbeat_interval
        )
        self.election_due = float("inf")
        self.deaf_until = float("-inf")
        """A restarted server gives no vote for one election timeout: it may have promised a leader its lease (rule 61)."""
        self.asked_at = float("inf")
        """When this life last asked for votes in earnest."""
        self.votes: dict[ServerId, bool] = {}
        self.transfer_campaign = False
        """This campaign was ordered by the leader: votes are asked for although a leader is known (rule 88)."""
        self.promised: Index = 0
        """Entries up to here were acknowledged before this start; a shorter log must be refilled first (rule 111)."""
        self.install_for: tuple[ServerId, int] | None = None
        """(leader, session) to be told when the snapshot is installed."""
        self.installing = False
        """A snapshot is replacing log and state: appends are not taken and no campaign begins meanwhile (rules 28, 80)."""
        self.stateless = False
        """The state was found damaged: votes and log are as good as ever, but a leader must answer."""
        self.stalled = False
        """The disk hangs: a leader must fall silent (rule 99)."""
        self.leading: Leadership | None = None
        self.sessions = 0
        """Number of the last replication session begun."""
        self.forwarded: dict[int, tuple[int, float]] = {}
        """Reads sent on to the leader, in that order: number of the request → (the asker's number, when)."""
        self.forwarded_number = 0
        """Of the last request. Begins with the boot id: an answer meant for an earlier life must match none of this one."""
        self.reported_configuration: Index = 0
        """Index of the configuration that was last known to be committed."""
        self.reported: Index = 0  # what `Output.committed` said last
        self.recount = False
        """Something that decides the commit index has changed."""

    # --- what is read off ---------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration | None:
        """The latest configuration: in effect, committed or not."""
        return self.configurations[-1][1] if self.configurations else None

    @property
    def configuration_index(self) -> Index:
        return self.configurations[-1][0] if self.configurations else 0

    @property
    def election_timeout(self) -> float:
        """The present one (`timing.py`). What leases rest on is the floor, in the settings."""
        return self.timing.election_timeout

    @property
    def refilling(self) -> bool:
        return self.log.durable < self.promised

    def refilled(self) -> None:
        """Whole again once the forgotten entries are back on disk; what a leader replaces later was not forgotten."""
        if self.log.durable >= self.promised:
            self.promised = 0

    @property
    def is_voter(self) -> bool:
        return any(self.me in half for half in self.halves)

    def healthy_voters(self, leading: Leadership, now: float) -> list[Progress]:
        """The other voters, of both halves of a joint configuration, that were heard and lack neither entries nor a state."""
        return [
            progress
            for peer, progress in leading.peers.items()
            if all(peer in half for half in self.halves)
            and now - progress.contact < self.election_timeout
            and not progress.refilling
            and not progress.stateless
        ]

    def configuration_at(self, index: Index) -> tuple[Index, Configuration | None]:
        """The configuration in force at an index, with the index of its own entry."""
        for at, configuration in reversed(self.configurations):
            if at <= index:
                return at, configuration
        return 0, None

    # --- what every part does -----------------------------------------------------------------------------------------

    def send(self, message: RaftMessage) -> None:
        self.out.messages_now.append(message)

    def send_after_persist(self, message: RaftMessage) -> None:
        self.out.messages_after_persist.append(message)

    def fact(self, name: str, **values: object) -> None:
        self.out.facts.append(Fact(name, {"term": self.term, **values}))

    def reset_election(self, now: float, rank: int = 0) -> None:
        """Draw from [T, 2T): strictly above the time for which others are deaf, or fail-over could starve (rule 16). Later
        by up to two T for those before whom others are preferred."""
        base = self.election_timeout
        self.election_due = now + base * (1.0 + self.rng.random() + min(rank, _MOST_RANKS))

    def follow(self, term: Term, leader: ServerId | None, now: float) -> None:
        """Become a follower, or stay one: of `leader`, or of nobody known (rule 31)."""
        invariant(term >= self.term, "term would fall", term=self.term, new=term)
        if term > self.term:
            self.term, self.vote = term, None
        if self.role is not Role.FOLLOWER:
            self.reset_election(now)
        self._drop_leadership()
        if leader != self.leader:
            self.rank = 0
            self._drop_forwarded_reads()
        self.role, self.leader = Role.FOLLOWER, leader
        self.votes = {}
        self.transfer_campaign = False
        self.out.leadership_changed = True
        self.fact("follow", leader=leader)

    def hear_leader(self, leader: ServerId, now: float, rank: int | None = None) -> None:
        """A valid message of the current term's leader: besides a granted vote, all that resets the timer (rule 17)."""
        invariant(self.role is not Role.LEADER, "two leaders in one term", term=self.term, other=leader)
        if self.leader != leader or self.role is not Role.FOLLOWER:
            self.follow(self.term, leader, now)
        self.rank = self.rank if rank is None else rank
        self.leader_contact, self.last_leader = now, leader
        self.reset_election(now, self.rank)

    def change_role(self, role: Role, leader: ServerId | None) -> None:
        """The ways up: pre-candidate, candidate, leader. The known leader goes first (rules 20, 31)."""
        self.role, self.leader = role, leader
        self.votes = {}
        self._drop_forwarded_reads()
        self.out.leadership_changed = True
        self.fact(role.value)

    def _drop_leadership(self) -> None:
        """Reads that were waiting must be asked again; snapshots on their way are nobody's business any more (rule 57)."""
        if self.leading is None:
            return
        self.out.reads_ready += [ReadReady(read.read, None) for read in self.leading.reads if read.asker is None]
        self.out.stop_snapshot += list(self.leading.peers)
        self.leading = None

    def _drop_forwarded_reads(self) -> None:
        self.out.reads_ready += [ReadReady(read, None) for read, _ in self.forwarded.values()]
        self.forwarded = {}

    # --- configurations -----------------------------------------------------------------------------------------------

    def push_configuration(self, index: Index, configuration: Configuration) -> None:
        """A configuration entry was appended: it is in effect now (thesis 4.1)."""
        self.configurations.append((index, configuration))
        self.configurations_moved()

    def drop_configurations_from(self, index: Index) -> None:
        """Entries from `index` on were replaced: the configuration before them is in effect again (rule 66)."""
        if self.configuration_index >= index > 0:
            self.configurations = [pair for pair in self.configurations if pair[0] < index]
            self.configurations_moved()

    def configurations_moved(self) -> None:
        configuration = self.configuration
        self.halves = halves_of(configuration) if configuration else ()
        self.out.configuration_changed = True
        self.recount = True

    # --- the end of a step --------------------------------------------------------------------------------------------

    def write_out(self, now: float) -> None:
        """Hand over what changed. A commit index alone waits for the next write: losing it is safe (rule 5)."""
        hard_state = HardState(self.term, self.vote, self.log.commit)
        moved = (hard_state.term, hard_state.vote) != (self.saved.term, self.saved.vote)
        if not moved and self.log.unsaved is None:
            return
        self.sequence += 1
        self.timing.handed_over(self.sequence, now)
        self.saved = hard_state
        self.out.write = LogWrite(self.sequence, hard_state, self.log.take_unsaved(self.sequence), True)

    def report_committed(self) -> None:
        """Apply never outruns the own disk (rule 50). A committed configuration ends what was before it."""
        at, _ = self.configuration_at(self.log.commit)
        if at != self.reported_configuration:
            self.reported_configuration = at
            self.out.configuration_changed = True
        ready = min(self.log.commit, self.log.durable)
        if ready > self.reported:
            self.reported = self.out.committed = ready
