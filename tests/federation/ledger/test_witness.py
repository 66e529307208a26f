"""A witness by the letter of C2SP tlog-witness: what it cosigns, with which status it refuses, what it never forgets."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    AddCheckpoint,
    Checkpoint,
    Ledger,
    LedgerError,
    VerifierKey,
    Witness,
    WitnessRefusedError,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_ledger,
)
from federation.ledger import witness as module
from tests.federation.ledger.conftest import ORIGIN, Clock

NAME = "keyong/test/wind-park/witness"


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "witnessed"
    path.mkdir()
    return path


@pytest.fixture
def witness(known: Path, clock: Clock) -> Witness:
    return Witness(NAME, SigningKey.generate(), known, clock)


@pytest.fixture
def log(ledger: Ledger) -> Callable[[str], VerifierKey | None]:
    return lambda origin: ledger.vkey if origin == ORIGIN else None


def request(ledger: Ledger, old: int) -> bytes:
    size = ledger.size
    proof = ledger.consistency(old) if 0 < old < size else []
    return AddCheckpoint(old, tuple(proof), ledger.checkpoint()).encode()


def refused(witness: Witness, data: bytes, log: Callable[[str], VerifierKey | None]) -> tuple[int, int | None]:
    with pytest.raises(WitnessRefusedError) as caught:
        witness.add_checkpoint(data, log)
    return caught.value.status, caught.value.size


def test_a_growing_ledger_is_cosigned_and_the_cosignature_anchors_it(
    ledger: Ledger, folder: Path, witness: Witness, log: Callable[[str], VerifierKey | None]
) -> None:
    for old in (0, 3):
        for number in range(3):
            ledger.append("note", {"number": number})
        line = witness.add_checkpoint(request(ledger, old), log)
        ledger.add_cosignatures(ledger.checkpoint() + line, [witness.vkey])
    ledger.close()
    verdict = verify_ledger(folder, ledger.vkey, witnesses=[witness.vkey])
    assert (verdict.anchoring, verdict.anchored_size, verdict.witnesses) == ("witnessed", 6, (NAME,))
    assert verify_ledger(folder, ledger.vkey).anchoring == "unanchored"


def test_the_same_state_is_cosigned_again(
    ledger: Ledger, witness: Witness, log: Callable[[str], VerifierKey | None], clock: Clock
) -> None:
    ledger.append("note", {})
    first = witness.add_checkpoint(request(ledger, 0), log)
    clock.forward(60)
    again = witness.add_checkpoint(request(ledger, 1), log)
    assert first != again
    assert open_checkpoint(ledger.checkpoint() + again, ledger.vkey, [witness.vkey]).witnesses == (NAME,)


def test_409_tells_the_size_that_was_seen(
    ledger: Ledger, witness: Witness, log: Callable[[str], VerifierKey | None]
) -> None:
    ledger.append("note", {})
    assert refused(witness, request(ledger, 1), log) == (409, 0)
    witness.add_checkpoint(request(ledger, 0), log)
    ledger.append("note", {})
    assert refused(witness, request(ledger, 0), log) == (409, 1)
    witness.add_checkpoint(request(ledger, 1), log)


def test_a_fork_gets_no_second_cosignature(
    ledger: Ledger, key: SigningKey, witness: Witness, log: Callable[[str], VerifierKey | None]
) -> None:
    for number in range(4):
        ledger.append("note", {"number": number})
    witness.add_checkpoint(request(ledger, 0), log)
    same_size = sign_checkpoint(Checkpoint(ORIGIN, 4, bytes(32)), key)
    assert refused(witness, AddCheckpoint(4, (), same_size).encode(), log) == (409, 4)
    longer = sign_checkpoint(Checkpoint(ORIGIN, 6, bytes(32)), key)
    assert refused(witness, AddCheckpoint(4, (bytes(32),), longer).encode(), log) == (422, None)
    shorter = sign_checkpoint(Checkpoint(ORIGIN, 3, bytes(32)), key)
    assert refused(witness, AddCheckpoint(4, (), shorter).encode(), log) == (400, None)
    assert refused(witness, AddCheckpoint(3, (), shorter).encode(), log) == (409, 4)


def test_without_the_check_the_fork_would_be_cosigned(
    ledger: Ledger,
    key: SigningKey,
    witness: Witness,
    log: Callable[[str], VerifierKey | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.append("note", {})
    witness.add_checkpoint(request(ledger, 0), log)
    monkeypatch.setattr(module, "verify_extension", lambda *_: None)
    longer = sign_checkpoint(Checkpoint(ORIGIN, 6, bytes(32)), key)
    assert witness.add_checkpoint(AddCheckpoint(1, (), longer).encode(), log)


def test_what_was_seen_outlives_the_process(
    ledger: Ledger, witness: Witness, known: Path, log: Callable[[str], VerifierKey | None], clock: Clock
) -> None:
    ledger.append("note", {})
    witness.add_checkpoint(request(ledger, 0), log)
    again = Witness(NAME, witness._key, known, clock)
    assert refused(again, request(ledger, 0), log) == (409, 1)
    (state,) = known.iterdir()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


def test_what_another_hand_wrote_there_is_not_believed(
    ledger: Ledger, key: SigningKey, witness: Witness, known: Path, log: Callable[[str], VerifierKey | None]
) -> None:
    ledger.append("note", {})
    witness.add_checkpoint(request(ledger, 0), log)
    (state,) = known.iterdir()
    state.write_bytes(sign_checkpoint(Checkpoint(ORIGIN, 1, bytes(32)), key))
    with pytest.raises(LedgerError):
        witness.add_checkpoint(request(ledger, 1), log)


def test_nothing_is_answered_that_could_not_be_kept(
    ledger: Ledger,
    witness: Witness,
    log: Callable[[str], VerifierKey | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.append("note", {})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_private", full)
        with pytest.raises(OSError, match="No space"):
            witness.add_checkpoint(request(ledger, 0), log)
    assert witness.last(ORIGIN) is None


def test_403_and_404(ledger: Ledger, witness: Witness, log: Callable[[str], VerifierKey | None]) -> None:
    stranger = SigningKey.generate()
    ledger.append("note", {})
    forged = sign_checkpoint(Checkpoint(ORIGIN, 1, bytes(32)), stranger)
    assert refused(witness, AddCheckpoint(0, (), forged).encode(), log) == (403, None)
    unknown = sign_checkpoint(Checkpoint("keyong/test/nobody", 1, bytes(32)), stranger)
    assert refused(witness, AddCheckpoint(0, (), unknown).encode(), log) == (404, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"old\n\n",
        b"old 01\n\nx",
        b"old -1\n\nx",
        b"old 0\nnot base64!\n\nx",
        b"old 0\nAAAA\n\nx",
        b"old 0\n\nno note",
        b"old 0\n" + b"A" * 43 + b"=\n" * 70 + b"\nx",
        b"old 0\n\n" + b"x" * 100_000,
    ],
)
def test_400(witness: Witness, log: Callable[[str], VerifierKey | None], data: bytes) -> None:
    assert refused(witness, data, log) == (400, None)


def test_a_request_is_what_the_specification_shows() -> None:
    note = b"origin\n1\nroot\n\n\xe2\x80\x94 a b\n"
    encoded = AddCheckpoint(20852163, (bytes(32), bytes([1]) * 32), note).encode()
    assert encoded == b"old 20852163\n" + b"A" * 43 + b"=\n" + b"AQEB" * 10 + b"AQE=\n\n" + note
    assert AddCheckpoint.parse(encoded) == AddCheckpoint(20852163, (bytes(32), bytes([1]) * 32), note)


def test_only_the_ledgers_own_signature_is_kept_beside_ours(
    ledger: Ledger, witness: Witness, known: Path, log: Callable[[str], VerifierKey | None]
) -> None:
    """What the asker put under its note in other names must not fill our disk, nor be passed on."""
    ledger.append("note", {})
    data = request(ledger, 0) + "— a-stranger {}\n".format("A" * 88).encode()
    witness.add_checkpoint(data, log)
    (state,) = known.iterdir()
    assert [one.name for one in parse_note(state.read_bytes()).signatures] == [ORIGIN, NAME]
