"""Noise of a plan: certain, charged for what it hides, and without effect on what the sum is decoded to but itself."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from federation.privacy import epsilon, exact, gaussian_micro_rho, share_of_variance
from federation.secagg import (
    Accumulator,
    EncodingError,
    Layout,
    SurvivorsError,
    add_noise,
    check_enough_left,
    check_noise,
    colluders,
    encode,
    least_left,
    multiplier_for,
    noise_shares,
    noised_encoding,
    reply_bits,
    step_micro_rho,
    threshold,
    worst_bits,
)
from federation.secagg.noising import CLIP_UNITS
from federation.statements import Encoding, MetricSpec, StageOutput
from federation.statements.query import QueryNoise

D = 400
OUTPUT = StageOutput(sent=True, metrics=(MetricSpec(name="loss", minimum="0", maximum="2"),))


def plan(n: int, multiplier: str = "1", clip: str = "1", protection: str = "fed:masked", **changes: Any) -> Any:
    """What of a plan noise rests on."""
    one = SimpleNamespace(
        cohort=range(n), protection=protection, aggregation="sum", micro_rho=1, actions=("fed:train",), query=None
    )
    one.encoding = noised_encoding(n, clip, multiplier, noise_shares(one))  # type: ignore[arg-type]
    one.__dict__.update(changes)
    return one


def sums(one: Any, value: float, metric: float, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Decoded means of all nodes' noised replies: arrays, metrics."""
    n = len(one.cohort)
    sent = {"arrays": {"w": np.zeros(D, dtype=np.float64)}}
    layout = Layout.derive(sent, OUTPUT)
    reply = SimpleNamespace(arrays={"arrays": {"w": np.full(D, value)}}, metrics={"m": {"loss": metric}})
    arrays, metrics = [], []
    for _ in range(repeats):
        total = Accumulator(layout, one.encoding, n)
        for _ in range(n):
            encoded = encode(reply, sent, layout, one.encoding, 1, n)
            add_noise(encoded, one.encoding, layout, noise_shares(one))
            total.add(encoded)
        aggregate = total.finish(n, sent)
        arrays.append(aggregate.arrays["arrays"]["w"])
        metrics.append(aggregate.metrics["loss"])
    return np.concatenate(arrays), np.array(metrics)


@pytest.mark.parametrize("n", [3, 4, 10])
def test_a_sum_carries_at_least_the_noise_that_is_charged_for(n: int) -> None:
    one = plan(n, "0.5")
    arrays, _ = sums(one, 0.01, 1.0, 5)
    scale = float(np.sqrt(n / noise_shares(one))) * 0.5 / n  # of the mean, all nodes' shares in it
    assert stats.kstest((arrays - 0.01) / scale, "norm").pvalue > 1e-6
    assert stats.kstest((arrays - 0.01) / (0.7 * scale), "norm").pvalue < 1e-6  # half the variance would be seen
    certain = Fraction(noise_shares(one), n)  # those that may collude know their own
    assert certain * n == n - threshold(n) + 1


def test_metrics_carry_noise_of_their_own() -> None:
    one = plan(3, "0.1")
    _, metrics = sums(one, 0.0, 1.0, 120)
    # a mean of three, each with all the noise: sd sqrt(3) * 0.1 * bound 2 / 3, cut to the declared range of 0 to 2
    assert stats.kstest((metrics - 1.0) / (np.sqrt(3) * 0.1 * 2 / 3), "norm").pvalue > 1e-6


@pytest.mark.parametrize(("clip", "multiplier"), [("1", "1"), ("0.37", "100"), ("250", "5000"), ("3", "0.01")])
@pytest.mark.parametrize("n", [3, 7, 64])
def test_the_cost_is_the_closed_formula_but_for_rounding(clip: str, multiplier: str, n: int) -> None:
    one = plan(n, multiplier, clip)
    check_noise(one)
    layout = Layout.derive({"arrays": {"w": np.zeros(D, dtype=np.float32)}}, OUTPUT)
    ideal = 2 * gaussian_micro_rho(1, Fraction(multiplier) ** 2)
    assert ideal <= step_micro_rho(one, layout) <= ideal * Fraction(1001, 1000) + 2


def test_a_large_model_costs_what_its_rounding_adds() -> None:
    one = plan(3)
    layout = Layout.derive({"arrays": {"w": np.broadcast_to(np.float32(0), 10**8)}}, StageOutput(sent=True))
    ideal = gaussian_micro_rho(1, 1)
    assert ideal < step_micro_rho(one, layout) <= ideal * (1 + 5000.5 / CLIP_UNITS) ** 2 + 10
    assert step_micro_rho(one, layout) <= ideal * 1.04  # what a plan leaves room for


@pytest.mark.parametrize(("rho", "releases"), [(50_000, 1), (50_000, 40), (100_000, 7), (1_000_000, 3), (300, 100)])
def test_a_plans_multiplier_keeps_all_releases_within_its_budget(rho: int, releases: int) -> None:
    layout = Layout.derive({"arrays": {"w": np.broadcast_to(np.float32(0), 10**6)}}, StageOutput(sent=True))
    one = plan(5, multiplier_for(rho, releases))
    assert releases * step_micro_rho(one, layout) <= rho
    assert releases * step_micro_rho(one, layout) >= rho * 0.3 - 2 * releases


def test_a_clipped_reply_moves_the_integers_by_no_more_than_is_charged() -> None:
    """The largest change that any reply can make, through the encoder itself."""
    one = plan(3, clip="0.5")
    rng = np.random.default_rng(7)
    sent = {"arrays": {"w": np.zeros(D, dtype=np.float64)}}
    layout = Layout.derive(sent, StageOutput(sent=True))
    reach = float(CLIP_UNITS) + (D**0.5 + 1) / 2
    for size in (0.1, 1.0, 1e6, 1e100):
        reply = SimpleNamespace(arrays={"arrays": {"w": rng.normal(size=D) * size}}, metrics={})
        encoded = encode(reply, sent, layout, one.encoding, 1, 3)
        moved = encoded.narrow.view(np.int32 if encoded.narrow.itemsize == 4 else np.int64).astype(np.float64)
        assert np.linalg.norm(moved) <= reach
        assert list(encoded.totals[:3]) == [1, 1, 0]  # neither rows nor saturation are told


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregation": "each"},
        {"micro_rho": 0},
        {"query": "of its own noise"},
        {"scale": "1000000000"},
        {"clip": None},
        {"weight_maximum": 9},
        {"fraction_bits": 18, "scale": "1"},
    ],
    ids=str,
)
def test_noise_that_is_not_what_it_says_is_refused(changes: dict[str, Any]) -> None:
    one = plan(3)
    own = {key: value for key, value in changes.items() if key in Encoding.model_fields}
    one.encoding = one.encoding.model_copy(update=own)
    one.__dict__.update({key: value for key, value in changes.items() if key not in own})
    with pytest.raises(EncodingError):
        check_noise(one)


def test_integer_arrays_do_not_leave_under_noise() -> None:
    layout = Layout.derive({"arrays": {"n": np.zeros(2, dtype=np.int64)}}, StageOutput(sent=True))
    with pytest.raises(EncodingError):
        step_micro_rho(plan(3), layout)


def test_encodings_from_before_read_and_write_as_they_were() -> None:
    old = Encoding(ring="z64", fraction_bits=20, weight_minimum=1, weight_maximum=1000)
    assert "noise" not in old.model_dump(mode="json")
    assert Encoding.model_validate(old.model_dump(mode="json")) == old
    new = noised_encoding(3, "1", "2", 1)
    assert Encoding.model_validate(new.model_dump(mode="json")) == new
    assert epsilon(gaussian_micro_rho(1, 4), "0.000001") > 0


@pytest.mark.parametrize(("multiplier", "bits"), [("1", 0.72), ("0.1", 72), ("0.01", 6_875)])
def test_the_leak_budget_under_noise_is_the_channels_capacity(multiplier: str, bits: float) -> None:
    """The reference's figures at 100,000 elements; 4 % above, for the rounding of the longest vectors."""
    one = plan(3, multiplier)
    one.outputs = SimpleNamespace(of=lambda stage: StageOutput(sent=True))
    layout = Layout.derive({"arrays": {"w": np.broadcast_to(np.float32(0), 100_000)}}, StageOutput(sent=True))
    assert bits <= reply_bits(one, layout) <= bits * 1.05 + 1
    longer = Layout.derive({"arrays": {"w": np.broadcast_to(np.float32(0), 10**9)}}, StageOutput(sent=True))
    one.leak_bits, one.rounds, one.actions = 0, 1, ("fed:train",)
    assert reply_bits(one, longer) <= worst_bits(one)


@pytest.mark.parametrize("n", range(3, 65))
def test_every_set_that_opens_carries_the_noise_that_is_paid_for_whoever_colludes(n: int) -> None:
    one = plan(n)
    stated = exact(one.encoding.noise.multiplier) ** 2
    share = share_of_variance(stated, noise_shares(one), 0)
    colluders = 2 * threshold(n) - n - 1
    for size in range(1, n + 1):
        certain = (size - colluders) * share
        if certain < stated:
            with pytest.raises(SurvivorsError) as caught:
                check_enough_left(one, range(size))  # type: ignore[arg-type]
            assert caught.value.code == "too-few-participants"
        else:
            check_enough_left(one, range(size))  # type: ignore[arg-type]
    assert least_left(plan(n, protection="fed:none")) == 0, "each node adds the noise of all"


@pytest.mark.parametrize("n", [3, 7, 33, 64, 66, 150])
def test_a_querys_noise_is_in_every_set_that_opens_too(n: int) -> None:
    """It is the query's own, not the encoding's; an asker may state that three participants are enough for its plan."""
    for noise in (QueryNoise(unit_rows=1, micro_rho=5000), None):
        one: Any = SimpleNamespace(
            cohort=range(n), protection="fed:masked", encoding=SimpleNamespace(noise=None), minimal_participants=3
        )
        one.query = SimpleNamespace(noise=noise)
        opens = []
        for size in range(1, n + 1):
            try:
                check_enough_left(one, range(size))  # type: ignore[arg-type]
            except SurvivorsError:
                continue
            opens.append(size)
        assert opens == list(range(threshold(n), n + 1)), (
            "without noise too: who cuts a cohort down has one reply by subtraction"
        )
        if noise is not None:
            assert all(size - colluders(n) >= noise_shares(one) for size in opens)
