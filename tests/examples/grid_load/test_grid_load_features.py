"""Day-ahead means day-ahead: nothing from the forecast day or later reaches an input."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from gridload.examples import make_examples
from gridload.features import CALENDAR_INPUTS, calendar, daily_curves, lagged_examples, mean_load
from gridload.linear_base import with_linear_base
from gridload.model import INPUTS

SPLIT = date(2016, 12, 20)


def perturbed(table: pd.DataFrame, first_changed: pd.Timestamp) -> pd.DataFrame:
    """Returns the table with every load from that stamp on replaced by something else."""
    changed = table.copy()
    late = changed["datetime"] >= first_changed
    changed.loc[late, "load_mw"] *= np.random.default_rng(7).uniform(0.5, 2.0, int(late.sum()))
    return changed


def test_operating_day_is_the_24_hours_ending_after_midnight(make_table) -> None:
    table = make_table(30)
    curves = daily_curves(table)
    day = table[(table["datetime"] >= "2016-10-01 01:00") & (table["datetime"] <= "2016-10-02 00:00")]
    row = list(curves.days).index(pd.Timestamp("2016-10-01"))
    np.testing.assert_array_equal(curves.loads[row], day["load_mw"].to_numpy())


@pytest.mark.parametrize("day", ["2016-10-15", "2016-12-20", "2017-01-03"])
def test_lagged_inputs_ignore_the_forecast_day_and_all_later(make_table, day: str) -> None:
    table = make_table()
    origin = pd.Timestamp(day) + pd.Timedelta(hours=1)  # first stamp of the operating day
    before = lagged_examples(daily_curves(table), 900.0)
    after = lagged_examples(daily_curves(perturbed(table, origin)), 900.0)
    known = before.days <= pd.Timestamp(day)
    assert known.sum() >= 1
    for name in ("x", "base", "last_week"):
        np.testing.assert_array_equal(getattr(before, name)[known], getattr(after, name)[known])
    assert not np.array_equal(before.target[before.days == day], after.target[after.days == day])


def test_last_hour_before_the_origin_is_used(make_table) -> None:
    """Shows that the leakage test can fail: one hour earlier, the perturbation must reach the inputs."""
    table = make_table()
    before = lagged_examples(daily_curves(table), 900.0)
    after = lagged_examples(daily_curves(perturbed(table, pd.Timestamp("2016-12-20 00:00"))), 900.0)
    row = before.days == pd.Timestamp("2016-12-20")
    assert not np.array_equal(before.x[row], after.x[row])


@pytest.mark.parametrize("day", ["2016-12-20", "2017-01-03"])
def test_scale_and_linear_base_ignore_the_forecast_day_and_all_later(make_table, day: str) -> None:
    table = make_table()
    origin = pd.Timestamp(day) + pd.Timedelta(hours=1)
    before, after = make_examples(table, SPLIT), make_examples(perturbed(table, origin), SPLIT)
    known = before.days <= pd.Timestamp(day)
    np.testing.assert_array_equal(before.x[known], after.x[known])
    np.testing.assert_array_equal(before.base[known], after.base[known])


def test_base_of_a_training_day_is_fitted_without_that_day(make_table) -> None:
    examples = lagged_examples(daily_curves(make_table()), 900.0)
    row = int(np.flatnonzero(examples.days == pd.Timestamp("2016-11-01"))[0])
    target = examples.target.copy()
    target[row] *= 1.3
    other = type(examples)(examples.days, examples.x, examples.base, target, examples.last_week)
    np.testing.assert_array_equal(with_linear_base(examples, SPLIT).base[row], with_linear_base(other, SPLIT).base[row])


def test_missing_hour_is_neither_trained_on_nor_lost(make_table) -> None:
    table = make_table(40)
    gap = table["datetime"] == "2016-10-20 14:00"
    examples = lagged_examples(daily_curves(table[~gap]), 900.0)
    row = int(np.flatnonzero(examples.days == pd.Timestamp("2016-10-20"))[0])
    assert np.isnan(examples.target[row]).sum() == 1
    assert np.isfinite(examples.x).all()
    assert examples.hours() == examples.target.size - 1
    assert len(examples) == 40 - 14


def test_days_that_need_a_lost_day_are_left_out(make_table) -> None:
    table = make_table(60)
    lost = (table["datetime"] >= "2016-10-20 01:00") & (table["datetime"] <= "2016-10-21 00:00")
    days = lagged_examples(daily_curves(table[~lost]), 900.0).days
    assert not any(pd.Timestamp("2016-10-20") <= day <= pd.Timestamp("2016-11-03") for day in days)
    assert pd.Timestamp("2016-11-04") in days


def test_inputs_do_not_tell_how_large_a_utility_is(make_table) -> None:
    small, large = make_examples(make_table(mean=90.0), SPLIT), make_examples(make_table(mean=9e4), SPLIT)
    np.testing.assert_allclose(small.x, large.x, atol=1e-4)
    np.testing.assert_allclose(small.target, large.target, atol=1e-5)


def test_scale_is_the_mean_before_the_split(make_table) -> None:
    curves = daily_curves(make_table())
    assert mean_load(curves, SPLIT) == pytest.approx(curves.loads[curves.days < pd.Timestamp(SPLIT)].mean())


def test_widths_agree_with_the_network(make_table) -> None:
    assert make_examples(make_table(), SPLIT).x.shape[1] == INPUTS
    days = pd.date_range("2016-12-20", "2017-01-05", freq="D")
    assert calendar(days).shape == (17, CALENDAR_INPUTS)


def test_too_short_a_table_is_refused(make_table) -> None:
    with pytest.raises(ValueError, match="more than 14 days"):
        make_examples(make_table(10), SPLIT)
