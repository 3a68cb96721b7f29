"""Keeping the state right and durable: checkpoints, scrubbing, and the comparison of digests with the other servers.

Put together here, so that the daemon has one thing to turn. At every index that is a multiple of `compare_every_entries` each
server tells the others its state's digest; whoever finds a majority against itself, or its file damaged, takes itself out.
"""

from collections.abc import Callable

from coordd.log_output import Log
from coordd.messages.peer import StateDigest
from coordd.raft.quorum import has_quorum
from coordd.server.comparison import Comparison, Verdict
from coordd.server.helper import Helper
from coordd.server.node import Node
from coordd.server.observed import Observed
from coordd.server.ports import AppliedBatch
from coordd.server.scrubbing import Scrubbing
from coordd.server.settings import ServerSettings
from coordd.server.upkeep import Upkeep
from coordd.state.schema import SCHEMA_VERSION
from coordd.storage.snapshot_store import SnapshotStore
from coordd.types import Index, ServerId

__all__ = ["StateCare"]

_KIND = f"rows-{SCHEMA_VERSION}"
_DIGEST_BYTES = 16


class StateCare:
    """Mutable; one per server, made before its node starts: the core does not know yet who it is."""

    def __init__(
        self,
        *,
        me: ServerId,
        node: Node,
        helper: Helper,
        store: SnapshotStore,
        settings: ServerSettings,
        snapshots_busy: Callable[[], bool],
        send: Callable[[StateDigest], bool],
        observed: Observed,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._me = me
        self._node = node
        self._send = send
        self._observed = observed
        self._log = log
        self._every = settings.storage.compare_every_entries
        self._state_file = node.state_file
        replica = node.raft.replica
        self._comparison = Comparison(me, lambda holds: has_quorum(replica.halves, holds))
        self._upkeep = Upkeep(
            node=node,
            helper=helper,
            store=store,
            raft=settings.raft,
            storage=settings.storage,
            snapshots_busy=snapshots_busy,
            report=self._report,
            clock=clock,
        )
        self.scrubbing = Scrubbing(
            node=node,
            helper=helper,
            path=store.path,
            interval=settings.storage.scrub_interval_s,
            report=self._report,
            clock=clock,
        )

    @property
    def next_at(self) -> float:
        """`turn` has something to do then."""
        return self.scrubbing.next_at

    @property
    def checkpoints(self) -> int:
        return self._upkeep.checkpoints

    def entries_at_once(self, most: int) -> int:
        """A batch ends where digests are compared."""
        return min(most, self._every - self._node.machine.applied % self._every)

    def applied(self, batch: AppliedBatch, now: float) -> None:
        self._upkeep.applied(batch.size)
        index = self._node.machine.applied
        if index % self._every == 0:
            self._compare(index, now)

    def turn(self, now: float) -> None:
        """Once a turn of the loop. Raises: DamagedError if the state is damaged and no other server can help."""
        self.scrubbing.turn(now)
        self._observed.scrubs = self.scrubbing.done

    def tick(self, now: float) -> None:
        """About ten times a second."""
        self._upkeep.turn(now)

    def close(self) -> None:
        self.scrubbing.close()

    # --- comparison ---------------------------------------------------------------------------------------------------

    def _compare(self, index: Index, now: float) -> None:
        me, configuration = self._me, self._node.configuration
        if self._state_file != self._node.state_file:
            self._state_file = self._node.state_file
            self._comparison.forget_own()
        members = {member.id for member in configuration.members} if configuration else set()
        self._comparison.keep_only(members | {me})
        digest = self._node.machine.digest.to_bytes(_DIGEST_BYTES, "big")
        for peer in sorted(members - {me}):
            self._send(StateDigest(me, peer, index, _KIND, digest))
        self._observed.digests_compared += 1
        self._judge(self._comparison.note(me, index, digest), index, now)

    def heard(self, message: StateDigest, now: float) -> None:
        """Another server's state. One of another kind says nothing about ours."""
        configuration = self._node.configuration
        if message.kind == _KIND and configuration is not None and configuration.member(message.sender) is not None:
            verdict = self._comparison.note(message.sender, message.index, message.digest)
            self._judge(verdict, message.index, now)

    def _judge(self, verdict: Verdict | None, index: Index, now: float) -> None:
        if verdict is None:
            return
        self._observed.digests_differed += 1
        self._log.error("states differ", index=index, verdict=verdict.value)
        if verdict is Verdict.WRONG:
            self._node.lose_state(verdict.value, now)

    def _report(self, event: str, text: str) -> None:
        self._log.info(event, detail=text)
