"""Turns one utility's hourly load into day-ahead examples that never look past the forecast origin.

Times are PJM's: a stamp names the hour that *ends* there, so the operating day D holds the 24 stamps D 01:00 to
D+1 00:00. The forecasts for all 24 hours of D are issued at the end of D-1, when its last hour (stamp D 00:00) is
known. Every load in the inputs of D belongs to D-1 or an earlier day: the same hour is never nearer than 24 hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

HOURS = 24
CURVE_LAGS = (1, 2, 3, 7, 14)  # days back whose whole curve is an input
MEAN_LAGS = tuple(range(1, 15))  # days back whose mean is an input
LONGEST_LAG = max(*CURVE_LAGS, *MEAN_LAGS)
LEVEL_DAYS = 7  # the level that scales one example: the mean of this many days before it
MAX_FILLED_HOURS = 3  # a day with more missing hours is not used as an input
YEAR_HARMONICS = 4
HOLIDAY_SHIFTS = (-7, -2, -1, 0, 1)
FESTIVE = ((12, 24), (12, 25), (12, 26), (12, 31), (1, 1), (7, 4))
CALENDAR_INPUTS = 7 + 2 * YEAR_HARMONICS + len(HOLIDAY_SHIFTS) + len(FESTIVE) + 1
SPREAD = 6.0  # loads over their level are within about 1 +- 1/SPREAD: brings inputs to unit size


@dataclass(frozen=True)
class Curves:
    """One row per operating day without a hole between the days, one column per hour; a missing hour is NaN."""

    days: pd.DatetimeIndex
    loads: Doubles


@dataclass(frozen=True)
class Examples:
    """Day-ahead examples, one row an operating day; curves have 24 columns of load over the example's own level.

    The level is the mean load of the seven days before: known at the origin, and what makes utilities alike.

    Attributes:
        days: the operating days.
        x: inputs of the network.
        base: the forecast that the network corrects.
        target: the load that came; NaN where it was not measured.
        last_week: the load of the same hours a week before, the forecast to beat.
    """

    days: pd.DatetimeIndex
    x: Floats
    base: Floats
    target: Floats
    last_week: Floats

    def __len__(self) -> int:
        return len(self.days)

    def hours(self) -> int:
        """Returns how many hours were measured: what a node counts as its examples."""
        return int(np.isfinite(self.target).sum())

    def between(self, first: date | None, end: date | None) -> Examples:
        """Returns the examples of the operating days in [first, end); None leaves that side open."""
        keep = np.ones(len(self.days), dtype=bool)
        if first is not None:
            keep &= np.asarray(self.days >= pd.Timestamp(first))
        if end is not None:
            keep &= np.asarray(self.days < pd.Timestamp(end))
        return self.where(keep)

    def where(self, keep: npt.NDArray[np.bool_]) -> Examples:
        """Returns the examples that `keep` marks."""
        return Examples(self.days[keep], self.x[keep], self.base[keep], self.target[keep], self.last_week[keep])


def daily_curves(table: pd.DataFrame) -> Curves:
    """Arranges hourly rows as operating days by hours; hours without a row become NaN.

    Args:
        table: columns `datetime` (hour ending, local time) and `load_mw`, in any order, one row an hour.
    """
    stamps = pd.DatetimeIndex(pd.to_datetime(table["datetime"])) - pd.Timedelta(hours=1)
    days = stamps.normalize()
    grid = pd.DataFrame({"day": days, "hour": stamps.hour, "load": table["load_mw"].to_numpy(dtype=np.float64)})
    wide = grid.pivot_table(index="day", columns="hour", values="load", aggfunc="mean")
    every_day = pd.date_range(days.min(), days.max(), freq="D")
    wide = wide.reindex(index=every_day, columns=range(HOURS))
    return Curves(pd.DatetimeIndex(every_day), wide.to_numpy(dtype=np.float64))


def mean_load(curves: Curves, before: date) -> float:
    """Returns the mean load in MW over the days before `before`: the node's own scale, never sent."""
    return float(np.nanmean(curves.loads[curves.days < pd.Timestamp(before)]))


def lagged_examples(curves: Curves, scale: float) -> Examples:
    """Builds one example for each day that has all its lagged days; targets are left as measured.

    A lagged day with up to `MAX_FILLED_HOURS` missing hours (daylight saving leaves one) is filled by interpolation
    inside that day, which is over when the forecast is issued. Days that need a worse day are left out.

    Args:
        curves: the node's loads.
        scale: the node's mean load, as `mean_load` returns it.

    Raises:
        ValueError: fewer days than the longest lag.
    """
    filled = _fill_within_day(curves.loads)
    count = len(curves.days) - LONGEST_LAG
    if count <= 0:
        raise ValueError(f"day-ahead examples need more than {LONGEST_LAG} days of load")

    def lagged(back: int) -> Doubles:
        return filled[LONGEST_LAG - back : LONGEST_LAG - back + count]

    days = curves.days[LONGEST_LAG:]
    means = np.stack([lagged(back).mean(axis=1) for back in MEAN_LAGS], axis=1)
    level = means[:, :LEVEL_DAYS].mean(axis=1, keepdims=True)
    curve = {back: lagged(back) / level for back in CURVE_LAGS}
    target = curves.loads[LONGEST_LAG:] / level
    numbers = [(part - 1.0) * SPREAD for part in (*curve.values(), means / level, level / scale)]
    x = np.concatenate([*numbers, calendar(days)], axis=1)
    base = curve[1] - means[:, :1] / level + 1.0  # yesterday's shape at the week's level
    usable = np.isfinite(x).all(axis=1) & np.isfinite(target).any(axis=1)
    parts = (part[usable].astype(np.float32) for part in (x, base, target, curve[7]))
    return Examples(days[usable], *parts)


def _fill_within_day(loads: Doubles) -> Doubles:
    """Interpolates short gaps along each day; a day with too many missing hours stays as it is."""
    filled = loads.copy()
    hours = np.arange(HOURS)
    missing = np.isnan(loads)
    for row in np.flatnonzero(missing.any(axis=1) & (missing.sum(axis=1) <= MAX_FILLED_HOURS)):
        known = ~missing[row]
        filled[row] = np.interp(hours, hours[known], loads[row, known])
    return filled


def calendar(days: pd.DatetimeIndex) -> Doubles:
    """Returns what is known years ahead: weekday, season, United States federal holidays around the day."""
    weekday = np.eye(7)[days.day_of_week.to_numpy()]
    turn = 2.0 * np.pi * (days.day_of_year.to_numpy() - 1) / 365.25
    season = [wave(k * turn) for k in range(1, YEAR_HARMONICS + 1) for wave in (np.sin, np.cos)]
    holidays = USFederalHolidayCalendar().holidays(
        days.min() - pd.Timedelta(days=30), days.max() + pd.Timedelta(days=30)
    )
    near = [(days + pd.Timedelta(days=shift)).isin(holidays).astype(np.float64) for shift in HOLIDAY_SHIFTS]
    festive = [((days.month == month) & (days.day == day)).astype(np.float64) for month, day in FESTIVE]
    after_thanksgiving = ((days.month == 11) & (days.day_of_week == 4) & (days.day >= 23) & (days.day <= 29)).astype(
        np.float64
    )
    return np.column_stack([weekday, *season, *near, *festive, after_thanksgiving])
