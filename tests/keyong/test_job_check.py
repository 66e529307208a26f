"""inv8: a trial without isolation is asked for in words, and not where an agreement demands more."""

from __future__ import annotations

from typing import Any

import pytest

from federation.errors import DeniedError
from keyong.cli import job_check
from sandbox import Tier


@pytest.fixture
def tiers(monkeypatch: pytest.MonkeyPatch) -> list[Tier]:
    """What trials are made at."""
    found: list[Tier] = []
    monkeypatch.setattr("keyong.checking.tier_here", lambda demanded: Tier(demanded or Tier.T2))
    monkeypatch.setattr("keyong.checking.check_app", lambda *_, tier, **__: found.append(tier))
    return found


def run(demanded: str, **more: Any) -> None:
    job_check.run_check(None, (), {}, None, 1, demanded, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("demanded", ["", "T0"])
def test_it_isolates_nothing_where_that_is_asked_for(
    tiers: list[Tier], demanded: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(demanded, development=True)
    assert tiers == [Tier.T0]
    assert "DEVELOPMENT" in capsys.readouterr().err
    run("")
    assert tiers[1:] == [Tier.T2], "and only there"


@pytest.mark.parametrize("demanded", ["T1", "T2", "T3"])
def test_an_agreement_that_demands_more_forbids_it(tiers: list[Tier], demanded: str) -> None:
    with pytest.raises(DeniedError) as caught:
        run(demanded, development=True)
    assert (caught.value.code, tiers) == ("tier-unavailable", [])
