"""Bugs to plant, each a rule removed, and the seeds that catch them.

`python -m tests.sim.planted [NAME…]` looks for a seed for each and prints the table; a bug that survives means that the
simulator is blind there. `test_planted.py` catches each again, beginning with the seed noted here.
"""

import sys
from dataclasses import dataclass

from tests.sim.mutation import Edit, planted
from tests.sim.run import Outcome, run
from tests.sim.surroundings import Options

__all__ = ["BUGS", "SEEDS", "Bug", "hunt"]

TRIED = 40
"""Seeds that a search tries."""
SECONDS = 20.0
"""Simulated, of each."""

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


def bug(rule: str, where: str, old: str, new: str) -> Bug:
    return Bug(rule, (Edit(where, old, new),))


SEEDS: dict[str, int] = {
    "vote not stored": 1,
    "ack before fsync": 1,
    "vote asked for before the own one is durable": 1,
    "leader counts what its disk does not have": 1,
    "commit by counting entries of old terms": 3,
    "no look at the candidate's log": 2,
    "two votes in one term": 1,
    "truncate after prev": 7,
    "commit beyond the verified prefix": 2,
    "heartbeat commits what was not verified": 3,
    "completion of replaced entries counts": 11,
    "applied beyond the own disk": 1,
    "read index without a quorum round": 4,
    "reads before an own commit": 25,
    "lease kept during a transfer": 15,
    "lease longer than an election": 5,
    "two changes at once": 3,
    "change before an own commit": 5,
    "one majority during a joint change": 23,
    "change not rolled back": 4,
    "snapshot without configuration": 5,
    "log dropped beyond what is applied": 1,
    "no noop": 1,
    "write applied twice": 2,
    "fencing token of another grant": 1,
    "renewed session expires": 1,
    "watch event lost while there is no credit": 15,
    "vote neither written nor marked": 1,
    "replaced entries stay": 1,
}
"""Bug and the first seed that caught it, of those tried; `python -m tests.sim.planted` prints this table anew."""

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
}


def hunt(name: str, seeds: range, servers: int = 5) -> Outcome | None:
    """The first run that fails with the bug planted, and not without."""
    subject = BUGS[name]
    for seed in seeds:
        options = Options(seed, SECONDS, servers)
        with planted(*subject.edits):
            outcome = run(options)
        if outcome.failure and not run(options).failure:
            return outcome
    return None


def main(names: list[str]) -> int:
    survivors = 0
    for name in names or list(BUGS):
        first = SEEDS.get(name, 1)
        try:
            found = hunt(name, range(first, first + TRIED))
        except LookupError as error:
            print(f"{name:<45} CAN'T BE PLANTED: {error}", flush=True)
            survivors += 1
            continue
        survivors += found is None
        told = f"seed {found.options.seed:>4}: {found.failure}" if found else "SURVIVED"
        print(f"{name:<45} {told[:150]}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
