"""The invariants, checked after each step on what that step changed. Numbers are those of the project's list of 17.

Most are checked where they can break: an entry when it is made, a vote when it is given, a commit index when it rises. By
induction that is as good as comparing everything each time, which `paranoid.py` does.
"""

from collections.abc import Sequence

from coordd.messages.entry import CONFIGURATION
from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    PeerMessage,
    RaftMessage,
    RequestVote,
    StateDigest,
    VoteResponse,
)
from coordd.raft.output import Output, Role
from coordd.raft.progress import Progress
from coordd.types import Base, Configuration, HardState, Index, LogSlice, LogWrite, ServerId, Term
from tests.sim.ledger import Ledger, Position, Record, TermLog, majorities
from tests.sim.look import Look
from tests.sim.paranoid import from_scratch
from tests.sim.violation import Violation, check

__all__ = ["Invariants"]


class Invariants:
    """Told of everything that happens to the servers, in order."""

    def __init__(self, paranoid: bool = False) -> None:
        self.ledger = Ledger()
        self._paranoid = paranoid
        self._advertised: dict[tuple[ServerId, Term, bool], Position] = {}
        """(last term, last index) that a candidate, in a campaign for a term, said of its log: the highest."""

    # --- lives of a server -------------------------------------------------------------------------------------------

    def booted(
        self,
        server: ServerId,
        boot: int,
        log: TermLog,
        term: Term,
        vote: ServerId | None,
        promised: Index = 0,
        faulty: bool = False,
    ) -> bool:
        """What the disk remembers is what became durable, or that and some of the writes that were under way; a faulty one
        may forget, if it knows that it did. Returns whether it did."""
        record = self.ledger.record(server)
        self._doubt_ends(record, log)
        forgot = not self._completed(record, log, HardState(term, vote))
        if forgot:
            found = (log.base, log.last, log.last_term, term, vote, promised)
            had = (record.durable.base, record.durable.last, record.durable.last_term, record.hard)
            check(faulty, 9, "the disk does not hold what it made durable", server=server, found=found, durable=had)
            self._forgot(record, log, HardState(term, vote), promised)
        record.in_flight.clear()
        record.submitted = record.durable.copy()
        record.boot, record.up, record.role = boot, True, Role.FOLLOWER
        record.term, record.commit, record.applied = term, log.base, 0
        record.restored = 0
        record.reads.clear()
        return forgot

    def _completed(self, record: Record, log: TermLog, hard: HardState) -> bool:
        """Whether the disk holds what was durable and the first so many writes under way, which are then durable too."""
        trial, kept = record.durable.copy(), record.hard
        for count in range(len(record.in_flight) + 1):
            if log == trial and (hard.term, hard.vote) == (kept.term, kept.vote):
                for _ in range(count):
                    self.durable(record.id, record.in_flight[0])
                return True
            if count < len(record.in_flight):
                write = record.in_flight[count]
                kept = write.hard_state
                if write.slice is not None and write.slice.entries:
                    trial.put(write.slice)
        return False

    def _forgot(self, record: Record, log: TermLog, hard: HardState, promised: Index) -> None:
        server, durable = record.id, record.durable
        check(
            promised >= record.promised,
            9,
            "a disk forgot a promise",
            server=server,
            promised=promised,
            durable=durable.last,
        )
        check(
            promised > log.last,
            9,
            "a disk forgot, and does not know it",
            server=server,
            last=log.last,
            durable=durable.last,
        )
        known = [record.hard, *(write.hard_state for write in record.in_flight)]
        kept = any((hard.term, hard.vote) == (one.term, one.vote) for one in known)
        check(kept, 9, "a disk forgot a vote", server=server, found=hard, durable=record.hard)
        for index in range(log.base + 1, log.last + 1):
            check(
                (index, log.term(index)) in self.ledger.entries, 2, "an entry from nowhere", server=server, index=index
            )
        record.durable, record.hard, record.owes = log.copy(), hard, promised

    def in_doubt(self, server: ServerId, base: Base) -> None:
        """The power went while the log was given this base."""
        self.ledger.records[server].doubt = base

    def _doubt_ends(self, record: Record, log: TermLog) -> None:
        doubt, record.doubt = record.doubt, None
        if doubt is None or log.base != doubt.index or record.durable.base == doubt.index:
            return
        if record.durable.term(doubt.index) == doubt.term:
            self.compacted(record.id, doubt)
        else:
            self.installed(record.id, doubt)

    def ended(self, server: ServerId) -> None:
        record = self.ledger.record(server)
        record.up, record.role = False, ""

    # --- one step ----------------------------------------------------------------------------------------------------

    def stepped(self, server: ServerId, output: Output, look: Look) -> None:
        """After the core's step, before its output is acted on."""
        record = self.ledger.records[server]
        before = record.role
        for message in output.messages_after_persist:
            self._judged(record, message)
        self._term(record, look)
        if output.write is not None:
            self._submitted(record, output.write, look)
        if look.role is Role.LEADER and before != Role.LEADER:
            self._elected(record, look)
        record.role = look.role
        if look.commit != record.commit:
            self._commit(record, look, led=Role.LEADER in (before, look.role))
        durable = record.durable.last
        if output.committed > look.commit:
            raise Violation(8, "more is applied than is committed", server=server)
        if look.durable > durable and not look.installing:
            raise Violation(9, "believed durable before it is", server=server, durable=look.durable)
        if output.committed > durable:
            raise Violation(8, "more is applied than this disk has", server=server)
        for ready in output.reads_ready:
            asked = record.reads.pop(ready.read, None)
            if ready.index is not None and asked is not None:
                check(
                    ready.index >= asked,
                    12,
                    "a read may miss a committed entry",
                    server=server,
                    index=ready.index,
                    asked=asked,
                )

        for progress in look.peers:
            self._progress(record, progress)
        if self._paranoid:
            from_scratch(self.ledger)

    def _progress(self, record: Record, progress: Progress) -> None:
        """What a leader believes of a follower is true."""
        match = progress.match
        if not 0 <= match < progress.next:
            raise Violation(16, "match and next", server=record.id, peer=progress.peer)
        peer = self.ledger.records.get(progress.peer)
        if peer is None:
            check(match == 0, 16, "match of nobody", server=record.id, peer=progress.peer)
        # A newer leader may have replaced what was acknowledged to this one, which will hear of it.
        elif match > peer.promised and peer.hard.term <= record.term:
            raise Violation(16, "match beyond the peer's disk", server=record.id, peer=progress.peer)

    def _term(self, record: Record, look: Look) -> None:
        if look.term != record.term:
            check(look.term > record.term, 7, "the term fell", server=record.id, term=look.term, before=record.term)
            record.term = look.term
            record.role = ""

    def _judged(self, record: Record, message: RaftMessage) -> None:
        """A vote is judged by the log that the voter has at this step."""
        if isinstance(message, VoteResponse) and message.granted:
            check(not record.owes, 11, "a vote by one that has forgotten", voter=record.id, owes=record.owes)
            asked = self._advertised.get((message.receiver, message.term, message.pre))
            check(asked is not None, 11, "a vote for nobody's request", voter=record.id, candidate=message.receiver)
            assert asked is not None
            own = (record.submitted.last_term, record.submitted.last)
            check(
                asked >= own,
                11,
                "a vote for a shorter log",
                voter=record.id,
                candidate=asked,
                own=own,
                term=message.term,
            )

    def _submitted(self, record: Record, write: LogWrite, look: Look) -> None:
        check(write.hard_state.term == look.term, 7, "hard state of another term", server=record.id)
        record.in_flight.append(write)
        piece = write.slice
        if piece is None or not piece.entries:
            return
        log = record.submitted
        check(piece.first <= log.last + 1, 2, "a gap in the log", server=record.id, first=piece.first, last=log.last)
        check(
            piece.first > record.commit,
            6,
            "committed entries are replaced",
            server=record.id,
            first=piece.first,
            commit=record.commit,
        )
        if look.role is Role.LEADER:
            check(
                piece.first == log.last + 1, 2, "a leader replaces its own entries", server=record.id, first=piece.first
            )
        previous = log.term(piece.first - 1)
        check(previous is not None, 2, "entries behind nothing", server=record.id, first=piece.first)
        assert previous is not None
        self._entries(record, piece, previous, look)
        log.put(piece)

    def _entries(self, record: Record, piece: LogSlice, previous: Term, look: Look) -> None:
        ledger = self.ledger
        for index, (term, entry) in enumerate(zip(piece.terms(), piece.entries, strict=True), start=piece.first):
            made = (index, term) not in ledger.entries
            check(
                ledger.note(index, term, previous, entry),
                2,
                "two entries of one index and term",
                index=index,
                term=term,
            )
            check(term >= previous, 2, "terms fall along the log", server=record.id, index=index, term=term)
            if made:
                own = (look.role is Role.LEADER and term == look.term) or (index == 1 and len(ledger.entries) == 1)
                check(own, 2, "an entry that no leader made", server=record.id, index=index, term=term, role=look.role)
                if entry[0] == CONFIGURATION and index > 1:
                    self._changed(record, index, look)
            previous = term

    def _changed(self, record: Record, index: Index, look: Look) -> None:
        """A leader appends a configuration: none is pending, an entry of its own term is committed, quorums meet."""
        new = self.ledger.configurations[index, look.term]
        at, old = self.ledger.configuration(record.submitted, index - 1)
        commit = max(look.commit, record.commit)
        check(bool(new.voters), 10, "a configuration without voters", server=record.id, index=index)
        check(
            at <= commit, 10, "two uncommitted configurations", server=record.id, first=at, second=index, commit=commit
        )
        committed = record.submitted.term(commit)
        check(committed == look.term, 10, "a change before an own entry was committed", server=record.id, index=index)
        if old is not None:
            check(
                _meet(old, new), 10, "quorums of adjacent configurations miss each other", index=index, old=old, new=new
            )

    def _elected(self, record: Record, look: Look) -> None:
        ledger = self.ledger
        known = ledger.leaders.setdefault(look.term, (record.id, record.boot))
        check(
            known == (record.id, record.boot), 1, "two leaders in one term", term=look.term, one=known, other=record.id
        )
        # Late answers may put somebody into the office of a term that is over: what later terms committed it need not have.
        earlier = ledger.committed_before(look.term)
        check(
            ledger.holds(record.submitted, earlier),
            3,
            "a leader without a committed entry",
            server=record.id,
            index=earlier,
            term=look.term,
        )
        check(not record.stateless, 4, "a leader without a state", server=record.id, term=look.term)
        _, configuration = ledger.configuration(record.submitted)
        voted = {voter for (voter, term), vote in ledger.votes.items() if term == look.term and vote == record.id}
        check(configuration is not None, 1, "a leader without a configuration", server=record.id)
        assert configuration is not None
        check(
            majorities(configuration, voted),
            1,
            "elected without a durable quorum",
            server=record.id,
            term=look.term,
            voted=sorted(voted),
        )

    def lease_holds(self, leader: ServerId, led: Term, elected: ServerId, term: Term) -> None:
        """Somebody was elected while this leader's lease holds, whether anybody reads or not (thesis 6.4.1). Late votes may
        still do that for a term that is over: its leader can commit nothing."""
        check(term < led, 12, "elected while another's lease holds", leader=leader, led=led, elected=elected, term=term)

    def _commit(self, record: Record, look: Look, *, led: bool) -> None:
        ledger = self.ledger
        commit, log = look.commit, record.submitted
        check(commit > record.commit, 7, "the commit index fell", server=record.id, commit=commit, before=record.commit)
        check(commit <= log.last, 8, "committed beyond the log's end", server=record.id, commit=commit, last=log.last)
        for index in range(max(record.commit, log.base) + 1, min(commit, ledger.commit) + 1):
            check(
                log.term(index) == ledger.committed[index],
                6,
                "another entry was committed there",
                server=record.id,
                index=index,
                term=log.term(index),
                committed=ledger.committed[index],
            )
        if commit > ledger.commit:
            check(led, 5, "a follower commits what no leader did", server=record.id, commit=commit, known=ledger.commit)
            self._extend(record, commit)
        record.commit = commit

    def _extend(self, record: Record, commit: Index) -> None:
        """The first server to commit these entries: they are on a quorum of disks."""
        ledger = self.ledger
        log = record.submitted
        term = log.term(commit)
        check(
            term == record.term,
            5,
            "committed by counting entries of an old term",
            server=record.id,
            index=commit,
            term=term,
        )
        check(
            record.term >= ledger.committed_in[-1],
            3,
            "committed after a newer leader did",
            server=record.id,
            index=commit,
        )
        _, configuration = ledger.configuration(log)
        assert configuration is not None
        having = {
            other.id
            for other in ledger.records.values()
            if other.durable.base >= commit or other.durable.term(commit) == term or other.owes >= commit
        }
        check(
            majorities(configuration, having),
            5,
            "committed without a durable quorum",
            server=record.id,
            index=commit,
            having=sorted(having),
            configuration=configuration,
        )
        for index in range(ledger.commit + 1, commit + 1):
            found = log.term(index)
            assert found is not None
            ledger.committed.append(found)
            ledger.committed_in.append(record.term)
        for other in ledger.records.values():
            if other.up and other.role == Role.LEADER and other.term > record.term:
                check(
                    ledger.holds(other.submitted, commit),
                    3,
                    "a newer leader misses a committed entry",
                    server=other.id,
                    index=commit,
                )

    # --- the disk ----------------------------------------------------------------------------------------------------

    def durable(self, server: ServerId, write: LogWrite) -> None:
        record = self.ledger.records[server]
        check(
            bool(record.in_flight) and record.in_flight[0] is write,
            9,
            "the disk's queue is out of order",
            server=server,
        )
        record.in_flight.popleft()
        hard, old = write.hard_state, record.hard
        check(hard.term >= old.term, 7, "the durable term fell", server=server, term=hard.term, before=old.term)
        if hard.vote is not None:
            given = self.ledger.votes.setdefault((server, hard.term), hard.vote)
            check(
                given == hard.vote,
                7,
                "two votes in one term",
                server=server,
                term=hard.term,
                one=given,
                other=hard.vote,
            )
        check(
            hard.term > old.term or hard.vote == old.vote or old.vote is None, 7, "a vote was taken back", server=server
        )
        record.hard = hard
        if write.slice is not None and write.slice.entries:
            record.durable.put(write.slice)
            record.refilled()

    def compacted(self, server: ServerId, base: Base) -> None:
        record = self.ledger.records[server]
        check(
            base.index <= max(record.applied, record.durable.base, record.dropped),
            8,
            "the log was dropped beyond what is applied",
            server=server,
            base=base.index,
        )
        check(
            base.term == self.ledger.committed[base.index], 8, "a base of another term", server=server, base=base.index
        )
        self._remembered(server, base.index, base.configuration)
        record.durable.compact(base.index)
        if record.submitted.base < base.index:
            record.submitted.compact(base.index)

    def installed(self, server: ServerId, snapshot: Base) -> None:
        """Log and state start anew from a snapshot, durably. Called before the core is told."""
        record = self.ledger.records[server]
        check(snapshot.index <= self.ledger.commit, 6, "a snapshot of what is not committed", server=server)
        check(self.ledger.committed[snapshot.index] == snapshot.term, 6, "a snapshot of another term", server=server)
        self._remembered(server, snapshot.index, snapshot.configuration)
        durable = record.durable
        agrees = durable.term(snapshot.index) == snapshot.term and durable.last > snapshot.index
        check(
            not agrees,
            9,
            "a snapshot swept away entries that agree with it",
            server=server,
            index=snapshot.index,
            last=durable.last,
        )
        record.durable = TermLog(snapshot.index, snapshot.term)
        record.submitted = record.durable.copy()
        record.refilled()
        record.applied = snapshot.index

    def _remembered(self, server: ServerId, index: Index, configuration: Configuration | None) -> None:
        log = TermLog(self.ledger.commit, self.ledger.committed[-1])
        _, right = self.ledger.configuration(log, index)
        check(
            configuration == right,
            10,
            "the configuration at the base is another",
            server=server,
            index=index,
            found=configuration,
            right=right,
        )

    # --- messages ----------------------------------------------------------------------------------------------------

    def sending(self, server: ServerId, message: PeerMessage) -> None:
        """Nothing leaves that rests on what is not durable (docs/rules.md, "What waits for the disk")."""
        record = self.ledger.records[server]
        check(message.sender == server, 9, "a message in another's name", server=server)
        match message:
            case VoteResponse(granted=True, pre=False):
                hard = record.hard
                kept = self.ledger.votes.get((server, message.term)) == message.receiver
                check(
                    kept and hard.term >= message.term,
                    9,
                    "a vote that is not durable",
                    server=server,
                    term=message.term,
                    hard=hard,
                )
            case RequestVote():
                check(not record.owes, 11, "a candidate that has forgotten", server=server, owes=record.owes)
                asked = (server, message.term, message.pre)
                log = (message.last_term, message.last_index)
                self._advertised[asked] = max(log, self._advertised.get(asked, log))
                if message.pre:
                    return
                own = self.ledger.votes.get((server, message.term)) == server
                check(
                    own, 9, "a candidate's own vote is not durable", server=server, term=message.term, hard=record.hard
                )
                # One that no longer campaigns may meanwhile have taken another log; nobody will count the vote it asks for.
                campaigns = record.role == Role.CANDIDATE and record.term == message.term
                tail = not campaigns or record.durable.term(message.last_index) == message.last_term
                check(tail, 9, "a candidate's log is not durable", server=server, last=message.last_index)
            case AppendResponse(rejected=None):
                self._acknowledged(record, message)
            case AppendEntries():
                self._replicated(record, message)
            case StateDigest() if record.doubtful and message.index != record.shown[0]:
                record.shown, record.contradicted = (message.index, message.digest), set()

    def _acknowledged(self, record: Record, message: AppendResponse) -> None:
        check(
            record.durable.last >= message.index,
            9,
            "an ack of what is not durable",
            server=record.id,
            index=message.index,
            durable=record.durable.last,
        )
        check(
            record.hard.term >= message.term,
            9,
            "an ack in a term that is not durable",
            server=record.id,
            term=message.term,
        )
        leader = self.ledger.leaders.get(message.term)
        check(leader is not None, 9, "an ack to nobody", server=record.id, term=message.term)
        assert leader is not None
        source = self.ledger.records[leader[0]]
        if (
            source.up
            and source.boot == leader[1]
            and source.term == message.term
            and message.index > record.durable.base
        ):
            theirs, own = source.submitted.term(message.index), record.durable.term(message.index)
            same = theirs == own or message.index <= source.submitted.base
            check(
                same,
                9,
                "an ack of an entry that the leader does not have",
                server=record.id,
                index=message.index,
                own=own,
                theirs=theirs,
            )

    def _replicated(self, record: Record, message: AppendEntries) -> None:
        known = self.ledger.leaders.get(message.term)
        check(known is not None and known[0] == record.id, 1, "entries sent by one who does not lead", server=record.id)
        check(message.commit <= self.ledger.commit, 6, "a commit index that nobody reached", server=record.id)

    # --- reads and state ---------------------------------------------------------------------------------------------

    def read_asked(self, server: ServerId, read: int) -> None:
        self.ledger.records[server].reads[read] = self.ledger.commit

    def read_answered(self, server: ServerId, committed: Index, applied: Index) -> None:
        check(not self.ledger.records[server].stateless, 4, "an answer without a state", server=server)
        check(applied >= committed, 12, "a read that is stale", server=server, applied=applied, committed=committed)

    def applied(self, server: ServerId, first: Index, entries: Sequence[tuple[Term, bytes]], digest: object) -> None:
        """The state took these entries, and looks like this now."""
        ledger, record = self.ledger, self.ledger.records[server]
        last = first + len(entries) - 1
        check(
            first == record.applied + 1, 4, "applied out of order", server=server, first=first, applied=record.applied
        )
        check(last <= min(ledger.commit, record.commit), 8, "applied beyond the commit index", server=server, last=last)
        check(last <= record.durable.last, 8, "applied beyond the own durable log", server=server, last=last)
        for index, (term, entry) in enumerate(entries, start=first):
            known = ledger.entries[index, ledger.committed[index]][1]
            same = term == ledger.committed[index] and (known is entry or known == entry)
            check(same, 4, "another entry was applied", server=server, index=index, term=term)
        record.applied = last
        self.resembles(server, last, digest)

    def resembles(self, server: ServerId, index: Index, digest: object) -> None:
        """All states at one index are the same; but for one that was damaged in memory, until it is noticed or its digest
        is read from the disk again."""
        record = self.ledger.records[server]
        if record.doubtful:
            record.doubtful = digest != self.ledger.digests.get(index)
        elif digest is not None:
            known = self.ledger.digests.setdefault(index, digest)
            check(known == digest, 4, "two states at one index", server=server, index=index)

    def restored(self, server: ServerId, applied: Index) -> None:
        """The state of a server at its start, or one that took another's place."""
        record = self.ledger.records[server]
        check(applied <= self.ledger.commit, 4, "a state of what is not committed", server=server, applied=applied)
        record.applied = record.restored = applied
        record.stateless = applied < record.durable.base
        record.dropped, record.doubtful = 0, False

    def lost(self, server: ServerId) -> None:
        """It has given up its state."""
        record = self.ledger.records[server]
        record.dropped, record.applied, record.restored = record.applied, 0, 0
        record.stateless, record.doubtful = True, False

    def doubted(self, server: ServerId) -> None:
        """The digest of its state was damaged."""
        record = self.ledger.records[server]
        record.doubtful, record.shown, record.contradicted = True, (0, b""), set()

    def compared(self, told: StateDigest, configuration: Configuration | None) -> None:
        """A server was told another's digest and has acted on it: whoever most voters contradict gives up its state."""
        record = self.ledger.records[told.receiver]
        index, digest = record.shown
        if not record.doubtful or told.index != index or told.digest == digest or configuration is None:
            return
        if not self.ledger.record(told.sender).doubtful:
            record.contradicted.add(told.sender)
        wrong = majorities(configuration, record.contradicted)
        check(not wrong, 4, "a state that most voters contradict stays in use", server=record.id, index=index)


def _meet(old: Configuration, new: Configuration) -> bool:
    """Whether any deciding set of one configuration shares a server with any deciding set of the other.

    A set that avoids a quorum is everything outside it: two configurations miss each other exactly if some split of all
    servers gives each side one of them.
    """
    servers = sorted({*old.voters, *old.outgoing, *new.voters, *new.outgoing})
    for pattern in range(1 << len(servers)):
        side = {server for bit, server in enumerate(servers) if pattern >> bit & 1}
        if majorities(old, side) and majorities(new, set(servers) - side):
            return False
    return True
