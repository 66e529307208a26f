"""The proof of a fork: made from either form of a history, verified with the key alone, and impossible without one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    Fork,
    ForkError,
    KeySubstitutionError,
    Ledger,
    LedgerUnreadableError,
    ProofError,
    VerifierKey,
    prove_fork,
    roots_at,
    verify_fork,
    verify_ledger,
)
from federation.ledger import fork as forks

ORIGIN = "keyong/test/mill"


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def vkey(key: SigningKey) -> VerifierKey:
    return VerifierKey(ORIGIN, key.public)


def two(base: Path, key: SigningKey, common: int, more: tuple[int, int]) -> tuple[Ledger, Ledger]:
    """Two histories under one key that part after so many entries, and have so many more each."""
    (base / "one").mkdir(parents=True)
    with Ledger.create(base / "one", ORIGIN, key) as ledger:
        for number in range(common):
            ledger.append("note", {"number": number})
    shutil.copytree(base / "one", base / "two")
    found = []
    for name, count in zip(("one", "two"), more, strict=True):
        ledger = Ledger.open(base / name, key)
        for number in range(count):
            ledger.append("note", {"number": number, "of": name})
        found.append(ledger)
    return found[0], found[1]


@pytest.mark.parametrize("form", ["folder", "export"])
@pytest.mark.parametrize(("common", "more"), [(0, (1, 1)), (0, (3, 8)), (5, (2, 9)), (8, (8, 300)), (7, (1, 1))])
def test_a_fork_is_proved_to_whoever_has_the_key(
    tmp_path: Path, key: SigningKey, vkey: VerifierKey, common: int, more: tuple[int, int], form: str
) -> None:
    one, two_ = two(tmp_path, key, common, more)
    path = two_.folder
    if form == "export":
        path = tmp_path / "export"
        two_.export(path, disclose=lambda entry: ())
    fork = prove_fork(path, one.checkpoint(), two_.checkpoint())
    held, shown = verify_fork(Fork.decode(fork.encode()), vkey)
    assert (held.checkpoint.size, shown.checkpoint.size) == (common + more[0], common + more[1])
    assert roots_at(path, [held.checkpoint.size]) == {held.checkpoint.size: fork.root}


def test_what_verification_raises_makes_the_proof(tmp_path: Path, key: SigningKey, vkey: VerifierKey) -> None:
    one, two_ = two(tmp_path, key, 4, (2, 5))
    with pytest.raises(ForkError) as raised:
        verify_ledger(two_.folder, vkey, checkpoints=[one.checkpoint()])
    verify_fork(prove_fork(two_.folder, *raised.value.evidence), vkey)


def test_honest_growth_is_no_fork(tmp_path: Path, key: SigningKey, vkey: VerifierKey) -> None:
    one, _ = two(tmp_path, key, 4, (1, 1))
    before = one.checkpoint()
    one.append("note", {})
    with pytest.raises(ProofError, match="no fork"):
        prove_fork(one.folder, before, one.checkpoint())
    root, proof = roots_at(one.folder, [5])[5], one.consistency(5, 6)
    with pytest.raises(ProofError, match="no fork"):
        verify_fork(Fork(before, one.checkpoint(), root, tuple(proof)), vkey)


def test_nobody_else_can_make_one(tmp_path: Path, key: SigningKey, vkey: VerifierKey) -> None:
    one, two_ = two(tmp_path, key, 4, (2, 5))
    fork = prove_fork(two_.folder, one.checkpoint(), two_.checkpoint())
    with pytest.raises(ProofError):
        verify_fork(replace(fork, root=bytes(32)), vkey)
    with pytest.raises(ProofError):
        verify_fork(replace(fork, proof=fork.proof[:-1]), vkey)
    stranger = SigningKey.generate()
    with pytest.raises(KeySubstitutionError):
        verify_fork(fork, VerifierKey(ORIGIN, stranger.public))
    forged, _ = two(tmp_path / "forged", stranger, 4, (2, 5))
    with pytest.raises(KeySubstitutionError):
        verify_fork(replace(fork, held=forged.checkpoint()), vkey)


def test_without_the_comparison_honest_growth_would_pass(
    tmp_path: Path, key: SigningKey, vkey: VerifierKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two_ = two(tmp_path, key, 4, (2, 5))
    fork = replace(prove_fork(two_.folder, one.checkpoint(), two_.checkpoint()), root=bytes(32))
    monkeypatch.setattr(forks, "verify_consistency", lambda *_: None)
    verify_fork(fork, vkey)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format":"keyong-fork","v":2}', b"\x00" * 64])
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerUnreadableError):
        Fork.decode(data)


def test_a_history_that_ends_before_proves_nothing(tmp_path: Path, key: SigningKey) -> None:
    one, two_ = two(tmp_path, key, 4, (9, 1))
    with pytest.raises(ProofError):
        prove_fork(two_.folder, one.checkpoint(), two_.checkpoint())
