"""What noise costs and what a cost means: against closed formulas, Google's dp-accounting and OpenDP."""

import json
import math
from fractions import Fraction
from pathlib import Path

import opendp.prelude as dp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import UsageError
from federation.privacy import (
    MICRO,
    PROFILES,
    STANDARD,
    STRICT,
    TRUNCATION_RESERVE,
    delta,
    epsilon,
    exact,
    gaussian_micro_rho,
    half_width,
    rho_text,
    share_of_variance,
    summed_micro_rho,
    variance_within,
)

VECTORS = json.loads((Path(__file__).parent / "dp_accounting.json").read_text())
RHO, COMPOSED = VECTORS["rho, delta, epsilon (zCDP), epsilon (Gaussian)"], VECTORS["sigma, count, epsilon"]


@pytest.mark.parametrize(("rho", "at", "zcdp", "gaussian"), RHO)
def test_the_conversion_agrees_with_dp_accounting(rho: float, at: float, zcdp: float, gaussian: float) -> None:
    ours = epsilon(round(rho * MICRO), f"{at:.9f}")
    # ours sets a little of delta aside, so it is never the smaller one
    assert zcdp - 1e-6 <= ours <= zcdp * (1 + 1e-3)
    assert gaussian - 1e-6 <= ours


@pytest.mark.parametrize(("sigma", "count", "theirs"), COMPOSED)
def test_composition_agrees_with_dp_accounting(sigma: float, count: int, theirs: float) -> None:
    each = gaussian_micro_rho(1, Fraction(sigma) ** 2)
    assert theirs - 1e-6 <= epsilon(count * each, "0.000001") <= theirs * (1 + 2e-3)


@pytest.mark.parametrize("rho", [0.005, 0.1, 0.5, 2.0])
def test_the_conversion_agrees_with_opendp(rho: float) -> None:
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    gaussian = dp.m.make_gaussian(*space, scale=math.sqrt(1 / (2 * rho)))
    theirs = dp.c.make_zCDP_to_approxDP(gaussian).map(1.0).epsilon(1e-6)
    assert epsilon(round(rho * MICRO), "0.000001") == pytest.approx(theirs, rel=1e-5)


@given(st.integers(1, 10**8), st.sampled_from(["0.01", "0.000001", "0.000000001"]))
def test_epsilon_and_delta_are_each_others_inverse(micro_rho: int, at: str) -> None:
    assert delta(micro_rho, epsilon(micro_rho, at)) <= float(at) * (1 + 1e-6) + TRUNCATION_RESERVE


@given(st.integers(1, 10**12), st.fractions(min_value=Fraction(1, 1000), max_value=10**9))
def test_noise_for_a_cost_costs_no_more(micro_rho: int, sensitivity_squared: Fraction) -> None:
    variance = variance_within(micro_rho, sensitivity_squared)
    assert gaussian_micro_rho(sensitivity_squared, variance) == micro_rho
    assert gaussian_micro_rho(sensitivity_squared, variance * Fraction(999, 1000)) > micro_rho  # rounded up, never down


@pytest.mark.parametrize(("sensitivity", "sigma", "rho"), [(1, 10, "0.005"), (1, 1, "0.5"), (3, 1, "4.5")])
def test_a_cost_is_the_closed_formula(sensitivity: int, sigma: int, rho: str) -> None:
    assert rho_text(gaussian_micro_rho(sensitivity**2, sigma**2)) == rho


def test_a_sum_of_shares_costs_what_one_noise_does_where_shares_are_wide() -> None:
    for shares in (1, 2, 5, 43):
        assert summed_micro_rho(100, Fraction(10_000, shares), shares, 10**6) in (5_000, 5_001)


def test_a_sum_of_narrow_shares_costs_more_as_the_proposition_says() -> None:
    share, shares, dimension = Fraction(1, 2), 4, 1000
    tau = 10 * sum(math.exp(-2 * math.pi**2 * 0.5 * k / (k + 1)) for k in range(1, shares))
    expected = (1 / (shares * 0.5) + tau * dimension / 2) / 2 * MICRO
    assert summed_micro_rho(1, share, shares, dimension) == pytest.approx(expected, abs=2)
    assert summed_micro_rho(1, share, shares, dimension) >= expected
    assert summed_micro_rho(1, share, shares, dimension) > 10 * gaussian_micro_rho(1, share * shares)


@pytest.mark.parametrize(("survivors", "colluders", "share"), [(3, 2, 100), (7, 3, 25), (1, 0, 100)])
def test_a_share_is_what_leaves_enough_whoever_colludes(survivors: int, colluders: int, share: int) -> None:
    assert share_of_variance(100, survivors, colluders) == share


def test_nothing_is_certain_where_all_survivors_may_collude() -> None:
    with pytest.raises(UsageError):
        share_of_variance(100, 2, 2)


@pytest.mark.parametrize("text", ["nan", "inf", "x", "", "1/0"])
def test_only_exact_numbers_are_taken(text: str) -> None:
    with pytest.raises(UsageError):
        exact(text)


@pytest.mark.parametrize("at", ["0", "0.0000000000001", "1", "2"])
def test_a_delta_that_leaves_nothing_is_refused(at: str) -> None:
    with pytest.raises(UsageError):
        epsilon(1, at)


def test_noise_of_no_cost_and_cost_of_no_noise_are_refused() -> None:
    for refused in (
        lambda: variance_within(0, 1),
        lambda: gaussian_micro_rho(1, 0),
        lambda: summed_micro_rho(1, 0, 1, 1),
    ):
        with pytest.raises(UsageError):
            refused()


def test_nothing_spent_is_nothing_lost() -> None:
    assert epsilon(0, "0.000001") == 0.0
    assert delta(0, 1.0) == 0.0


def test_profiles_are_what_their_sources_say() -> None:
    assert round(epsilon(STANDARD.dataset, STANDARD.delta), 1) == 5.2
    assert round(epsilon(STRICT.dataset, STRICT.delta), 2) == 0.85
    assert variance_within(STANDARD.query, 1) == 100
    assert all(one.query <= one.requester <= one.dataset for one in PROFILES.values())


def test_an_interval_holds_the_discrete_gaussian() -> None:
    for variance in (1, 4, 100, 10_000):
        weights = {k: math.exp(-(k**2) / (2 * variance)) for k in range(-1500, 1501)}
        inside = sum(weight for k, weight in weights.items() if abs(k) <= half_width(variance))
        assert inside / sum(weights.values()) >= 0.95


def test_rho_is_written_without_floats() -> None:
    assert [rho_text(n) for n in (0, 1, 5_000, 100_000, 1_000_000, 1_250_000)] == [
        "0",
        "0.000001",
        "0.005",
        "0.1",
        "1",
        "1.25",
    ]
