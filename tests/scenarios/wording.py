"""How a scenario's trace says things: one line for each message, write and change of a server's mind."""

from coordd.messages.peer import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    RaftMessage,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from coordd.raft.progress import Progress
from coordd.types import Configuration, LogSlice, LogWrite, SnapshotMeta
from tests.raft.cluster import Server

__all__ = [
    "KINDS",
    "describe_configuration",
    "describe_log",
    "describe_message",
    "describe_progress",
    "describe_write",
    "status",
]

KINDS: dict[str, type] = {
    "vote": RequestVote,
    "vote-answer": VoteResponse,
    "append": AppendEntries,
    "append-answer": AppendResponse,
    "heartbeat": Heartbeat,
    "heartbeat-answer": HeartbeatResponse,
    "snapshot": InstallSnapshot,
    "order": TimeoutNow,
    "read": ReadIndexRequest,
    "read-answer": ReadIndexResponse,
}


def describe_message(message: RaftMessage) -> str:
    return f"{message.sender} -> {message.receiver}  {_words(message)}"


def _words(message: RaftMessage) -> str:
    match message:
        case RequestVote():
            what = "pre-vote" if message.pre else "vote"
            by_order = ", by order" if message.transfer else ""
            return (
                f"asks for {what} in term {message.term}, log ends {message.last_index}/{message.last_term}{by_order}"
            )
        case VoteResponse():
            what = "pre-vote" if message.pre else "vote"
            return f"{'grants' if message.granted else 'refuses'} {what}, term {message.term}"
        case AppendEntries():
            behind = f"behind {message.previous_index}/{message.previous_term}"
            return f"append {describe_slice(message.slice)} {behind}, commit {message.commit}, term {message.term}"
        case AppendResponse(rejected=None):
            return f"has {message.index}{', refilling' if message.refilling else ''}, term {message.term}"
        case AppendResponse():
            return f"lacks {message.rejected}, try {message.index}/{message.hint_term}, term {message.term}"
        case Heartbeat():
            return f"heartbeat {message.round}, commit {message.commit}, term {message.term}"
        case HeartbeatResponse():
            return f"heard {message.round}, term {message.term}"
        case InstallSnapshot():
            return f"snapshot {message.snapshot.index}/{message.snapshot.term}, term {message.term}"
        case TimeoutNow():
            return f"campaign now, term {message.term}"
        case ReadIndexRequest():
            return "which index for a read?"
        case ReadIndexResponse():
            return f"read at {message.index}"


def describe_slice(piece: LogSlice) -> str:
    if not piece.entries:
        return "nothing"
    return " ".join(f"{index}/{term}" for index, term in enumerate(piece.terms(), start=piece.first))


def describe_write(job: LogWrite | SnapshotMeta) -> str:
    if isinstance(job, SnapshotMeta):
        return f"snapshot {job.index}/{job.term}"
    said = f"term {job.hard_state.term}, vote {job.hard_state.vote or '-'}"
    return said if job.slice is None else f"{said}, entries {describe_slice(job.slice)}"


def describe_configuration(configuration: Configuration | None) -> str:
    if configuration is None:
        return "no configuration"
    said = f"voters {' '.join(configuration.voters)}"
    learners = [f"{m.id}{'+' if m.promote else ''}" for m in configuration.members if not m.voter]
    if learners:
        said += f", learners {' '.join(learners)}"
    return f"{said}, jointly with {' '.join(configuration.outgoing)}" if configuration.joint else said


def describe_progress(progress: Progress) -> str:
    return f"{progress.peer} {progress.state.value} match {progress.match} next {progress.next}"


def describe_log(server: Server) -> str:
    """Runs of equal terms: `1-3:1 4:2`."""
    log = server.replica.log
    said, first = [] if log.base_index == 0 else [f"..{log.base_index}:{log.base_term}"], log.base_index + 1
    terms = server.log()
    for offset, term in enumerate(terms):
        index = log.base_index + 1 + offset
        if offset + 1 == len(terms) or terms[offset + 1] != term:
            said.append(f"{first}:{term}" if first == index else f"{first}-{index}:{term}")
            first = index + 1
    return " ".join(said) or "empty"


def status(server: Server) -> str:
    if not server.up:
        return f"{server.id} is down"
    r = server.replica
    said = f"{server.id} {r.role.value}, term {r.term}, leader {r.leader or '-'}"
    said += f", log {describe_log(server)}, commit {r.log.commit}"
    if r.log.durable != r.log.last:
        said += f", durable {r.log.durable}"
    if r.leading is not None:
        said += "".join(f"; {describe_progress(progress)}" for progress in r.leading.peers.values())
    return said
