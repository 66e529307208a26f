"""inv8: a weaker tier is accepted by the owner, seen by the others, and never slipped in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from federation.home import Home
from keyong import checking
from keyong.cli import _tiers
from sandbox import Tier
from tests.keyong.conftest import Run


def test_floor_is_shown_changed_seen_and_on_record(keyong: Run, founder: Path) -> None:
    assert keyong("--home", founder, "node", "tier", "--format", "json").json["floor"] == "T2"
    ran = keyong("--home", founder, "node", "tier", "T1")
    assert "what is weaker than T2" in ran.err
    assert keyong("--home", founder, "node", "tier", "--format", "json").json["floor"] == "T1"
    roster = keyong("--home", founder, "consortium", "roster", "--format", "json").json
    assert [one["tier"] for one in roster["members"]] == ["T1"]
    assert roster["version"] == 2
    assert keyong("--home", founder, "node", "tier", "T2", "--format", "json").json["floor"] == "T2"
    entries = keyong("--home", founder, "ledger", "show", "--kind", "tier", "--format", "json").json
    assert [one["fields"]["tier"] for one in entries] == ["T1", "T2"]


@pytest.mark.parametrize(
    ("here", "demanded", "tier"),
    [
        ((Tier.T2, Tier.T1), "", Tier.T2),
        ((Tier.T2, Tier.T1), "T1", Tier.T2),
        ((Tier.T1,), "", Tier.T1),
        ((Tier.T1,), "T1", Tier.T1),
        ((Tier.T1,), "T2", Tier.T2),
        ((Tier.T2, Tier.T1), "T3", Tier.T3),
        ((), "", Tier.T2),
    ],
)
def test_an_app_is_tried_as_strongly_as_can_be_and_never_more_weakly_than_agreed(
    monkeypatch: pytest.MonkeyPatch, here: tuple[Tier, ...], demanded: str, tier: Tier
) -> None:
    monkeypatch.setattr(checking, "probe", lambda: SimpleNamespace(tiers=here))
    assert checking.tier_here(demanded) is tier


def test_founder_accepts_at_the_founding(keyong: Run, tmp_path: Path) -> None:
    home = tmp_path / "h"
    ran = keyong(
        "--home", home, "consortium", "init", "--name", "P", "--member", "m", "--entity", "M",
        "--address", "127.0.0.1:7443", "--accept-tier", "T1",
    )  # fmt: skip
    assert ran.code == 0
    assert Home(home).tier_floor == "T1"
    assert Home(home).history.latest.member("m").tier == "T1"


def test_neither_the_roster_nor_the_file_alone_lowers_the_floor(keyong: Run, founder: Path) -> None:
    keyong("--home", founder, "node", "tier", "T1")
    home = Home(founder)
    assert home.tier_floor == "T1"
    (founder / "accepted-tier").unlink()
    assert home.tier_floor == "T2", "the roster alone: its root is not this machine's owner"
    home.accept_tier("T2")
    assert home.tier_floor == "T2"
    keyong("--home", founder, "node", "tier", "T2")
    home = Home(founder)
    home.accept_tier("T1")
    assert home.tier_floor == "T2", "the file alone: the others would not know"


def only(monkeypatch: pytest.MonkeyPatch, *tiers: Tier) -> None:
    monkeypatch.setattr("sandbox.probe", lambda: SimpleNamespace(tiers=tiers))


def test_where_only_t1_holds_it_is_refused_until_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Tier.T1)
    monkeypatch.setattr(_tiers, "interactive", lambda: False)
    with pytest.raises(_tiers.TierNotAcceptedError) as caught:
        _tiers.floor_to_enter(None, ("member",))
    assert "--accept-tier T1" in caught.value.hint
    assert _tiers.floor_to_enter("T1", ("member",)) == "T1"
    assert _tiers.floor_to_enter(None, ("analyst", "auditor")) == "", "who runs no session is asked nothing"
    monkeypatch.setattr(_tiers, "interactive", lambda: True)
    for answer, floor in ((True, "T1"), (False, None)):
        monkeypatch.setattr(_tiers, "ask", lambda sentence, answer=answer: answer)
        if floor is None:
            with pytest.raises(_tiers.TierNotAcceptedError):
                _tiers.floor_to_enter(None, ("member",))
        else:
            assert _tiers.floor_to_enter(None, ("member",)) == floor


@pytest.mark.parametrize("tiers", [(Tier.T2, Tier.T1), (Tier.T2,), ()])
def test_nobody_is_asked_where_t2_is_or_nothing_is(monkeypatch: pytest.MonkeyPatch, tiers: tuple[Tier, ...]) -> None:
    only(monkeypatch, *tiers)
    assert _tiers.floor_to_enter(None, ("member",)) == ""
