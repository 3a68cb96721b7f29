"""Random histories of writing, compacting, installing, stopping and being killed, against a plain list."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordd.storage.log_store import LogStore
from coordd.types import Base, HardState, LogSlice, LogWrite
from tests.storage.support import CANDIDATE, NAME, contents, copy_of, entry


class LogHistory(RuleBasedStateMachine):
    """`entries[i]` is entry i + 1 as (term, data); the first `base` of them are compacted away."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Path(tempfile.mkdtemp(prefix="coordd-test-"))
        self.folder = self.scratch / "data"
        self.entries: list[tuple[int, bytes]] = []
        self.base = 0
        self.term = 0
        self.vote = False
        self.sequence = 0

    @initialize()
    def begin(self) -> None:
        self.store = LogStore.open(self.folder, NAME, wal_limit=50_000)
        self.store.recover()

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, CANDIDATE if self.vote else None, self.base)

    @rule(
        pieces=st.lists(
            st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans(), st.sampled_from([1, 300, 9000])),
            min_size=1,
            max_size=4,
        )
    )
    def write(self, pieces: list[tuple[int, int, bool, int]]) -> None:
        """A group of writes: each goes back some entries, and then appends some, perhaps of a new term."""
        group = []
        for back, count, new_term, size in pieces:
            keep = max(self.base, len(self.entries) - back)
            if new_term or keep < len(self.entries) or self.term == 0:
                self.term += 1
                self.vote = False
            del self.entries[keep:]
            self.sequence += 1
            data = [entry(f"{self.sequence}.{number}", size) for number in range(count)]
            self.entries += [(self.term, item) for item in data]
            piece = LogSlice(keep + 1, data, ((keep + 1, self.term),))
            group.append(LogWrite(self.sequence, self.hard_state, piece, must_sync=True))
        self.store.write(group)

    @rule()
    def give_vote(self) -> None:
        self.term += 1
        self.vote = True
        self.sequence += 1
        self.store.write([LogWrite(self.sequence, self.hard_state, None, must_sync=True)])

    @rule(share=st.floats(0, 1), whole=st.booleans())
    def compact(self, share: float, whole: bool) -> None:
        self.base += int((len(self.entries) - self.base) * share)
        base = Base(self.base, state_file=f"state-{self.base}.db")
        made = self.store.compact(base) if whole else self.store.set_base(base)
        assert made.term == (self.entries[self.base - 1][0] if self.base else 0)

    @rule(ahead=st.integers(-3, 10))
    def install(self, ahead: int) -> None:
        index = max(self.base + 1, len(self.entries) + ahead)
        self.term += 1
        self.vote = False
        self.sequence += 1
        self.store.install(Base(index, self.term, self.sequence, state_file="state-x.db"))
        self.store.write([LogWrite(self.sequence, self.hard_state, None, must_sync=True)])
        self.entries = [*self.entries, *([(0, b"")] * index)][:index]
        self.entries[index - 1] = (self.term, b"")
        self.base = index

    @rule()
    def upkeep(self) -> None:
        if self.store.upkeep_due:
            self.store.upkeep()

    @rule(kill=st.booleans())
    def reopen(self, kill: bool) -> None:
        if kill:
            killed = copy_of(self.folder)
            self.store.close()
            shutil.rmtree(self.folder)
            killed.rename(self.folder)
        else:
            self.store.close()
        self.store = LogStore.open(self.folder, NAME, wal_limit=50_000)
        recovered = self.store.recover()
        assert recovered.promised == recovered.tail.last == len(self.entries)
        assert (recovered.hard_state.term, recovered.hard_state.vote) == (self.hard_state.term, self.hard_state.vote)
        assert (recovered.tail.first, recovered.tail.entries) == (
            self.base + 1,
            [data for _, data in self.entries[self.base :]],
        )
        if recovered.tail.entries:
            assert list(recovered.tail.terms()) == [term for term, _ in self.entries[self.base :]]
        assert recovered.base.index == self.base
        assert recovered.tail_previous_term == (self.entries[self.base - 1][0] if self.base else 0)

    @invariant()
    def the_log_is_the_list(self) -> None:
        if hasattr(self, "store"):
            assert contents(self.store) == [data for _, data in self.entries[self.base :]]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.scratch)


TestLogHistory = LogHistory.TestCase
TestLogHistory.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
