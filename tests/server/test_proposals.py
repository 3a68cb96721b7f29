"""Clients' writes between proposal and answer: an answer says exactly what is known, and everyone gets one."""

import pytest

from coordd.errors import BusyError
from coordd.messages.client import Error, ReplyBody, Written
from coordd.messages.command import Done
from coordd.raft.output import Accepted, Refusal
from coordd.server.ports import AppliedBatch
from coordd.server.proposals import Proposals
from coordd.server.waiting import Waiter
from coordd.state.machine import Applied
from tests.server.support import Told


def waiter(request: int, deadline: float = 100.0) -> Waiter:
    return Waiter(b"c", request, deadline)


def add(proposals: Proposals, *requests: int, deadline: float = 100.0) -> None:
    for request in requests:
        proposals.add(b"e%d" % request, waiter(request, deadline))


def batch(first: int, *terms: int) -> AppliedBatch:
    applied = [Applied(index, 0, 0, Done(index)) for index in range(first, first + len(terms))]
    return AppliedBatch(applied, list(terms), 0)


def only(told: Told, request: int) -> ReplyBody:
    (body,) = told.to(request)
    return body


def code(told: Told, request: int) -> str:
    body = only(told, request)
    assert isinstance(body, Error)
    return body.code


def test_what_comes_in_one_slice_is_proposed_together_and_in_order() -> None:
    proposals = Proposals(Told(), 10)
    add(proposals, 1, 2, 3)
    assert proposals.take_batch(0.0) == [b"e1", b"e2", b"e3"]


def test_the_term_at_the_index_decides() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    add(proposals, 1, 2, 3)
    proposals.take_batch(0.0)
    proposals.proposed(Accepted(5, 3, 7), "")
    proposals.applied(batch(4, 7, 7, 8))
    assert only(told, 1) == Written(Done(5))
    assert code(told, 2) == "not-leader"
    assert told.to(3) == []
    proposals.applied(batch(7, 7))
    assert only(told, 3) == Written(Done(7))
    assert len(proposals) == 0


def test_nobody_is_answered_twice() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    add(proposals, 1)
    proposals.proposed(Accepted(5, 1, 7), "")
    proposals.applied(batch(5, 7))
    proposals.leadership_lost()
    proposals.expire(1e9)
    assert told.codes() == [(1, "Written")]


def test_own_proposals_are_answered_to_nobody_and_counted_in_the_order() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    refusals: list[str] = []
    add(proposals, 1)
    proposals.add_own(b"own", lambda: refusals.append("own"))
    add(proposals, 2)
    assert proposals.take_batch(0.0) == [b"e1", b"own", b"e2"]
    proposals.proposed(Accepted(5, 3, 7), "")
    proposals.applied(batch(5, 7, 7, 7))
    assert [only(told, 1), only(told, 2)] == [Written(Done(5)), Written(Done(7))]
    assert refusals == []


@pytest.mark.parametrize("refusal", [Refusal.BUSY, Refusal.TRANSFERRING, Refusal.NOT_LEADER])
def test_a_refused_batch_had_no_effect_and_all_hear_of_it(refusal: Refusal) -> None:
    told = Told()
    proposals = Proposals(told, 10)
    refused: list[str] = []
    add(proposals, 1, 2)
    proposals.add_own(b"own", lambda: refused.append("own"))
    proposals.take_batch(0.0)
    proposals.proposed(refusal, "10.0.0.2:8311")
    assert [code(told, 1), code(told, 2)] == ["not-leader" if refusal is Refusal.NOT_LEADER else "busy"] * 2
    body = only(told, 1)
    assert isinstance(body, Error)
    assert body.hint == ("10.0.0.2:8311" if refusal is Refusal.NOT_LEADER else "")
    assert refused == ["own"]
    assert len(proposals) == 0
    assert proposals.take_batch(0.0) == []


def test_above_the_limit_it_is_busy_but_not_for_the_server_itself() -> None:
    proposals = Proposals(Told(), 3)
    add(proposals, 1)
    proposals.proposed(Accepted(5, 1, 7), "")
    add(proposals, 2, 3)
    with pytest.raises(BusyError, match="try again"):
        add(proposals, 4)
    proposals.add_own(b"own", lambda: None)
    proposals.proposed(Accepted(6, 3, 7), "")
    proposals.applied(batch(5, 7))
    add(proposals, 5)


def test_a_deadline_before_proposing_is_timed_out_and_never_proposed() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    add(proposals, 1, deadline=5.0)
    add(proposals, 2, deadline=50.0)
    add(proposals, 3, deadline=5.0)
    assert proposals.take_batch(5.0) == [b"e2"]
    assert [code(told, 1), code(told, 3)] == ["timed-out"] * 2
    proposals.proposed(Accepted(9, 1, 7), "")
    proposals.applied(batch(9, 7))
    assert only(told, 2) == Written(Done(9))


def test_a_deadline_after_proposing_is_unknown() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    add(proposals, 1, deadline=5.0)
    add(proposals, 2, deadline=50.0)
    proposals.take_batch(0.0)
    proposals.proposed(Accepted(9, 2, 7), "")
    proposals.expire(4.9)
    assert told.bodies == []
    proposals.expire(5.0)
    assert code(told, 1) == "outcome-unknown"
    proposals.applied(batch(9, 7, 7))
    assert told.codes() == [(1, "outcome-unknown"), (2, "Written")]


def test_lost_leadership_is_unknown_for_what_was_proposed_and_no_effect_for_the_rest() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    add(proposals, 1, 2)
    proposals.take_batch(0.0)
    proposals.proposed(Accepted(9, 2, 7), "")
    add(proposals, 3)
    proposals.leadership_lost()
    assert [code(told, 1), code(told, 2)] == ["outcome-unknown"] * 2
    proposals.take_batch(0.0)
    proposals.proposed(Refusal.NOT_LEADER, "")
    assert code(told, 3) == "not-leader"
    assert len(proposals) == 0


def test_an_entry_without_a_result_is_unknown() -> None:
    told = Told()
    proposals = Proposals(told, 10)
    add(proposals, 1)
    proposals.proposed(Accepted(9, 1, 7), "")
    proposals.applied(AppliedBatch([Applied(9, 0, 0, None)], [7], 0))
    assert code(told, 1) == "outcome-unknown"
