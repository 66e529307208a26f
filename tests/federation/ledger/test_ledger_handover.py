"""inv6: a ledger's key is exchanged at one place of its history: the old key signs nothing beyond it, and nothing else below."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    Checkpoint,
    ForkError,
    FormerKey,
    KeyEndedError,
    KeySubstitutionError,
    Ledger,
    LedgerRolledBackError,
    LedgerUnavailableError,
    VerifierKey,
    checkpoint,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_bundle,
    verify_ledger,
)
from tests.federation.ledger.conftest import ORIGIN, Clock
from tests.federation.ledger.tampering import Tamper

NEW = SigningKey.from_bytes(bytes(range(100, 132)))


@pytest.fixture
def copies(history: Ledger, folder: Path, tmp_path: Path) -> Path:
    """The folder as a thief of the old key has it: from before the handover."""
    return Path(shutil.copytree(folder, tmp_path / "before"))


def handed_over(ledger: Ledger) -> FormerKey:
    note = ledger.hand_over(NEW, {"event": "handed-over"})
    state = Checkpoint.parse(parse_note(note).text)
    return FormerKey(ledger.vkey.public, state.size, state.root, note)


def test_both_keys_sign_the_last_state_of_the_old_one(history: Ledger) -> None:
    former = handed_over(history)
    assert former.size == 13
    for key in (history.vkey, VerifierKey(ORIGIN, NEW.public)):
        assert open_checkpoint(former.note, key).checkpoint.size == 13


def test_the_history_verifies_through_the_handover(
    history: Ledger, folder: Path, clock: Clock, key: SigningKey
) -> None:
    early = history.receipt_bundle(3)
    former = handed_over(history)
    with Ledger.open(folder, NEW, clock, (former,)) as after:
        after.append("keys", {"event": "exchanged"})
        late = after.receipt_bundle(3)
        vkey = after.vkey
    for only in (False, True):
        assert verify_ledger(folder, vkey, receipts=[early, late], hash_only=only).entries == 14
    assert verify_bundle(early, vkey).entry.index == verify_bundle(late, vkey).entry.index == 3
    with pytest.raises(KeySubstitutionError):
        verify_ledger(folder, VerifierKey(ORIGIN, NEW.public))  # without the old key, its part is a stranger's


def test_nothing_follows_the_handover_but_by_the_successor(
    history: Ledger, folder: Path, clock: Clock, key: SigningKey
) -> None:
    former = handed_over(history)
    with pytest.raises(LedgerUnavailableError, match="being exchanged"):
        history.append("note", {})
    with Ledger.open(folder, key, clock) as other, pytest.raises(LedgerUnavailableError, match="being exchanged"):
        other.append("note", {})
    with Ledger.open(folder, NEW, clock, (former,)) as after:
        assert after.append("note", {}).index == 13
    with pytest.raises(KeySubstitutionError):
        Ledger.open(folder, key, clock)


def test_entries_that_were_queued_with_the_handover_are_refused(history: Ledger) -> None:
    futures = [history.submit(kind, {}) for kind in ("note", "key-handover", "note", "note")]
    written = []
    for future in futures:
        try:
            written.append(future.result(10).index)
        except LedgerUnavailableError:
            written.append(-1)
    assert written == [12, 13, -1, -1]


def test_a_handover_that_nobody_took_is_taken_back(history: Ledger) -> None:
    handed_over(history)
    history.keep_key({"event": "kept"})
    assert history.append("note", {}).index == 14
    assert verify_ledger(history.folder, history.vkey).entries == 15


def test_a_handover_is_gone_on_with(history: Ledger) -> None:
    assert handed_over(history) == handed_over(history)
    assert history.size == 13


def test_the_old_key_signs_nothing_beyond_its_end(history: Ledger, copies: Path, clock: Clock, key: SigningKey) -> None:
    former = handed_over(history)
    vkey = VerifierKey(ORIGIN, NEW.public, former=(former,))
    with Ledger.open(copies, key, clock) as stolen:
        for _ in range(5):
            stolen.append("intent", {"plan": "forged"})
        bundle, note = stolen.receipt_bundle(15), stolen.checkpoint()
    with pytest.raises(KeyEndedError):
        verify_ledger(copies, vkey)
    with pytest.raises(KeyEndedError):
        verify_bundle(bundle, vkey)
    with pytest.raises(KeyEndedError):
        open_checkpoint(note, vkey)


def test_the_new_key_signs_nothing_below_its_beginning(history: Ledger, copies: Path, clock: Clock) -> None:
    former = handed_over(history)
    vkey = VerifierKey(ORIGIN, NEW.public, former=(former,))
    early = sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), NEW)
    with pytest.raises(KeyEndedError):
        open_checkpoint(early, vkey)


def test_the_old_key_signs_no_other_history_up_to_its_end(
    history: Ledger, copies: Path, clock: Clock, key: SigningKey
) -> None:
    former = handed_over(history)
    vkey = VerifierKey(ORIGIN, NEW.public, former=(former,))
    with pytest.raises(LedgerRolledBackError):
        verify_ledger(copies, vkey)  # shorter than what the roster says was signed
    with Ledger.open(copies, key, clock) as stolen:
        stolen.append("intent", {"plan": "forged"})
    with pytest.raises(ForkError) as caught:
        verify_ledger(copies, vkey)
    assert len(caught.value.evidence) == 2


def test_without_the_places_the_old_key_would_go_on(
    history: Ledger, copies: Path, clock: Clock, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = handed_over(history)
    vkey = VerifierKey(ORIGIN, NEW.public, former=(former,))
    with Ledger.open(copies, key, clock) as stolen:
        stolen.append("intent", {"plan": "forged"})
        stolen.append("intent", {"plan": "forged"})
        bundle = stolen.receipt_bundle(13)
    with pytest.raises(KeyEndedError):
        verify_bundle(bundle, vkey)
    every = [VerifierKey(ORIGIN, key.public), VerifierKey(ORIGIN, NEW.public)]
    monkeypatch.setattr(checkpoint, "_check_place", lambda note, *_: checkpoint.verify_note(note, every))
    assert verify_bundle(bundle, vkey).entry.index == 13


def test_the_part_of_the_old_key_is_judged_as_ever(history: Ledger, folder: Path, clock: Clock, tamper: Tamper) -> None:
    former = handed_over(history)
    with Ledger.open(folder, NEW, clock, (former,)) as after:
        after.append("note", {})
        vkey = after.vkey
    tamper("UPDATE field SET payload = CAST('9' AS BLOB) WHERE idx = 4 AND name = 'rows'")
    with pytest.raises(Exception, match="entry 4"):
        verify_ledger(folder, vkey)
