"""Removals of what an operator meets over the years: upgrades, new addresses, transfers beside the daily work."""

from tests.removals.words import MEMBERSHIP, Removal, gone

__all__ = ["REMOVALS"]

_SERVER = "server/test_levels.py::"
_STATE = "state/test_levels.py::"

MOVED: tuple[Removal, ...] = (
    gone(
        78,
        "server.roster:Roster.contacts",
        "self.addresses(m)[0]",
        "m.raft_address",
        "server/test_roster.py::test_rule_78_the_local_file_says_where_members_are_reached",
    ),
    gone(
        78,
        "raft.membership:_elsewhere",
        "**addresses",
        "",
        MEMBERSHIP + "test_rule_78_a_move_changes_the_addresses_and_nothing_else",
        MEMBERSHIP + "test_rule_78_a_move_is_a_change_like_others",
        "server/test_operator.py::test_rule_78_a_server_moves_when_that_is_committed",
    ),
    gone(
        78,
        "raft.membership:request",
        "or moved in new.voters",
        "",
        MEMBERSHIP + "test_rule_78_a_move_that_might_cost_the_quorum_is_refused_unless_forced",
    ),
    gone(
        78,
        "raft.membership:_healthy_quorum",
        "s != moved and ",
        "",
        MEMBERSHIP + "test_rule_78_a_move_that_might_cost_the_quorum_is_refused_unless_forced",
    ),
    gone(
        78,
        "raft.membership:_healthy_quorum",
        "if new.voters == (moved,):",
        "if False:",
        MEMBERSHIP + "test_rule_78_a_learner_and_a_single_server_move_freely",
    ),
)

UPGRADED: tuple[Removal, ...] = (
    gone(
        95,
        "server.levels:Levels.supported_by",
        "(hello.sender, hello.boot) != (member.id, progress.boot)",
        "False",
        _SERVER + "test_rule_95_a_server_of_an_earlier_life_has_said_nothing",
    ),
    gone(
        95,
        "server.levels:next_level",
        "or len(known) < len(supported)",
        "",
        _SERVER + "test_the_next_level_is_the_highest_that_all_support",
    ),
    gone(
        95,
        "server.levels:next_level",
        "min(known)",
        "max(known)",
        _SERVER + "test_rule_95_the_level_rises_when_the_last_server_was_upgraded",
        _SERVER + "test_rule_95_learners_count_too",
    ),
    gone(
        95,
        "server.api:Api._write",
        "self._levels.demand(command)",
        "pass",
        _SERVER + "test_rule_95_a_command_above_the_level_is_refused_and_says_who_holds_it_back",
    ),
    gone(
        95,
        "server.api:Api.propose",
        "level_of(command) <= self._node.machine.feature_level",
        "True",
        _SERVER + "test_rule_95_the_leader_itself_proposes_nothing_above_the_level",
    ),
    gone(
        95,
        "server.operator:Operator._go_on_adding",
        "self._levels.demand_of_newcomer(adding.contact.public_key)",
        "pass",
        _SERVER + "test_rule_95_a_server_that_supports_less_is_not_added",
    ),
    gone(
        95,
        "server.levels:Levels.demand_of_newcomer",
        "max(self._node.machine.feature_level, under_way)",
        "self._node.machine.feature_level",
        _SERVER + "test_rule_95_nor_while_the_raise_is_under_way",
    ),
    gone(
        95,
        "state.levels:raise_level",
        "command.term != rows.term or ",
        "",
        _STATE + "test_rule_95_a_raise_under_another_term_does_nothing",
    ),
    gone(
        95,
        "state.levels:raise_level",
        'require_supported(f"entry {rows.index} of the log", command.level)',
        "pass",
        _STATE + "test_rule_95_a_version_that_does_not_know_the_level_stops_and_changes_nothing",
    ),
    gone(
        95,
        "state.machine:_check",
        "require_supported(path, machine.feature_level)",
        "pass",
        _STATE + "test_rule_95_a_state_of_a_level_that_is_not_known_is_not_opened",
    ),
)

UNREADABLE: tuple[Removal, ...] = (
    gone(
        95,
        "state.position:read_position",
        "require_supported(str(path), row[4])",
        "pass",
        "server/test_snapshots.py::test_rule_95_a_snapshot_of_a_higher_level_ends_the_server_before_anything_is_replaced",
        "state/test_position.py::test_rule_95_a_file_of_a_later_version_is_not_taken_for_a_damaged_one",
    ),
)

_RECORDED = "state/test_recorded.py::test_rule_93_the_recorded_log_of_a_level_has_the_same_results_and_digests"

AGREED: tuple[Removal, ...] = (
    gone(93, "state.kv:_write", "old.modify_index if same else index", "index", _RECORDED),
    gone(93, "state.limits:check_text", "len(text) > limit", "len(text) > limit + 1", _RECORDED),
    gone(
        93,
        "state.kv:_acquire",
        "{session[:64]!a}",
        "{session[:64]!r}",
        "state/test_clients.py::test_a_failure_reads_the_same_under_every_python",
    ),
)

_SNAPSHOTS = "server/test_snapshots.py::"
_STORE = "storage/test_snapshot_store.py::"

BESIDE: tuple[Removal, ...] = (
    gone(
        82,
        "server.snapshots:Snapshots._under_way",
        "self._receivers",
        "None",
        _SNAPSHOTS + "test_rule_82_only_so_many_followers_are_sent_to_at_once",
    ),
    gone(
        82,
        "server.snapshots:Snapshots.turn",
        "transfer.progress_at = now",
        "pass",
        _SNAPSHOTS + "test_rule_82_who_waits_for_another_is_not_given_up_and_gets_the_place_of_one_that_stands_still",
    ),
    gone(
        82,
        "server.snapshots:Snapshots.turn",
        "min(self._idle_seconds, _GIVE_WAY_SECONDS) if others_wait else self._idle_seconds",
        "self._idle_seconds",
        _SNAPSHOTS + "test_rule_82_who_waits_for_another_is_not_given_up_and_gets_the_place_of_one_that_stands_still",
    ),
    gone(
        82,
        "server.snapshots:Snapshots.open",
        "self._helper.run(lambda: self._open_state(str(self._store.path(state_file))), opened, failed)",
        "opened(self._open_state(str(self._store.path(state_file))))",
        _SNAPSHOTS + "test_a_file_that_is_being_installed_stays",
    ),
    gone(
        83,
        "server.log_reader:LogReader.turn",
        "self._looked_behind == log.base_index and",
        "",
        "server/test_operator.py::test_rule_83_the_age_of_the_oldest_entry_is_told",
    ),
    gone(
        100,
        "server.snapshots:Snapshots._push",
        "and not self._quota.pause(now)",
        "",
        _SNAPSHOTS + "test_rule_100_no_more_is_sent_in_a_second_than_the_rate_allows",
    ),
    gone(
        100,
        "storage.snapshot_store:digest_of",
        "if not work.reached(done):",
        "if False:",
        _STORE + "test_rule_100_reading_a_file_keeps_to_the_rate",
    ),
    gone(
        100,
        "storage.pace:Work.reached",
        "if ahead > 0:",
        "if False:",
        _STORE + "test_rule_100_a_copy_keeps_to_the_rate",
    ),
    gone(
        100,
        "server.quota:Quota.spent",
        "self._left -= size",
        "pass",
        _SNAPSHOTS + "test_rule_100_no_more_is_sent_in_a_second_than_the_rate_allows",
    ),
)

REMOVALS = MOVED + UPGRADED + UNREADABLE + AGREED + BESIDE
