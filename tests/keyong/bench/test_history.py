"""The history that the verifier is measured on is what the models would have written, and it verifies."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.crypto import keys
from federation.home import Home
from federation.ledger import verify_ledger
from federation.statements import Invocation, Receipt
from keyong.bench.history import statement_bytes, write_history
from keyong.embedded import StatementCheck
from keyong.evidence import open_evidence


def test_filled_templates_are_canonical_statements() -> None:
    for number in (1, 7, 250_000):
        asked, answered = statement_bytes("mill-a", number, 2 * number)
        invocation, receipt = Invocation.from_payload(asked), Receipt.from_payload(answered)
        assert invocation.round == receipt.round == number % 200_000 + 1
        assert receipt.intent == 2 * number
        assert receipt.invocation == invocation.content
    assert len({statement_bytes("mill-a", number, number) for number in range(50)}) == 50


def test_a_history_verifies_with_one_statement_an_entry(
    founder: Path, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    write_history(Home(founder), 40, lambda done, total: told.append((done, total)))
    with open_evidence(founder, fingerprint) as evidence:
        check = StatementCheck(evidence.rosters)
        asked: list[bytes] = []
        held = keys._holds_at_once
        monkeypatch.setattr(keys, "_holds_at_once", lambda raw, sig, data: asked.append(sig) or held(raw, sig, data))
        verdict = verify_ledger(evidence.ledger, evidence.vkey, on_entry=check.on_entry)
    assert (verdict.entries, verdict.checked, verdict.completeness) == (40, 40, "complete")
    # Each signature once: those of the statements, of the last checkpoint (twice, it is kept beside too), of the others.
    assert len(set(asked)) >= len(asked) - 2
    assert told[-1] == (40, 40)
