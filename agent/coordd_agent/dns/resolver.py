"""Packet to packet: reads the question, answers it from the views, and waits for a view only where none was ever had.

`reply(packet, over_tcp)` gives the reply at once, None for what gets none, or `Waiting` when a view is missing; then
`complete(waiting)` waits for it, no longer than the settings allow. Answers go into `packed` on the way.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from coordd.messages.query import Query
from coordd_agent.dns.answers import answer
from coordd_agent.dns.packed import PackedAnswers
from coordd_agent.dns.packets import NXDOMAIN, SERVFAIL, Answer, pack
from coordd_agent.dns.question import Question, Unreadable, read_question
from coordd_agent.dns.views import Shapes, Source, Views
from coordd_agent.settings import DnsSettings

__all__ = ["Counters", "Resolver", "ViewSource", "Waiting"]

log = logging.getLogger(__name__)

MAX_FAILURES_LOGGED = 10
MAX_ROUNDS = 4
"""A view may name hosts whose views are needed next; that chain is bounded like the aliases themselves."""


class ViewSource(Source, Protocol):
    """The cache, as the resolver sees it."""

    async def wait_for(self, queries: Iterable[Query]) -> None:
        """Subscribe to `queries` and return when each has a view, or can't get one now. The caller bounds the wait."""
        ...


class Counters:
    """Figures for `coordctl info`. `packed` is counted by the servers."""

    def __init__(self) -> None:
        self.packed = 0
        self.built = 0
        self.nxdomain = 0
        self.servfail = 0
        self.unreadable = 0
        self.dropped = 0
        self.failed = 0
        """Questions that met an error of this program."""


class Waiting(NamedTuple):
    packet: bytes
    question: Question
    over_tcp: bool
    missing: frozenset[Query]


class Resolver:
    def __init__(self, source: ViewSource, settings: DnsSettings, rng: random.Random | None = None) -> None:
        self.counters = Counters()
        self.udp = PackedAnswers(settings.packed_entries, settings.packed_bytes)
        self.tcp = PackedAnswers(settings.packed_entries, settings.packed_bytes)
        self._source = source
        self._settings = settings
        self._rng = rng or random.Random()  # noqa: S311  spreads load, guards nothing
        self._shapes = Shapes()

    def view_changed(self, query: Query) -> None:
        """To be called when the cache's view of `query` is another one, or gone."""
        self._shapes.forget(query)
        self.udp.drop(query)
        self.tcp.drop(query)

    def used_queries(self) -> set[Query]:
        """Views whose ready-made answers were given since the last call: the cache does not see that."""
        return self.udp.take_used() | self.tcp.take_used()

    def servers_changed(self) -> None:
        """Server names are in SOA, NS and node answers, which no view stands for: all is made anew."""
        self.udp.clear()
        self.tcp.clear()

    def reply(self, packet: bytes, over_tcp: bool) -> bytes | Waiting | None:
        try:
            question = read_question(packet)
        except Unreadable as unreadable:
            self.counters.unreadable += 1
            return unreadable.reply
        packed = self.tcp if over_tcp else self.udp
        # Bytes that differ only in EDNS options were not found by the servers.
        pile = packed.piles.get(question.key)
        if pile:
            self.counters.packed += 1
            return packet[:2] + pile.pop()
        made, views = self._answer(question)
        if views.missing:
            return Waiting(packet, question, over_tcp, frozenset(views.missing))
        return packet[:2] + self._finish(question, made, views, over_tcp)

    async def complete(self, waiting: Waiting) -> bytes:
        made, views = Answer(SERVFAIL), Views(self._source, self._shapes)
        missing = waiting.missing
        deadline = asyncio.get_running_loop().time() + self._settings.max_wait_ms / 1000
        for _ in range(MAX_ROUNDS):
            in_time = True
            try:
                async with asyncio.timeout_at(deadline):
                    await self._source.wait_for(missing)
            except TimeoutError:
                in_time = False
            made, views = self._answer(waiting.question)
            if not in_time or not views.missing - missing:
                break
            missing = frozenset(views.missing)
        return waiting.packet[:2] + self._finish(waiting.question, made, views, waiting.over_tcp)

    def _answer(self, question: Question) -> tuple[Answer, Views]:
        views = Views(self._source, self._shapes)
        try:
            return answer(question, views, self._settings, self._rng, time.time()), views
        except Exception:
            # Questions and names come from anyone: whatever they bring to light must not end the agent.
            self.counters.failed += 1
            if self.counters.failed <= MAX_FAILURES_LOGGED:
                log.exception("question not answered", extra={"facts": {"question": question.section.hex()}})
            views.missing.clear()
            return Answer(SERVFAIL), views

    def _finish(self, question: Question, made: Answer, views: Views, over_tcp: bool) -> bytes:
        message = pack(question, made, self._settings, over_tcp)
        self.counters.built += 1
        self.counters.nxdomain += made.rcode == NXDOMAIN
        self.counters.servfail += made.rcode == SERVFAIL
        if not views.missing and made.rcode != SERVFAIL:
            (self.tcp if over_tcp else self.udp).put(question.key, message, views.used, made.shuffled)
        return message
