"""What sleeps until its data change: who is woken, in which order, how often, and who is forgotten."""

import pytest

from coordd.errors import BusyError
from coordd.messages.client import Read, Subscribe
from coordd.messages.query import KvGet, KvList, ListNodes, ListServices, Query, ServiceHealth
from coordd.server.waiting import Waiter
from coordd.server.watches import BlockedRead, Subscription, Watches
from coordd.state.queries import topics


def watches(limit: int = 100, idle: float = 30.0) -> Watches:
    return Watches(limit, idle, topics)


def waiter(request: int, connection: bytes = b"c", deadline: float = 1000.0) -> Waiter:
    return Waiter(connection, request, deadline)


def subscribe(
    w: Watches, number: int, query: Query, *, credit: int = 8, connection: bytes = b"c", now: float = 0.0
) -> None:
    w.subscribe(waiter(number, connection), "", Subscribe(number, query, credit), now)


def block(w: Watches, request: int, query: Query, until: float = 100.0) -> None:
    w.block(waiter(request), "", Read(query, index=1), until)


def due(w: Watches, limit: int = 1000) -> list[int]:
    """The requests of those that are due, and that were taken."""
    return [watch.waiter.request for watch in w.take_due(limit)]


# --- topics -----------------------------------------------------------------------------------------------------------


def test_a_blocking_read_is_woken_by_its_topic_alone() -> None:
    w = watches()
    block(w, 1, KvGet("a"))
    block(w, 2, KvGet("b"))
    block(w, 3, ServiceHealth("web"))
    assert due(w) == []
    w.changed([("kv", "b"), ("nodes",)])
    assert due(w) == [2]
    w.changed([("service", "web")])
    assert due(w) == [3]


@pytest.mark.parametrize(
    ("prefix", "woken"),
    [("", True), ("a", True), ("a/", True), ("a/b", True), ("a/bc", False), ("b", False), ("a/b/", False)],
)
def test_a_key_wakes_whoever_watches_one_of_its_prefixes(prefix: str, woken: bool) -> None:
    w = watches()
    block(w, 1, KvList(prefix))
    block(w, 2, KvList("zzz"))
    w.changed([("kv", "a/b")])
    assert due(w) == ([1] if woken else [])


def test_prefixes_are_found_while_any_watch_of_their_length_is_left() -> None:
    w = watches()
    block(w, 1, KvList("aa"))
    subscribe(w, 2, KvList("bb"))
    assert due(w) == [2]
    w.changed([("kv", "aa1")])
    (blocked,) = w.take_due(10)
    w.end(blocked)
    w.changed([("kv", "bb1")])
    assert due(w) == [2]
    w.unsubscribe(b"c", 2)
    assert not w._prefix_lengths
    assert not w._by_topic


def test_an_acl_change_wakes_everyone() -> None:
    w = watches()
    block(w, 1, KvGet("a"))
    block(w, 2, ListNodes())
    w.changed([("acl",)])
    assert sorted(due(w)) == [1, 2]


def test_who_arrived_first_is_woken_first() -> None:
    w = watches()
    for request in (5, 3, 9, 1):
        block(w, request, KvGet("a"))
    w.changed([("kv", "a")])
    assert due(w, 3) == [5, 3, 9]
    assert due(w) == [1]


def test_several_changes_wake_once() -> None:
    w = watches()
    block(w, 1, KvList("a"))
    w.changed([("kv", "a1"), ("kv", "a2")])
    w.changed([("kv", "a3")])
    assert due(w) == [1]


# --- blocking reads ---------------------------------------------------------------------------------------------------


def test_a_blocking_read_is_due_when_its_wait_is_over() -> None:
    w = watches()
    block(w, 1, KvGet("a"), until=10.0)
    block(w, 2, KvGet("a"), until=20.0)
    w.tick(9.9)
    assert due(w) == []
    w.tick(10.0)
    assert due(w) == [1]


def test_blocking_reads_are_judged_again_when_leadership_goes_and_subscriptions_are_not() -> None:
    w = watches()
    block(w, 1, KvGet("a"))
    subscribe(w, 2, KvGet("a"))
    assert due(w) == [2]
    w.wake_blocked()
    assert due(w) == [1]


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_a_subscription_is_due_at_once() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"))
    assert due(w) == [1]
    assert due(w) == []


def test_without_credit_changes_are_folded_into_one() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"), credit=1)
    (subscription,) = w.take_due(1)
    assert isinstance(subscription, Subscription)
    subscription.credit, subscription.dirty = 0, False
    for _ in range(3):
        w.changed([("kv", "a")])
    assert due(w) == []
    assert subscription.dirty
    w.credit(b"c", 1, 1, 0.0)
    assert due(w) == [1]
    assert due(w) == []


def test_credit_without_a_change_wakes_nobody() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"))
    (subscription,) = w.take_due(1)
    assert isinstance(subscription, Subscription)
    subscription.dirty = False
    w.credit(b"c", 1, 5, 0.0)
    assert due(w) == []
    assert subscription.credit == 13


@pytest.mark.parametrize(("credit", "kept"), [(1 << 40, 64), (-5, 0), (8, 8)])
def test_credit_is_bounded_from_the_first(credit: int, kept: int) -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"), credit=credit)
    (subscription,) = w.take_due(1)
    assert isinstance(subscription, Subscription)
    assert subscription.credit == kept
    w.credit(b"c", 1, 1 << 40, 0.0)
    assert subscription.credit == 64
    w.credit(b"c", 1, -7, 0.0)
    assert subscription.credit == 64


def test_subscribing_again_under_a_number_replaces() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"))
    subscribe(w, 1, KvGet("b"))
    assert len(w) == 1
    assert due(w) == [1]
    w.changed([("kv", "a")])
    assert due(w) == []
    w.changed([("kv", "b")])
    assert due(w) == [1]


def test_numbers_belong_to_their_connection() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"), connection=b"x")
    subscribe(w, 1, KvGet("a"), connection=b"y")
    assert len(w) == 2
    w.unsubscribe(b"x", 1)
    w.unsubscribe(b"x", 1)
    assert len(w) == 1
    w.changed([("kv", "a")])
    assert [watch.waiter.connection for watch in w.take_due(10)] == [b"y"]


def test_a_silent_client_loses_its_subscriptions_and_its_next_word_tells_so() -> None:
    w = watches(idle=30.0)
    subscribe(w, 1, KvGet("a"), connection=b"x", now=0.0)
    subscribe(w, 1, KvGet("a"), connection=b"y", now=0.0)
    assert w.heard(b"x", 20.0)
    w.tick(30.1)
    assert len(w) == 1
    assert w.heard(b"x", 31.0)
    assert not w.heard(b"y", 31.0)
    assert not w.heard(b"never seen", 31.0)


def test_whoever_has_none_left_is_told_so() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"))
    w.unsubscribe(b"c", 1)
    assert not w.heard(b"c", 1.0)


def test_a_view_that_could_not_be_sent_is_due_when_its_client_is_heard() -> None:
    w = watches()
    subscribe(w, 1, KvGet("a"))
    assert due(w) == [1]  # and it stays dirty: nobody could send it
    assert w.heard(b"c", 1.0)
    assert due(w) == [1]


def test_beginning_again_and_credit_are_signs_of_life() -> None:
    w = watches(idle=30.0)
    subscribe(w, 1, KvGet("a"), now=0.0)
    w.credit(b"c", 1, 1, 25.0)
    w.tick(50.0)
    assert len(w) == 1


# --- limits -----------------------------------------------------------------------------------------------------------


def test_there_is_a_limit_and_what_ends_makes_room() -> None:
    w = watches(limit=2)
    subscribe(w, 1, KvGet("a"))
    block(w, 2, KvGet("a"))
    with pytest.raises(BusyError, match="too many"):
        block(w, 3, KvGet("a"))
    with pytest.raises(BusyError, match="too many"):
        subscribe(w, 4, ListServices())
    assert len(w) == 2
    w.changed([("kv", "a")])
    blocked = next(watch for watch in w.take_due(10) if isinstance(watch, BlockedRead))
    w.end(blocked)
    block(w, 5, KvGet("a"))
    assert len(w) == 2


def test_what_ends_leaves_nothing_behind() -> None:
    w = watches(idle=30.0)
    for number in range(50):
        subscribe(w, number, KvList(f"p{number}"), connection=b"%d" % (number % 5))
        block(w, 100 + number, KvGet(f"k{number}"))
    w.changed([("acl",)])
    for watch in w.take_due(1000):
        if isinstance(watch, BlockedRead):
            w.end(watch)
    w.tick(30.1)
    assert len(w) == 0
    assert not any([w._by_topic, w._prefix_lengths, w._blocked, w._clients, w.due])
