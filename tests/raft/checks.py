"""What must hold of a small cluster after every single step, checked on each server and on each pair of them.

Cheap on purpose: these run thousands of times in every test. The simulator checks more, over longer runs.
"""

from typing import TYPE_CHECKING

from coordd.messages.peer import AppendResponse, RaftMessage, RequestVote, VoteResponse
from coordd.raft.output import Role
from coordd.types import Index, ServerId, Term

if TYPE_CHECKING:
    from tests.raft.server import Server

__all__ = ["Checks"]


class Checks:
    """The cluster's history as far as the checks need it. Violations are AssertionErrors."""

    def __init__(self) -> None:
        self.leaders: dict[Term, tuple[ServerId, int]] = {}
        """Who led each term, with the boot in which it did."""
        self.committed: dict[Index, tuple[Term, bytes]] = {}
        """Every entry that some server has known to be committed."""
        self._commit: dict[tuple[ServerId, int], Index] = {}
        self._term: dict[tuple[ServerId, int], Term] = {}

    def after_step(self, server: "Server") -> None:
        r = server.raft.replica
        log = r.log
        assert log.durable <= log.last, f"{server.id}: durable {log.durable} beyond last {log.last}"
        assert log.base_index <= log.commit, f"{server.id}: commit {log.commit} below base {log.base_index}"
        assert r.term >= self._term.get((server.id, server.boot), 0), f"{server.id}: term fell to {r.term}"
        self._term[server.id, server.boot] = r.term
        if r.role is Role.LEADER:
            known = self.leaders.setdefault(r.term, (server.id, server.boot))
            assert known == (server.id, server.boot), f"two leaders in term {r.term}: {known} and {server.id}"
            assert r.leader == server.id
            assert r.leading is not None
        else:
            assert r.leading is None
        self._committed_prefix(server)
        self._disk_agrees(server)

    def _committed_prefix(self, server: "Server") -> None:
        """Commit never falls, and what one server has committed is the same entry everywhere."""
        log = server.raft.replica.log
        before = self._commit.get((server.id, server.boot), log.base_index)
        assert log.commit >= before, f"{server.id}: commit fell from {before} to {log.commit}"
        self._commit[server.id, server.boot] = log.commit
        for index in range(max(before + 1, log.first), min(log.commit, log.last) + 1):
            entry = (log.term(index) or 0, log.entry(index))
            known = self.committed.setdefault(index, entry)
            assert known == entry, f"{server.id}: entry {index} is {entry}, elsewhere {known} was committed"

    def _disk_agrees(self, server: "Server") -> None:
        """What the core believes durable is on the disk, and is the same entry."""
        log = server.raft.replica.log
        if log.durable > server.disk.base.index and log.durable > log.base_index:
            on_disk, in_memory = server.disk.term(log.durable), log.term(log.durable)
            assert on_disk == in_memory, f"{server.id}: durable {log.durable}: disk {on_disk}, memory {in_memory}"

    def pair(self, leader: "Server", follower: "Server") -> None:
        """A leader's view of a follower: 0 <= match < next, and what matches is durable there and the same entry."""
        leading = leader.raft.replica.leading
        progress = leading.peers.get(follower.id) if leading else None
        if progress is None:
            return
        assert 0 <= progress.match < progress.next, f"{leader.id}: {progress}"
        mine = leader.raft.replica.log.term(progress.match)
        if not follower.trusted or not progress.match or mine is None or progress.match <= follower.disk.base.index:
            return
        theirs = follower.disk.term(progress.match)
        assert theirs == mine, f"{leader.id} has {follower.id} at {progress.match}: terms {mine} and {theirs}"

    def leaving(self, server: "Server", message: RaftMessage) -> None:
        """Nothing leaves that rests on what is not durable (docs/rules.md, "What waits for the disk")."""
        disk = server.disk
        match message:
            case VoteResponse(granted=True, pre=False):
                assert (disk.hard_state.term, disk.hard_state.vote) == (message.term, message.receiver), message
            case RequestVote(pre=False):
                assert (disk.hard_state.term, disk.hard_state.vote) == (message.term, server.id), message
                assert (disk.last, disk.term(disk.last)) == (message.last_index, message.last_term), message
            case AppendResponse(rejected=None):
                assert disk.last >= message.index, message
                assert disk.hard_state.term == message.term, message
            case _:
                pass
