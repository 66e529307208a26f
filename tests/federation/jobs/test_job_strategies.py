"""Which strategies may run on one weighted mean."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import MetricRecord
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from flwr.serverapp.strategy.fedopt import FedOpt

from federation.jobs.strategies import RefusedError, check_cohort, check_for_sums, weight_key


class OwnTrain(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        return super().aggregate_train(server_round, replies)


class OwnEvaluate(FedYogi):
    def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
        return None


class OwnStart(FedAvg):
    def start(self, *args: Any, **kwargs: Any) -> Any:
        return super().start(*args, **kwargs)


class BelowOwnTrain(OwnTrain):
    pass


class OwnConfigure(FedAdam):
    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        config["lr"] = 0.1
        return super().configure_train(server_round, arrays, config, grid)


class OfKrum(Krum):
    pass


class FromScratch(Strategy):
    def configure_train(self, *args: Any) -> Any:
        return []

    configure_evaluate = aggregate_train = aggregate_evaluate = summary = configure_train  # type: ignore[assignment]


def _patched() -> FedAvg:
    strategy = FedAvg()
    strategy.aggregate_train = lambda server_round, replies: (None, None)  # type: ignore[method-assign]
    return strategy


FLOWERS_UNFIT = [
    Bulyan(),
    DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 0.1, 3),
    DifferentialPrivacyClientSideFixedClipping(FedAvg(), 1.0, 1.0, 3),
    DifferentialPrivacyServerSideAdaptiveClipping(FedAvg(), 0.1, 3),
    DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 3),
    FedMedian(),
    FedTrimmedAvg(),
    FedXgbBagging(),
    FedXgbCyclic(),
    Krum(),
    MultiKrum(),
    OfKrum(),
    QFedAvg(client_learning_rate=0.1),
]
OWN = [
    OwnTrain(),
    OwnEvaluate(),
    OwnStart(),
    BelowOwnTrain(),
    FromScratch(),
    _patched(),
    FedAvg(train_metrics_aggr_fn=lambda records, key: MetricRecord()),
    FedAvg(evaluate_metrics_aggr_fn=lambda records, key: MetricRecord()),
]
FIT = [FedAvg(), FedProx(), FedAdam(), FedYogi(), FedAdagrad(), FedAvgM(), OwnConfigure(), FedOpt()]


def _name(strategy: object) -> str:
    return type(strategy).__name__


@pytest.mark.parametrize("strategy", FIT, ids=_name)
def test_the_listed_ones_run(strategy: Strategy):
    check_for_sums(strategy, declared_fit=False)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("strategy", FLOWERS_UNFIT, ids=_name)
def test_inv8_flowers_that_look_at_single_replies_are_refused_whatever_an_app_declares(
    strategy: Strategy, declared: bool
):
    with pytest.raises(RefusedError) as refusal:
        check_for_sums(strategy, declared_fit=declared)
    assert (refusal.value.code, refusal.value.strategy) == ("strategy-not-for-sums", _name(strategy))


@pytest.mark.parametrize("strategy", OWN, ids=_name)
def test_an_apps_own_aggregation_needs_its_declaration(strategy: Strategy):
    with pytest.raises(RefusedError, match=r"strategy-not-for-sums.*fit-for-sums"):
        check_for_sums(strategy, declared_fit=False)
    check_for_sums(strategy, declared_fit=True)


def test_every_strategy_that_flower_exports_is_judged_here():
    import flwr.serverapp.strategy as exported

    judged = {_name(strategy) for strategy in (*FLOWERS_UNFIT, *FIT)}
    assert set(exported.__all__) - {"Strategy", "Result"} <= judged


@pytest.mark.parametrize("fraction", [0.5, 0.99, 1.5])
@pytest.mark.parametrize("setting", ["fraction_train", "fraction_evaluate"])
def test_sampling_is_refused(setting: str, fraction: float):
    with pytest.raises(RefusedError, match="sampling-not-whole") as refusal:
        check_for_sums(FedAvg(**{setting: fraction}), declared_fit=True)  # type: ignore[arg-type]
    assert setting in refusal.value.reason


def test_nobody_taking_part_in_one_kind_of_step_is_no_sampling():
    check_for_sums(FedAvg(fraction_evaluate=0.0), declared_fit=False)
    check_for_sums(FedAvg(fraction_train=0.0), declared_fit=False)


@pytest.mark.parametrize("setting", ["min_available_nodes", "min_train_nodes", "min_evaluate_nodes"])
def test_a_strategy_that_would_wait_for_ever_is_refused(setting: str):
    check_cohort(FedAvg(**{setting: 3}), 3)  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="cohort-too-small"):
        check_cohort(FedAvg(**{setting: 4}), 3)  # type: ignore[arg-type]


def test_the_weight_key_is_the_strategys():
    assert weight_key(FedAvg(weighted_by_key="rows")) == "rows"
    assert weight_key(FromScratch()) == "num-examples"
    assert weight_key(None) == "num-examples"
