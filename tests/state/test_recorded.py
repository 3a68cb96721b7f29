"""Today's code makes of the logs of earlier levels what the versions that recorded them made of them (recording.py)."""

from pathlib import Path

import pytest

from coordd.messages import levels
from coordd.messages.command import Done, Failure, LockGrant
from coordd.state.machine import Machine
from tests.state import recording

FILES = sorted(recording.FOLDER.glob("level-*.jsonl"))


def test_every_level_has_its_file() -> None:
    expected = {recording.file_of(level) for level in range(levels.FIRST, levels.SUPPORTED + 1)}
    assert set(FILES) == expected, "record the new level: python -m tests.state.recording"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rule_93_the_recorded_log_of_a_level_has_the_same_results_and_digests(path: Path) -> None:
    recorded = recording.load(path)
    assert recorded
    now = recording.replay((line.term, bytes.fromhex(line.entry)) for line in recorded)
    for then, line in zip(recorded, now, strict=True):
        assert line == then, f"{path.name}: entry {then.index} ({then.kind}) does something else now"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_in_large_batches_too(path: Path) -> None:
    recorded = recording.load(path)
    machine = Machine.open(":memory:")
    machine.apply(1, [(line.term, bytes.fromhex(line.entry)) for line in recorded])
    assert f"{machine.digest:032x}" == recorded[-1].digest
    machine.close()


@pytest.mark.parametrize("level", range(levels.FIRST, levels.SUPPORTED + 1))
def test_every_kind_of_command_is_in_it_with_and_without_success(level: int) -> None:
    ends: dict[str, set[str]] = {}
    for line in recording.load(recording.file_of(level)):
        match line.result:
            case Done(ok=ok):
                ends.setdefault(line.kind, set()).add("done" if ok else "refused")
            case LockGrant(token=token):
                ends.setdefault(line.kind, set()).add("held" if token else "waits")
            case Failure(code=code):
                ends.setdefault(line.kind, set()).add(code)
            case None:
                pass
    kinds = {kind.__name__ for kind, introduced in levels.INTRODUCED.items() if introduced <= level}
    assert set(ends) == kinds
    always_done = {"KvDeleteTree", "DestroySession", "AclDeleteToken"}
    if level == levels.FIRST:
        always_done.add("RaiseFeatureLevel")  # there is no level above
    assert {kind for kind, of in ends.items() if len(of) < 2} <= always_done


def test_a_recorded_file_is_never_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    before = [path.read_bytes() for path in FILES]
    assert recording.main() == 1
    assert "never written again" in capsys.readouterr().out
    assert [path.read_bytes() for path in FILES] == before
