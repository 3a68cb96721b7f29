"""Rules of the list (docs/rules.md) that live in the storage and have no other test."""

import hashlib
from pathlib import Path

import pytest

from coordd.messages.entry import encode_configuration
from coordd.storage import failures, files, log_store, snapshot_store
from coordd.storage.high_water import read_mark
from coordd.storage.log_store import LogStore
from coordd.storage.snapshot_store import SnapshotStore
from coordd.types import Base, Configuration, HardState, LogSlice, LogWrite, SnapshotMeta
from tests.storage.support import CANDIDATE, NAME, append, copy_of, filled

CONFIGURATION = Configuration("c", "c", ())


class CrashError(Exception):
    """The test's own: the machine stops here."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, frozenset[str]]]:
    """What was synced, in order, each with the names that were in the folder by then."""
    seen: list[tuple[str, frozenset[str]]] = []
    sync_file, sync_path = failures.sync_file, files.sync_path

    def note(path: Path) -> None:
        seen.append((path.name, frozenset(found.name for found in tmp_path.iterdir())))

    def noted_file(descriptor: int, path: Path, data_only: bool = True) -> None:
        sync_file(descriptor, path, data_only)
        note(path)

    def noted_path(path: Path) -> None:
        sync_path(path)
        note(path)

    monkeypatch.setattr(files, "sync_file", noted_file)
    monkeypatch.setattr(snapshot_store, "sync_path", noted_path)
    return seen


def test_rule_9_the_name_of_a_new_file_is_synced_after_the_file(
    synced: list[tuple[str, frozenset[str]]], tmp_path: Path
) -> None:
    files.write_durably(tmp_path / "identity.json", b"{}")
    assert synced == [
        ("identity.json.new", frozenset({"identity.json.new"})),
        (tmp_path.name, frozenset({"identity.json"})),
    ]


def test_rule_9_the_name_of_a_received_snapshot_is_synced_after_its_content(
    synced: list[tuple[str, frozenset[str]]], tmp_path: Path
) -> None:
    content = b"a snapshot"
    meta = SnapshotMeta(7, 2, 0, CONFIGURATION, 1, len(content), hashlib.sha256(content).hexdigest())
    incoming = SnapshotStore(tmp_path).receive(meta)
    assert incoming.write(0, content)
    name = incoming.finish()
    assert name is not None
    (first, before), *_ = synced
    assert first.startswith("incoming-")
    assert name not in before
    assert synced[-1] == (tmp_path.name, frozenset({name}))


def test_rule_3_an_entry_never_lies_on_disk_without_its_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the entries are there and the high-water mark, which knows the term too, is not yet raised."""
    store = filled(tmp_path / "data", 3)

    def crash(_: LogStore) -> None:
        raise CrashError

    monkeypatch.setattr(LogStore, "_raise_mark", crash)
    with pytest.raises(CrashError):
        store.write([append(4, 4, ["x"], term=5, vote=CANDIDATE)])
    monkeypatch.undo()
    recovered = LogStore.open(copy_of(tmp_path / "data"), NAME).recover()
    assert recovered.tail.last == 4
    assert (recovered.hard_state.term, recovered.hard_state.vote) == (5, CANDIDATE)


def test_rule_74_a_configuration_is_recovered_committed_or_not(tmp_path: Path) -> None:
    store = filled(tmp_path / "data", 3)
    piece = LogSlice(4, [encode_configuration(CONFIGURATION)], ((4, 1),))
    store.write([LogWrite(4, HardState(1, None, 2), piece, must_sync=True)])
    store.close()
    recovered = LogStore.open(tmp_path / "data", NAME).recover()
    assert recovered.hard_state.commit == 2
    assert recovered.configurations == ((4, CONFIGURATION),)


def test_rule_111_the_mark_never_runs_ahead_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the entries are there: what was never promised is not missed."""
    store = filled(tmp_path / "data", 3)

    def crash(*_: object) -> None:
        raise CrashError

    monkeypatch.setattr(LogStore, "_transaction", crash)
    with pytest.raises(CrashError):
        store.write([append(4, 4, ["x"])])
    monkeypatch.undo()
    mark = read_mark(tmp_path / "data" / "high_water")
    assert mark is not None
    assert mark.last == 3
    recovered = LogStore.open(copy_of(tmp_path / "data"), NAME).recover()
    assert (recovered.tail.last, recovered.promised) == (3, 3)


def test_rule_79_an_install_is_recorded_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the old entries are gone and the new base is not yet there: both, or neither."""
    store = filled(tmp_path / "data", 3)

    def crash(*_: object) -> None:
        raise CrashError

    monkeypatch.setattr(log_store, "store_base", crash)
    with pytest.raises(CrashError):
        store.install(Base(30, 6, 96))
    monkeypatch.undo()
    recovered = LogStore.open(copy_of(tmp_path / "data"), NAME).recover()
    assert (recovered.base.index, recovered.tail.last) == (0, 3)
