"""How many nodes may vanish is said before a masked job runs, and when its app is checked."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from keyong.cli import _context, job_check
from keyong.cli._plans import tell_dropouts


@pytest.mark.parametrize(
    ("count", "minimal", "gone"), [(3, 0, 0), (4, 0, 1), (5, 3, 1), (7, 3, 2), (7, 7, 0), (64, 0, 21)]
)
def test_a_cohort_survives_so_many(capsys: pytest.CaptureFixture[str], count: int, minimal: int, gone: int) -> None:
    tell_dropouts(count, minimal)
    told = capsys.readouterr().err
    assert (f"{count} nodes {gone} may vanish" in told) if gone else ("survives no dropout" in told), told


@pytest.mark.parametrize(
    ("count", "minimal", "said"),
    [
        (
            100,
            0,
            "100 nodes any 21 may vanish, and up to 32 where no more than 21 of them are neighbours; 67 open a round",
        ),
        (100, 90, "100 nodes 10 may vanish, 90 open a round"),
        (66, 0, "66 nodes 21 may vanish, 45 open a round"),
    ],
)
def test_a_larger_cohort_survives_as_many_and_more_where_they_sit_apart(
    capsys: pytest.CaptureFixture[str], count: int, minimal: int, said: str
) -> None:
    tell_dropouts(count, minimal)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("providers", "said"), [("abc", "survives no dropout"), ("abcdefga", "7 nodes 2 may vanish"), ("ab", "")]
)
def test_a_check_counts_the_companies_whose_agreements_are_in_force(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, providers: str, said: str
) -> None:
    held = [SimpleNamespace(provider=one, consumer="me") for one in providers]
    held.append(SimpleNamespace(provider="z", consumer="another"))
    client = SimpleNamespace(
        home=SimpleNamespace(identity=SimpleNamespace(member="me")), holdings=SimpleNamespace(list=lambda _: held)
    )
    monkeypatch.setattr(_context, "open_client", lambda: nullcontext(client))
    job_check._tell_dropouts()
    told = capsys.readouterr().err
    assert said in told and bool(told) == bool(said)
