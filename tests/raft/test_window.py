"""Rules 42, 46 and 47: the window of appends to one follower follows what is measured."""

from coordd.messages.peer import AppendEntries
from coordd.raft.progress import ProgressState
from coordd.raft.settings import RaftSettings
from coordd.raft.window import Window
from tests.raft.cluster import Cluster
from tests.raft.test_reads import ready
from tests.raft.words import beat_answered

T = RaftSettings().election_timeout
WAY = 0.010
"""Seconds of a round trip without a queue."""


class Stream:
    """Somebody who always has more to send than the window takes, over a way that the test makes slower or faster."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.now = 100.0
        self.index = 0
        self.acknowledged = 0

    def fill(self, *, hold: bool = True) -> None:
        while not self.window.full:
            self.index += 1
            self.window.sent(self.index, 1000, self.now)
        if hold:
            self.window.hold()

    def trip(self, seconds: float, *, hold: bool = True) -> int:
        """One window is filled and comes back after `seconds`. Returns the window then."""
        self.fill(hold=hold)
        self.now += seconds
        self.window.acknowledged(self.index, self.now)
        return self.window.limit

    def grown(self, trips: int = 20) -> int:
        for _ in range(trips):
            self.trip(WAY)
        return self.window.limit


def window(least: int = 2, most: int = 64, most_bytes: int = 1 << 22) -> Window:
    return Window(least, most, most_bytes, 1 << 10)


def test_rule_46_it_grows_from_the_floor_to_the_ceiling_while_nothing_queues() -> None:
    stream = Stream(window())
    assert stream.window.limit == 2
    assert stream.grown() == 64
    assert stream.grown() == 64


def test_rule_46_it_does_not_grow_when_nothing_had_to_wait() -> None:
    stream = Stream(window())
    limits = {stream.trip(WAY, hold=False) for _ in range(20)}
    assert limits == {2}


def test_rule_46_it_shrinks_to_the_floor_when_the_way_queues() -> None:
    stream = Stream(window())
    stream.grown()
    assert stream.trip(5 * WAY) == 48
    limits = [stream.trip(5 * WAY) for _ in range(20)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == 2


def test_rule_46_between_near_and_queued_it_stays() -> None:
    stream = Stream(window())
    stream.grown(3)
    before = stream.window.limit
    assert {stream.trip(2.2 * WAY) for _ in range(5)} == {before}


def test_rule_46_after_a_queue_it_grows_in_small_steps() -> None:
    stream = Stream(window())
    stream.grown()
    stream.trip(5 * WAY)
    assert [stream.trip(WAY) for _ in range(2)] == [55, 62]


def test_rule_46_one_quick_append_shows_that_nothing_queues() -> None:
    """A single late answer is chance; the quickest of a round decides."""
    stream = Stream(window())
    stream.grown()
    stream.fill()
    stream.now += WAY
    stream.window.acknowledged(stream.index - 60, stream.now)
    stream.now += 10 * WAY
    stream.window.acknowledged(stream.index, stream.now)
    assert stream.window.limit == 64


def test_rule_46_a_way_that_became_longer_is_learned_and_the_own_queue_is_not_taken_for_it() -> None:
    stream = Stream(window())
    stream.grown()
    limits = [stream.trip(5 * WAY) for _ in range(1000)]  # 50 seconds: long enough to forget the shorter way
    assert limits[20] == 2
    assert max(limits[-200:]) == 64
    assert 2 in limits[-400:], "now and then it is measured through the smallest window"


def test_rule_42_the_bytes_keep_their_proportion_and_some_appends_always_fit() -> None:
    wide = Stream(Window(32, 64, 16_000, 1))
    wide.fill(hold=False)
    assert (wide.window.in_flight, wide.window.bytes_in_flight) == (8, 8000)
    wide.grown()
    wide.fill()
    assert (wide.window.in_flight, wide.window.bytes_in_flight) == (16, 16_000)
    narrow = Stream(window(most_bytes=4000))
    narrow.fill()
    assert narrow.window.bytes_in_flight == 2000
    narrow.grown()
    narrow.fill()
    assert narrow.window.bytes_in_flight == 4000


def test_a_floor_above_the_ceiling_is_the_ceiling() -> None:
    stream = Stream(window(least=8, most=3))
    assert stream.grown() == 3


def test_an_acknowledgement_that_covers_nothing_new_teaches_nothing() -> None:
    stream = Stream(window())
    stream.fill()
    stream.window.acknowledged(0, stream.now + 1000)
    assert (stream.window.in_flight, stream.window.limit) == (2, 2)


def test_what_was_learned_outlives_a_restart_of_the_stream() -> None:
    stream = Stream(window())
    stream.grown()
    stream.fill()
    stream.window.clear()
    assert (stream.window.in_flight, stream.window.bytes_in_flight, stream.window.limit) == (0, 0, 64)


# --- in the core ------------------------------------------------------------------------------------------------------


def test_rule_46_the_core_streams_as_much_as_the_window_says_and_learns_from_the_answers() -> None:
    cluster = Cluster(settings=RaftSettings(max_append_entries=1))
    leader = ready(cluster)
    cluster.propose("a", *"12345678")
    assert len(cluster.sent(AppendEntries, receiver="b")) == 2
    cluster.settle()
    assert leader.progress("b").match == 9
    assert leader.progress("b").window.limit > 2


def test_rule_47_an_append_that_stays_unanswered_ends_the_stream() -> None:
    """The follower answers heartbeats, but what it was sent never comes back: it is asked where it stands."""
    cluster = Cluster(settings=RaftSettings(max_inflight_messages=2))
    leader = ready(cluster)
    for text in "123":
        cluster.propose("a", text)
    began = cluster.now
    while leader.progress("b").state is ProgressState.REPLICATE and cluster.now < began + 60:
        assert leader.progress("b").window.in_flight == 2
        cluster.beat("a")
        for peer in "bc":
            cluster.receive(beat_answered(cluster, "a", peer, leader.leading.round))
        cluster.network.clear()
    assert 10 * T < cluster.now - began < 11 * T
    assert leader.progress("b").window.in_flight == 0
    assert "append overdue" in leader.facts
    cluster.beat("a")
    cluster.settle()
    assert leader.progress("b").match == 4
    assert cluster["b"].entries() == leader.entries()


def test_rule_46_an_acknowledgement_of_what_was_sent_twice_measures_nothing() -> None:
    """It may be for the first time: then the way seems shorter than any, and everything after it a queue."""
    stream = Stream(window())
    assert stream.grown() == 64
    stream.fill()
    sent = range(stream.index - 63, stream.index + 1)
    stream.now += WAY - 0.0002
    stream.window.clear()
    for index in sent:
        stream.window.sent(index, 1000, stream.now)
    stream.now += 0.0002
    stream.window.acknowledged(stream.index, stream.now)
    assert {stream.trip(WAY) for _ in range(10)} == {64}
