"""A ledger verified in parts has the verdict it has in one go; what one part takes for granted, another one proves.

That each way to tamper is found in parts too, under its own name, is in ``test_ledger_tampering`` and
``test_ledger_forging``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    Checkpoint,
    Entry,
    EntryMissingError,
    FieldMissingError,
    Ledger,
    LedgerError,
    StoredHashError,
    TileError,
    VerifierKey,
    _hashes,
    _parts,
    cosign,
    parse_note,
    verify_ledger,
)
from federation.ledger.note import COSIGNATURE, Note
from federation.ledger.replay import Replay
from federation.ledger.store import DATABASE, reading
from tests.federation.ledger.parts import in_parts_of

Tamper = Callable[..., list[tuple[Any, ...]]]


def count_fields(entry: Entry, fields: Mapping[str, Any]) -> int:
    """Importable, so that a worker can be told of it."""
    return len(fields)


def both(ledger: Ledger, entries: int = 4, **options: Any) -> Any:
    """The verdict, if it is the same in one go and in parts (and the parts were really used)."""
    whole = verify_ledger(ledger.folder, ledger.vkey, on_entry=count_fields, **options)
    with in_parts_of(entries) as sound:
        parts = verify_ledger(ledger.folder, ledger.vkey, on_entry=count_fields, processes=2, **options)
    assert sound == [(at, min(at + entries, whole.entries)) for at in range(0, whole.entries, entries)]
    assert parts == whole
    return whole


@pytest.mark.parametrize("entries", [1, 2, 3, 4, 6])
def test_an_honest_ledger_has_one_verdict(history: Ledger, entries: int) -> None:
    verdict = both(history, entries)
    assert verdict.checked > 12 and verdict.open_intents == (11,)


def test_outcomes_find_their_intents_across_parts(ledger: Ledger) -> None:
    intents = [ledger.append("intent", {}).index for _ in range(8)]
    for index in (0, 5, 0, 7):
        ledger.append("outcome", {}, ref=intents[index])
    verdict = both(ledger)
    assert verdict.open_intents == (1, 2, 3, 4, 6)
    assert verdict.stray_outcomes == (10,)  # entry 0 was closed before


def test_erasures_are_found_across_parts(history: Ledger) -> None:
    history.erase(1, ["plan"], "asked for")
    verdict = both(history)
    assert verdict.erased == 1
    assert both(history, 2).erased == 1


def test_a_field_gone_in_one_part_needs_its_erasure_in_another(history: Ledger, tamper: Tamper) -> None:
    history.erase(1, ["plan"], "asked for")
    tamper("DELETE FROM field WHERE idx = 1")
    with in_parts_of(4) as sound, pytest.raises(FieldMissingError) as caught:
        verify_ledger(history.folder, history.vkey, processes=2)
    assert caught.value.index == 1
    assert sound  # it is the joined parts that refuse


def test_witnesses_are_found_in_any_part(history: Ledger) -> None:
    key = SigningKey.generate()
    witness = VerifierKey("witness.example", key.public, COSIGNATURE)
    note = parse_note(history.checkpoint())
    signed = Note(note.text, (*note.signatures, cosign(Checkpoint.parse(note.text), "witness.example", key, 1)))
    history.add_cosignatures(signed.encode(), [witness])
    assert both(history, witnesses=[witness]).anchoring == "witnessed"
    history.append("owner", {})
    verdict = both(history, witnesses=[witness])
    assert (verdict.anchoring, verdict.anchored_size) == ("partly witnessed", 12)


@pytest.mark.parametrize("how", ["sound", "begun elsewhere", "left out", "too few"])
def test_parts_that_do_not_meet_prove_nothing(history: Ledger, how: str) -> None:
    """A worker that began elsewhere than the part before ended: without the comparison it would pass."""
    replay = Replay(history.vkey)
    with in_parts_of(4), pytest.MonkeyPatch.context() as patch, reading(history.folder / DATABASE) as connection:
        judge = _parts._judge

        def other(start: int, stop: int) -> _parts.Part | None:
            part = judge(start, stop)
            if part is None or start != 8 or how == "sound":
                return part
            if how == "left out":
                return judge(0, 4)
            if how == "too few":
                return judge(8, 10)
            return dataclasses.replace(part, begin=dataclasses.replace(part.begin, leaf=b"f" * 32))

        patch.setattr(_parts, "_judge", other)
        accepted = _parts.run_parts(history.folder, connection, replay, 12, 2, None)
    assert accepted is (how == "sound")
    assert (replay.position().size == 12) is accepted  # nothing is concluded from what was refused


def test_real_processes(history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawned workers, each with its own view of the store; the size of a part is decided here alone."""
    monkeypatch.setattr(_parts, "PART_ENTRIES", 6)
    told: list[tuple[int, int]] = []
    verdict = verify_ledger(
        history.folder, history.vkey, on_entry=count_fields, processes=2, progress=lambda *at: told.append(at)
    )
    assert told == [(6, 12), (12, 12)]
    assert verdict == verify_ledger(history.folder, history.vkey, on_entry=count_fields)


def test_a_worker_that_dies_changes_nothing(history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "PART_ENTRIES", 6)
    verdict = verify_ledger(history.folder, history.vkey, on_entry=die_in_a_worker, processes=2)
    assert (verdict.entries, verdict.checked) == (12, 12)


def die_in_a_worker(entry: Entry, fields: Mapping[str, Any]) -> int:
    import multiprocessing
    import os

    if multiprocessing.parent_process() is not None:
        os._exit(9)
    return 1


@pytest.fixture
def long_history(ledger: Ledger) -> Ledger:
    """Two whole tiles and a bit."""
    for one in [ledger.submit("note", {"a": number}) for number in range(530)]:
        one.result()
    return ledger


def root_of(ledger: Ledger) -> bytes:
    return Checkpoint.parse(parse_note(ledger.checkpoint()).text).root


def hashed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, processes: int) -> tuple[Any, list[int]]:
    """The verdict on hashes alone, and where each part began (one tile each)."""
    begun: list[int] = []
    judge = _hashes._hash_apart if processes > 1 else _hashes._hash
    name = judge.__name__

    def noted(where: Any, start: int, stop: int) -> Any:
        begun.append(start)
        return judge(where, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(_hashes, "PART_TILES", 1)
        patch.setattr(_hashes, name, noted)
        patch.setattr(_hashes, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
        verdict = verify_ledger(ledger.folder, ledger.vkey, hash_only=True, processes=processes)
    return verdict, sorted(begun)


def test_hashes_alone_have_one_verdict(long_history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, begun = hashed(long_history, monkeypatch, 1)
    together, apart = hashed(long_history, monkeypatch, 2)
    assert alone == together
    assert begun == apart == [0, 256, 512]
    assert (alone.entries, alone.root) == (long_history.size, root_of(long_history))


def test_hashes_alone_by_real_processes(long_history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hashes, "PART_TILES", 1)
    verdict = verify_ledger(long_history.folder, long_history.vkey, hash_only=True, processes=2)
    assert verdict.root == root_of(long_history)


@pytest.mark.parametrize(
    ("change", "error", "index"),
    [
        ("UPDATE entry SET leaf = zeroblob(32) WHERE idx = 300", StoredHashError, 300),
        (
            "UPDATE entry SET data = CAST(replace(CAST(data AS TEXT), 'note', 'nota') AS BLOB) WHERE idx = 300",
            LedgerError,
            None,
        ),
        ("DELETE FROM entry WHERE idx = 300", EntryMissingError, 300),
        ("UPDATE tile SET hash = zeroblob(32) WHERE level = 1 AND number = 1", TileError, None),
    ],
)
def test_a_part_whose_hashes_are_wrong_is_named_by_the_full_rules(
    long_history: Ledger,
    tamper: Tamper,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    error: type[LedgerError],
    index: int,
) -> None:
    tamper(change)
    for processes in (1, 2):
        with pytest.raises(error) as caught:
            hashed(long_history, monkeypatch, processes)
        assert index is None or getattr(caught.value, "index", None) == index


def test_a_worker_that_fails_leaves_hashes_to_the_full_rules(
    long_history: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hashes, "_hash_apart", lambda *_: None)
    monkeypatch.setattr(_hashes, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
    monkeypatch.setattr(_hashes, "PART_TILES", 1)
    assert verify_ledger(long_history.folder, long_history.vkey, hash_only=True, processes=2).root == root_of(
        long_history
    )
