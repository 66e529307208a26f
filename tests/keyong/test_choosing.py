"""inv1, inv7: a job is planned under agreements that are in force, and who has only expired ones is denied and told so."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from federation.correspondence import keep
from federation.crypto import SigningKey
from federation.errors import UsageError
from federation.holdings import Holdings, open_engine
from federation.home import Home, now
from federation.policy import agreement_policy
from federation.statements import Agreement, Column, DatasetDescription
from keyong import choosing
from keyong.choosing import Choice, NoAgreementError, choose
from keyong.client import PublishedDataset
from keyong.text import explain, speak

DIGEST = "sha256:" + "7" * 64
PURPOSE = "fed:RollingForceModel"
Hold = Callable[..., Agreement]


@pytest.fixture
def home(founder: Path) -> Home:
    return Home(founder)


@pytest.fixture
def holdings(home: Home) -> Holdings:
    return Holdings(open_engine(home.path / "store.db"))


@pytest.fixture
def hold(home: Home, holdings: Holdings) -> Hold:
    """Put an agreement about a mill's dataset into force, which ends so long from now (or ended before)."""

    def put(provider: str, ends: timedelta, dataset: str = "passes", purpose: str = PURPOSE) -> Agreement:
        issued, expires = now() - timedelta(days=30), now() + ends
        identity = f"urn:uuid:{uuid.uuid4()}"
        agreement = Agreement(
            issued=issued,
            expires=expires,
            id=identity,
            provider=provider,
            consumer=home.identity.member,
            dataset=dataset,
            title="Passes",
            roster=DIGEST,
            policy=agreement_policy(
                provider=provider,
                consumer=home.identity.member,
                dataset=dataset,
                actions=("fed:train",),
                purposes=(purpose,),
                count=3,
                expires=expires,
                agreement_id=identity,
                now=issued,
            ),
        )
        envelope = agreement.seal(SigningKey.generate(), home.key("statement"))
        keep(holdings, envelope, "in-force", agreement, now())
        return agreement

    return put


def published(provider: str, dataset: str = "passes") -> PublishedDataset:
    description = DatasetDescription(
        issued=now(),
        expires=now() + timedelta(days=1),
        provider=provider,
        dataset=dataset,
        title="Passes",
        data_version=DIGEST,
        columns=(Column(name="force", type="number"),),
        rows_at_least=10,
        rows_at_most=20,
    )
    return PublishedDataset(description, online=True, runtime=DIGEST)


def chosen(home: Home, holdings: Holdings, *mills: str, datasets: tuple[str, ...] = ()) -> list[Choice]:
    catalog = [published(mill) for mill in mills]
    return choose(
        home, holdings, catalog, purpose=PURPOSE, actions=("fed:train",), code=DIGEST, datasets=datasets
    )  # fmt: skip


@pytest.mark.parametrize("datasets", [(), ("mill-a/passes",)], ids=["all", "named"])
def test_who_has_only_an_expired_agreement_is_denied_and_told_when_it_ended(
    home: Home, holdings: Holdings, hold: Hold, datasets: tuple[str, ...]
) -> None:
    hold("mill-a", timedelta(days=-20))
    last = hold("mill-a", timedelta(days=-3))
    with pytest.raises(NoAgreementError) as caught:
        chosen(home, holdings, "mill-a", datasets=datasets)
    assert caught.value.exit_code == 3
    message, hint = explain(caught.value)
    assert f"expired at {last.expires:%Y-%m-%dT%H:%M:%S}Z" in message and "mill-a" in message
    assert hint is not None and "keyong agreement request mill-a/passes" in hint
    speak("zh")
    assert explain(caught.value)[0] != message


def test_an_expired_agreement_is_passed_over_for_one_that_fits_less_well(
    home: Home, holdings: Holdings, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's refusal then names the clause; under the expired one no node could have been asked."""
    current = hold("mill-a", timedelta(days=3))
    hold("mill-a", timedelta(days=-3))
    monkeypatch.setattr(choosing, "_permits", lambda *_: False)
    (choice,) = chosen(home, holdings, "mill-a")
    assert choice.agreement == current


def test_a_company_whose_agreement_expired_is_left_out_of_a_job_for_all(
    home: Home, holdings: Holdings, hold: Hold
) -> None:
    hold("mill-a", timedelta(days=-3))
    hold("mill-b", timedelta(days=3))
    hold("mill-c", timedelta(seconds=30))
    assert [one.agreement.provider for one in chosen(home, holdings, "mill-a", "mill-b", "mill-c")] == [
        "mill-b",
        "mill-c",
    ]
    with pytest.raises(NoAgreementError, match="mill-a"):
        chosen(home, holdings, "mill-a", "mill-b", datasets=("mill-b/passes", "mill-a/passes"))


def test_no_agreement_at_all_is_another_refusal(home: Home, holdings: Holdings) -> None:
    with pytest.raises(NoAgreementError, match="no agreement is in force"):
        chosen(home, holdings, "mill-a")


def test_a_company_takes_part_with_the_dataset_that_fits_and_is_asked_for_where_two_do(
    home: Home, holdings: Holdings, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold("mill-a", timedelta(days=3))
    hold("mill-a", timedelta(days=3), "loads", "fed:LoadForecast")
    catalog = [published("mill-a"), published("mill-a", "loads")]
    monkeypatch.setattr(choosing, "_permits", lambda agreement, *_: agreement.dataset == "loads")

    def choose_from(*named: str) -> list[str]:
        wanted = choose(home, holdings, catalog, purpose=PURPOSE, actions=("fed:train",), code=DIGEST, datasets=named)
        return [one.agreement.dataset for one in wanted]

    assert choose_from() == ["loads"]
    monkeypatch.setattr(choosing, "_permits", lambda *_: True)
    with pytest.raises(UsageError, match="passes, loads") as caught:
        choose_from()
    assert "--dataset" in caught.value.hint
    assert choose_from("mill-a/passes") == ["passes"]
