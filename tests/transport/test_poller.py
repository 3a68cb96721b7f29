"""Poller and Wakeup: no wake-up is lost, none is repeated."""

import os
import threading

from coordd.transport.poller import Poller, Wakeup


def test_a_wakeup_ends_a_sleep_of_another_thread() -> None:
    wakeup, poller = Wakeup(), Poller()
    poller.register(wakeup)
    threading.Timer(0.05, wakeup.wake).start()
    assert poller.poll(10) == {wakeup}
    wakeup.clear()
    assert poller.poll(0) == set()
    wakeup.close()


def test_wakeups_are_folded_and_come_again_after_clear() -> None:
    wakeup, poller = Wakeup(), Poller()
    poller.register(wakeup)
    for _ in range(3):
        for _ in range(1000):
            wakeup.wake()
        assert poller.poll(1) == {wakeup}
        wakeup.clear()
        assert poller.poll(0) == set()
    wakeup.clear()
    wakeup.wake()
    assert poller.poll(1) == {wakeup}
    wakeup.close()
    wakeup.wake()


def test_no_item_is_left_behind() -> None:
    wakeup, poller, items, taken = Wakeup(), Poller(), list[int](), 0
    poller.register(wakeup)

    def produce() -> None:
        for number in range(20_000):
            items.append(number)
            wakeup.wake()

    producer = threading.Thread(target=produce)
    producer.start()
    while taken < 20_000:
        assert poller.poll(10) == {wakeup}, "an item waits, but nobody was woken"
        wakeup.clear()
        while taken < len(items):
            taken += 1
    producer.join()
    wakeup.close()


def test_descriptors_can_be_polled_and_left() -> None:
    read, write = os.pipe()
    poller = Poller()
    poller.register(read)
    assert poller.poll(0) == set()
    os.write(write, b"x")
    assert poller.poll(1) == {read}
    poller.unregister(read)
    poller.unregister(read)
    assert poller.poll(0) == set()
    os.close(read)
    os.close(write)
