"""``keyong ledger replay``: what it prints, and that a difference is exit code 4."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.home import Home
from federation.statements import DecisionRecord
from tests.keyong.conftest import Run

NEVER_AGREED = "sha256:" + "e" * 64


@pytest.fixture
def permitted(founder: Path) -> Path:
    """A home whose ledger holds a permit under an agreement that is not on record, and a step without a decision."""
    record = DecisionRecord(permit=True, agreement=NEVER_AGREED, rule="permission/0", constraints=())
    with Home(founder).open_ledger() as ledger:
        ledger.append("intent", {"plan": "sha256:" + "1" * 64, "decision": record.model_dump(mode="json")})
        ledger.append("intent", {"plan": "sha256:" + "2" * 64})
    return founder


def test_a_difference_is_listed_and_exits_4(keyong: Run, permitted: Path) -> None:
    ran = keyong("--home", permitted, "ledger", "replay", "--format", "json")
    assert ran.code == 4
    assert ran.json["same"] == 0 and len(ran.json["erased"]) == 1
    (finding,) = ran.json["findings"]
    assert finding["agreement"] == NEVER_AGREED and finding["differences"][0]["what"] == "agreement"
    assert "replay-differs" in ran.err


def test_in_words_too(keyong: Run, permitted: Path) -> None:
    ran = keyong("--home", permitted, "ledger", "replay")
    assert ran.code == 4 and "not on record before this" in ran.out
    assert "keyong ledger show" in ran.err


def test_another_ledger_needs_the_root_that_it_is_trusted_by(keyong: Run, permitted: Path, fingerprint: str) -> None:
    ran = keyong("ledger", "replay", permitted)
    assert ran.code == 2 and "--root" in ran.err
    assert keyong("ledger", "replay", permitted, "--root", fingerprint).code == 4
    wrong = keyong("ledger", "replay", permitted, "--root", "sha256:" + "0" * 64)
    assert wrong.code == 4 and "not on record" not in wrong.out


def test_a_ledger_without_decisions_has_nothing_to_differ(keyong: Run, founder: Path) -> None:
    ran = keyong("--home", founder, "ledger", "replay", "--format", "json")
    assert ran.code == 0
    assert ran.json == {"same": 0, "findings": [], "erased": [], "refused": {}}
