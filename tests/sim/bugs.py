"""Bugs to plant: each takes a rule out of the product, or turns it into its opposite. `planted.py` shows who notices."""

from dataclasses import dataclass

from tests.sim.mutation import Edit

__all__ = ["BUGS", "Bug"]

CORE = "coordd.raft"
STORAGE = "coordd.storage"
STATE = "coordd.state"
SERVER = "coordd.server"


@dataclass(frozen=True)
class Bug:
    rule: str
    """The rule of the project's list that it removes, or the invariant."""
    edits: tuple[Edit, ...]
    """Text is as if the function stood at the left margin."""
    test: str = ""
    """The test that notices, below `tests/`, where no seed can: in what the simulator does not run, or far below it."""


def bug(rule: str, where: str, old: str, new: str, test: str = "") -> Bug:
    return Bug(rule, (Edit(where, old, new),), test)


BUGS: dict[str, Bug] = {
    "vote not stored": bug(
        "1",
        f"{CORE}.replica:Replica.write_out",
        "HardState(self.term, self.vote, self.log.commit)",
        "HardState(self.term, None, self.log.commit)",
    ),
    "ack before fsync": bug(
        "4",
        f"{CORE}.replica:Replica.send_after_persist",
        "self.out.messages_after_persist.append(message)",
        "self.out.messages_now.append(message)",
    ),
    "vote asked for before the own one is durable": bug(
        "109", f"{CORE}.election:_ask_all", "r.send if pre else r.send_after_persist", "r.send"
    ),
    "leader counts what its disk does not have": bug(
        "2", f"{CORE}.leadership:_held_by", "return r.log.durable", "return r.log.last"
    ),
    "commit by counting entries of old terms": bug(
        "48", f"{CORE}.leadership:advance_commit", "or r.log.term(index) != r.term", ""
    ),
    "no look at the candidate's log": bug("14", f"{CORE}.election:_up_to_date", "return (", "return True or ("),
    "two votes in one term": bug("15", f"{CORE}.election:_may_vote", "return r.vote ==", "return True or r.vote =="),
    "truncate after prev": bug(
        "34",
        f"{CORE}.replication:handle_append",
        "conflict = log.first_conflict(message.slice)",
        "conflict = message.previous_index + 1 if message.slice.entries else None",
    ),
    "commit beyond the verified prefix": bug(
        "35",
        f"{CORE}.replication:handle_append",
        "    if conflict is not None:",
        "    log.commit = max(log.commit, min(message.commit, log.last))\n    if conflict is not None:",
    ),
    "heartbeat commits what was not verified": bug(
        "36", f"{CORE}.replication:heartbeat", "commit = min(progress.match, r.log.commit)", "commit = r.log.commit"
    ),
    "completion of replaced entries counts": bug(
        "97",
        f"{CORE}.log:RaftLog.truncate",
        "min(last, index - 1)",
        "last",
    ),
    "applied beyond the own disk": bug(
        "50", f"{CORE}.replica:Replica.report_committed", "min(self.log.commit, self.log.durable)", "self.log.commit"
    ),
    "read index without a quorum round": bug(
        "54",
        f"{CORE}.reads:_accept",
        "    leading.reads.append(read)",
        "    _answer(r, read, read.index) if read.index else leading.reads.append(read)",
    ),
    "read joins a round that is under way": bug(
        "56",
        f"{CORE}.reads:_accept",
        "    leading.reads.append(read)",
        "    read.round = leading.round if read.index else 0\n    leading.reads.append(read)",
    ),
    "token of a round used again": bug(
        "55", f"{CORE}.replication:heartbeat", "leading.round += 1", "leading.round = max(1, leading.round)"
    ),
    "reads before an own commit": bug(
        "54", f"{CORE}.reads:_accept", "if r.log.commit >= leading.term_start:", "if True:"
    ),
    "lease kept during a transfer": Bug(
        "58",
        (
            Edit(
                f"{CORE}.leadership:_continue_transfer",
                "leading.lease_forfeited = True\n        leading.lease_until = 0.0",
                "pass",
            ),
            Edit(f"{CORE}.reads:lease_valid", "and leading.transfer is None", ""),
        ),
    ),
    "lease longer than an election": bug(
        "59", f"{CORE}.reads:round_answered", "sent + r.settings.lease_duration", "sent + 4 * r.settings.lease_duration"
    ),
    "lease counted from the answer": bug(
        "59", f"{CORE}.reads:round_answered", "leading.lease_until = sent + ", "leading.lease_until = now + "
    ),
    "lease without deafness": bug(
        "25", f"{CORE}.election:is_deaf", "    if message.transfer:\n        return False", "    return False"
    ),
    "two changes at once": bug(
        "65",
        f"{CORE}.membership:_not_now",
        "if r.configuration_index > r.log.commit or configuration.joint:",
        "if False:",
    ),
    "change before an own commit": bug(
        "65", f"{CORE}.membership:_not_now", "if r.log.commit < leading.term_start:", "if False:"
    ),
    "one majority during a joint change": bug(
        "67",
        f"{CORE}.quorum:halves_of",
        "return (configuration.voters, configuration.outgoing)",
        "return (configuration.voters,)",
    ),
    "change not rolled back": bug(
        "66",
        f"{CORE}.replica:Replica.drop_configurations_from",
        "if self.configuration_index >= index > 0:",
        "if False:",
    ),
    "snapshot without configuration": bug(
        "73",
        f"{CORE}.snapshots:installed",
        "r.configurations = [(snapshot.configuration_index, snapshot.configuration)]",
        "pass",
    ),
    "log dropped beyond what is applied": bug(
        "10", f"{CORE}.snapshots:asked", "min(event.index, r.log.applied, r.log.durable)", "r.log.durable"
    ),
    "no noop": bug("49", f"{CORE}.leadership:lead", "replication.append(r, leading, [NOOP_ENTRY])", "pass"),
    "write applied twice": bug(
        "92",
        f"{STATE}.clients:Clients.known_result",
        "if (reply := client.replies.get(number)) is not None:",
        "if (reply := None) is not None:",
    ),
    "fencing token of another grant": bug("14", f"{STATE}.locks:_grant", "rows.index", "rows.index // 40"),
    "expiry by a deposed leader": bug(
        "94",
        f"{STATE}.sessions:expire",
        "if command.term != rows.term:",
        "if False:",
        "state/test_sessions.py::test_expire_names_a_life_and_a_term",
    ),
    "renewed session expires": bug("94", f"{SERVER}.expiry:SessionTimers.renew", "self._set(session, now)", "pass"),
    "watch event lost while there is no credit": bug(
        "invariant 15",
        f"{SERVER}.watches:Watches._wake",
        "watch.dirty = True\n        if watch.credit <= 0:\n            return",
        "if watch.credit <= 0:\n            return\n        watch.dirty = True",
    ),
    "vote neither written nor marked": Bug(
        "1",
        (
            Edit(
                f"{STORAGE}.log_store:LogStore._store", "if self._hard_state != self._stored_hard_state:", "if False:"
            ),
            Edit(f"{STORAGE}.log_store:LogStore._raise_mark", "vote=self._hard_state.vote", "vote=None"),
        ),
    ),
    "replaced entries stay": bug(
        "34",
        f"{STORAGE}.log_store:LogStore._store",
        '"DELETE FROM entries WHERE idx >= ?"',
        '"DELETE FROM entries WHERE idx > ?"',
    ),
    "answer to another number": bug(
        "92", f"{STATE}.clients:Clients.record", "client.replies[header.number] = result", "client.replies[1] = result"
    ),
    "numbers forgotten in snapshots": bug(
        "92", f"{STATE}.clients:Clients.flush", "_encode(client.replies).decode()", '"{}"'
    ),
    "waiters served in any order": bug(
        "invariant 14", f"{STATE}.locks:_settle_one", "ORDER BY sequence LIMIT 1", "ORDER BY sequence DESC LIMIT 1"
    ),
    "lock delay forgotten": bug("invariant 14", f"{STATE}.locks:_free", "lock.mode, delayed_until)", "lock.mode, 0)"),
    "ended session still waits": bug(
        "invariant 14",
        f"{STATE}.locks:release_session",
        "_leave(rows, waiter)",
        "pass",
    ),
    "fence not looked at": bug("invariant 14", f"{STATE}.kv:_check_fence", "lock.token != fence.token", "False"),
    "stale read of any age": bug("63", f"{SERVER}.reads:Reads._stale", "if bound and", "if False and"),
    "blocking read ends with the past": bug(
        "invariant 15", f"{SERVER}.reads:Reads._evaluate", "<= read.index:", "< read.index:"
    ),
    "state applied twice after a restart": bug(
        "11", f"{STATE}.machine:Machine._finish", "self._rows.meta.put(self._meta())", "pass"
    ),
    # --- storage: what a power cut or a damaged disk shows -----------------------------------------------------------
    "synchronous off": bug(
        "7",
        f"{STORAGE}.opening:open_database",
        '"synchronous=FULL"',
        '"synchronous=OFF"',
        "storage/test_log_store.py::test_every_commit_is_synced_and_checkpoints_are_our_own",
    ),
    "mark not synced": bug(
        "111",
        f"{STORAGE}.high_water:HighWater.write",
        "sync_file(self._descriptor, self.path)",
        "pass",
        "storage/test_log_store.py::test_a_disk_error_at_the_mark_is_fatal_and_nothing_is_promised[fdatasync]",
    ),
    "log cut before the state is on the disk": Bug(
        "10",
        (
            Edit(f"{SERVER}.upkeep:Upkeep.turn", "checkpoint_file(path)", "None"),
            Edit(f"{SERVER}.upkeep:Upkeep._moved", "if not self._node.machine.checkpoint():", "if False:"),
        ),
    ),
    "mark raised before the log is durable": bug(
        "111",
        f"{STORAGE}.log_store:LogStore._store",
        "    with self._transaction():",
        "    self._high_water.write(msgspec.structs.replace(self._high_water.mark, last=first + len(rows) - 1))\n"
        "    with self._transaction():",
        "storage/test_rules_storage.py::test_rule_111_the_mark_never_runs_ahead_of_the_log",
    ),
    "mark never raised": bug(
        "111",
        f"{STORAGE}.log_store:LogStore._raise_mark",
        "last=mark.last if owing else self._last",
        "last=0",
        "storage/test_damage.py::test_nothing_is_acknowledged_before_the_mark_has_it",
    ),
    "completions out of order": bug(
        "98",
        f"{STORAGE}.writer:LogWriter.submit",
        "self._jobs.append(job)",
        "self._jobs.appendleft(job)",
        "storage/test_writer.py::test_jobs_run_in_order",
    ),
    "truncation without lowering the mark": bug(
        "111",
        f"{STORAGE}.log_store:LogStore._promising_no_more_than",
        "if not mark.refilling and mark.last > last:",
        "if False:",
        "storage/test_damage.py::test_the_mark_is_lowered_before_entries_are_replaced",
    ),
    "a state found damaged stays in use": bug(
        "28",
        f"{SERVER}.scrubbing:Scrubbing._finish",
        "if fault and judged:",
        "if False:",
        "server/test_scrubbing.py::test_a_byte_that_turned_over_takes_the_state_out_of_use",
    ),
    "differing digests are ignored": bug(
        "91", f"{SERVER}.comparison:Comparison._judge", "set(known.values()) == {own}", "True"
    ),
    "compared before it knows its own name": bug(
        "91", f"{SERVER}.state_care:StateCare.__init__", "Comparison(me,", "Comparison(replica.me,"
    ),
    "takes office without a state": Bug(
        "28",
        (
            Edit(f"{CORE}.election:_promotable", "and not r.stateless", ""),
            Edit(f"{CORE}.election:_decide", "(r.installing or r.stateless)", "r.installing"),
        ),
    ),
    "answers without a state": bug("28", f"{SERVER}.authority:Authority.of", "if self._node.refill.lost:", "if False:"),
    "installed snapshot recorded in two steps": bug(
        "79",
        f"{STORAGE}.log_store:LogStore.install",
        "    store_base(self._connection, base)",
        "    pass\n    with self._transaction():\n        store_base(self._connection, base)",
        "storage/test_rules_storage.py::test_rule_79_an_install_is_recorded_as_a_whole",
    ),
    "installed snapshot not recorded": bug(
        "79", f"{STORAGE}.log_store:LogStore.install", "store_base(self._connection, base)", "pass"
    ),
    "chain not verified": bug(
        "106",
        f"{STORAGE}.recovery:_verify",
        "if scan.chain != chain or",
        "if",
        "storage/test_damage.py::test_flips_in_the_database_are_refused_or_change_nothing",
    ),
    "torn log taken for its end": bug(
        "9",
        f"{STORAGE}.recovery:judge",
        "promised=mark.last",
        "promised=scan.index",
        "storage/test_damage.py::test_a_wal_cut_short_is_amnesia_and_evidence_is_kept",
    ),
    "damaged entry sent on": bug(
        "106",
        f"{STORAGE}.log_store:LogStore._verified",
        "if chain_of(before, index, term, data) == stored:",
        "if True:",
        "storage/test_damage.py::test_an_entry_that_rots_while_running_is_not_sent",
    ),
    "forgotten vote not taken from the mark": bug(
        "1",
        f"{STORAGE}.recovery:_newer",
        "if mark.term > stored.term:",
        "if False:",
        "storage/test_damage.py::test_a_forgotten_term_and_vote_come_from_the_mark",
    ),
    "snapshot not compared with its digest": bug(
        "84",
        f"{STORAGE}.snapshot_store:Incoming.finish",
        "if digest_of(self._part, self._pace) != self._snapshot.digest:",
        "if False:",
        "storage/test_snapshot_store.py::test_a_snapshot_that_differs_is_deleted",
    ),
    "log cut one entry too far": bug("85", f"{STORAGE}.log_store:LogStore._trim", "(stop,)", "(stop + 1,)"),
    "term alone is not stored": bug(
        "3",
        f"{STORAGE}.log_store:LogStore.write",
        "if not slices and not any(write.must_sync for write in writes):",
        "if not slices:",
    ),
}
