"""The leader's timers: late is allowed, early is not, and what was refused is due again."""

from coordd.messages.command import Deregister, ExpireClients, ExpireSessions, NodeStatus, SetNodeStatus
from coordd.server.expiry import BeatTimers, ClientTimers, SessionTimers
from coordd.state.sessions import SessionAlive

TERM = 7


def session(name: str, index: int = 1, ttl_ms: int = 10_000) -> SessionAlive:
    return SessionAlive(name, index, ttl_ms)


def named(command: SetNodeStatus | None) -> dict[str, str]:
    return {status.node: status.status for status in command.nodes} if command else {}


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_is_due_after_its_ttl_and_not_before() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a"), session("b", ttl_ms=20_000)], 100.0)
    assert timers.due(109.999) is None
    assert timers.due(110.0) == ExpireSessions(TERM, (("a", 1),))
    assert timers.due(119.9) is None
    assert timers.due(120.0) == ExpireSessions(TERM, (("b", 1),))


def test_a_renewal_gives_a_full_ttl_again() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a")], 100.0)
    assert timers.renew("a", 109.0) == 10_000
    assert timers.due(118.9) is None
    assert timers.due(119.0) == ExpireSessions(TERM, (("a", 1),))


def test_an_expiring_session_refuses_renewals_and_is_named_once() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a")], 100.0)
    assert timers.due(110.0) is not None
    assert timers.renew("a", 110.0) is None
    assert timers.renew("a", 109.9) is None  # asked a moment ago, and looked at only now
    assert timers.due(200.0) is None


def test_a_session_whose_time_is_up_refuses_renewals_before_it_is_proposed() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a")], 100.0)
    assert timers.renew("a", 110.0) is None


def test_an_unknown_session_is_not_renewed() -> None:
    assert SessionTimers(TERM).renew("a", 100.0) is None


def test_a_refused_expiry_is_due_again_at_once_and_never_renewable() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a")], 100.0)
    command = timers.due(110.0)
    assert command is not None
    timers.refused(command)
    assert timers.renew("a", 110.0) is None
    assert timers.due(110.0) == command


def test_a_session_that_ended_is_forgotten() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a")], 100.0)
    timers.sync([], 105.0)
    assert timers.renew("a", 105.0) is None
    assert timers.due(110.0) is None


def test_a_session_made_anew_under_an_old_name_has_its_own_time() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a", 1)], 100.0)
    assert timers.due(110.0) is not None
    timers.sync([session("a", 5)], 110.0)
    assert timers.renew("a", 111.0) == 10_000
    assert timers.due(121.0) == ExpireSessions(TERM, (("a", 5),))


def test_a_session_seen_again_keeps_its_deadline() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session("a")], 100.0)
    timers.sync([session("a"), session("b")], 105.0)
    assert timers.due(110.0) == ExpireSessions(TERM, (("a", 1),))


def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    timers = SessionTimers(TERM)
    for number in range(20_000):
        timers.sync([session(f"s{number}", number, 86_400_000)], 100.0)
    assert len(timers._queue) <= 2_000
    assert timers.due(100.0 + 86_400) == ExpireSessions(TERM, (("s19999", 19_999),))


def test_one_command_names_a_thousand_at_most() -> None:
    timers = SessionTimers(TERM)
    timers.sync([session(f"s{number:04}") for number in range(1500)], 100.0)
    sizes = [len(command.sessions) if (command := timers.due(110.0)) else 0 for _ in range(3)]
    assert sizes == [1000, 500, 0]


# --- numbered writes --------------------------------------------------------------------------------------------------


def test_a_silent_client_is_due_and_a_heard_one_is_not() -> None:
    timers = ClientTimers(TERM, [1, 2], 60.0, 100.0)
    timers.heard(1, 150.0)
    assert timers.due(159.9) is None
    assert timers.due(160.0) == ExpireClients(TERM, (2,))
    assert timers.due(210.0) == ExpireClients(TERM, (1,))
    assert timers.due(999.0) is None


def test_a_client_registered_since_expires_although_it_never_wrote() -> None:
    timers = ClientTimers(TERM, [], 60.0, 100.0)
    timers.sync([5], 110.0)
    timers.sync([5], 150.0)
    assert timers.due(170.0) == ExpireClients(TERM, (5,))


def test_numbers_that_nobody_registered_leave_no_trace() -> None:
    timers = ClientTimers(TERM, [1], 60.0, 100.0)
    for made_up in range(2, 1000):
        timers.heard(made_up, 100.0)
    assert len(timers._heard) == 1
    timers.sync([], 100.0)
    assert not timers._heard


def test_refused_clients_are_due_again() -> None:
    timers = ClientTimers(TERM, [1, 2], 60.0, 100.0)
    timers.heard(2, 150.0)
    command = timers.due(160.0)
    assert command == ExpireClients(TERM, (1,))
    timers.refused(command)
    assert timers.due(160.0) == command
    assert timers.due(210.0) == ExpireClients(TERM, (2,))


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_a_node_that_falls_silent_turns_critical_once() -> None:
    timers = BeatTimers(TERM, {"a": True, "b": True}, 5.0, 100.0, 50.0)
    timers.heard("a", 53.0)
    assert timers.due(54.9) is None
    assert named(timers.due(55.0)) == {"b": "critical"}
    assert timers.due(57.9) is None
    assert named(timers.due(58.0)) == {"a": "critical"}


def test_a_node_without_an_agent_is_left_alone() -> None:
    timers = BeatTimers(TERM, {"a": None}, 5.0, 100.0, 50.0)
    assert timers.due(1000.0) is None
    assert timers.reap(1000.0) == []


def test_a_new_or_silent_node_that_is_heard_passes() -> None:
    timers = BeatTimers(TERM, {"new": None, "silent": False}, 5.0, 100.0, 50.0)
    timers.heard("new", 51.0)
    timers.heard("silent", 51.0)
    timers.heard("unknown", 51.0)
    assert named(timers.due(51.0)) == {"new": "passing", "silent": "passing"}
    assert timers.due(51.1) is None


def test_a_node_that_passes_from_the_start_but_never_beats_turns_critical() -> None:
    timers = BeatTimers(TERM, {}, 5.0, 100.0, 50.0)
    timers.sync({"a": True}, 60.0)
    assert timers.due(64.9) is None
    assert named(timers.due(65.0)) == {"a": "critical"}


def test_a_flip_on_its_way_is_not_undone_by_what_the_state_still_says() -> None:
    timers = BeatTimers(TERM, {"a": True}, 5.0, 100.0, 50.0)
    assert named(timers.due(55.0)) == {"a": "critical"}
    timers.sync({"a": True, "b": None}, 55.1)
    assert timers.due(56.0) is None
    timers.sync({"a": False, "b": None}, 56.1)
    assert timers.due(57.0) is None
    assert timers.due(90.0) is None
    timers.heard("a", 90.0)
    assert named(timers.due(90.0)) == {"a": "passing"}


def test_a_flip_that_never_comes_into_the_state_is_made_again() -> None:
    timers = BeatTimers(TERM, {"a": True}, 5.0, 100.0, 50.0)
    assert named(timers.due(55.0)) == {"a": "critical"}
    timers.sync({"a": True}, 61.0)
    assert named(timers.due(66.0)) == {"a": "critical"}


def test_refused_flips_are_due_again() -> None:
    timers = BeatTimers(TERM, {"dead": True, "back": False}, 5.0, 100.0, 50.0)
    timers.heard("back", 54.0)
    command = timers.due(55.0)
    assert named(command) == {"dead": "critical", "back": "passing"}
    assert command is not None
    timers.refused(command)
    assert named(timers.due(55.1)) == {"dead": "critical", "back": "passing"}


def test_a_dead_node_is_taken_out_once_and_again_if_refused() -> None:
    timers = BeatTimers(TERM, {"a": True, "b": False}, 5.0, 100.0, 50.0)
    assert named(timers.due(55.0)) == {"a": "critical"}
    assert timers.reap(149.9) == []
    assert timers.reap(150.0) == [Deregister("b")]
    assert timers.reap(155.0) == [Deregister("a")]
    assert timers.reap(160.0) == []
    timers.reap_refused(Deregister("a"))
    assert timers.reap(160.0) == [Deregister("a")]


def test_a_node_that_comes_back_is_not_taken_out() -> None:
    timers = BeatTimers(TERM, {"a": False}, 5.0, 100.0, 50.0)
    timers.heard("a", 149.0)
    assert timers.reap(151.0) == []


def test_a_removed_node_is_forgotten() -> None:
    timers = BeatTimers(TERM, {"a": True, "b": False}, 5.0, 100.0, 50.0)
    timers.sync({}, 51.0)
    assert timers.due(60.0) is None
    assert timers.reap(200.0) == []
    assert timers.count == 0


def test_many_flips_are_told_in_portions() -> None:
    nodes = {f"n{number}": True for number in range(1500)}
    timers = BeatTimers(TERM, dict(nodes), 5.0, 100.0, 50.0)
    first, second = timers.due(55.0), timers.due(55.0)
    assert first is not None
    assert second is not None
    assert [len(first.nodes), len(second.nodes)] == [1000, 500]
    assert {status.node for command in (first, second) for status in command.nodes} == set(nodes)
    assert isinstance(first.nodes[0], NodeStatus)
