"""Makes the table a utility's node registers out of the raw hourly file it has.

    python examples/grid_load/prepare.py AEP_hourly.csv.gz --out aep/ --format parquet

The raw files are real: days in no order, dates that put the day first in five of seven, four hours twice (the end of
daylight saving) and some hours never. The report accounts for each row read; a row that cannot be read stops the run.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from examples.common.raw import PrepareError

DAY_FIRST = "%d-%m-%Y %H:%M"
MONTH_FIRST = "%m-%d-%Y %H:%M"
YEAR_FIRST = "%Y-%m-%d %H:%M:%S"
_YEAR_FIRST_SHAPE = r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}"
_YEAR_LAST_SHAPE = r"\d{2}-\d{2}-\d{4} \d{2}:\d{2}"


@dataclass(frozen=True)
class Report:
    """What was done to one raw file; counts and hours only, no load.

    Attributes:
        rows_read: data rows in the raw file.
        day_first_dates_converted: rows whose date was written dd-mm-yyyy.
        day_first_proof: of these, rows whose first number is above 12 and can only be a day. If there is none, the
            proof is that the hours hang together under this order alone.
        rows_out_of_order: rows whose hour is earlier than that of the row before.
        duplicate_hours_merged: hours written more than once; each became the mean of its rows.
        duplicate_rows_merged: rows that disappeared by it.
        largest_duplicate_spread_percent: widest disagreement among the rows of one hour.
        missing_hours: hours between first and last without a row. They stay out: the table holds measurements only.
        missing_after_spring_change: of these, the hour 03:00 of a clock change in March or April, which never existed.
        missing_at_autumn_change: of these, the hour 02:00 of one in October or November, which existed twice.
        longest_gap_hours: longest run of missing hours.
        rows_written: rows_read - duplicate_rows_merged.
    """

    source: str
    rows_read: int
    day_first_dates_converted: int
    day_first_proof: int
    rows_out_of_order: int
    duplicate_hours_merged: int
    duplicate_rows_merged: int
    largest_duplicate_spread_percent: float
    missing_hours: int
    missing_after_spring_change: int
    missing_at_autumn_change: int
    longest_gap_hours: int
    first_hour: str
    last_hour: str
    rows_written: int


def prepare(source: Path) -> tuple[pd.DataFrame, Report]:
    """Returns the clean table and the account of every raw row.

    The table has one row a measured hour, ascending: `datetime` (the hour that ends there, local time) and `load_mw`.

    Raises:
        PrepareError: a row has an unreadable date or load, or the order of day and month cannot be proved.
    """
    raw = _read_raw(source)
    stamps, converted, proof = parse_dates(raw["datetime"])
    loads = _parse_loads(raw["load_mw"])
    rows = pd.DataFrame({"datetime": stamps, "load_mw": loads})
    grouped = rows.groupby("datetime", sort=True)["load_mw"]
    table = grouped.mean().reset_index()
    hours = pd.DatetimeIndex(table["datetime"])
    sizes = grouped.size().to_numpy()
    spread = (grouped.max() - grouped.min()) / grouped.mean() * 100.0
    missing = pd.date_range(hours[0], hours[-1], freq="h").difference(hours)
    report = Report(
        source=source.name,
        rows_read=len(raw),
        day_first_dates_converted=converted,
        day_first_proof=proof,
        rows_out_of_order=int((stamps.diff() < pd.Timedelta(0)).sum()),
        duplicate_hours_merged=int((sizes > 1).sum()),
        duplicate_rows_merged=int((sizes - 1).sum()),
        largest_duplicate_spread_percent=round(float(spread.max()), 1),
        missing_hours=len(missing),
        missing_after_spring_change=_changes(missing, hour=3, months=(3, 4)),
        missing_at_autumn_change=_changes(missing, hour=2, months=(10, 11)),
        longest_gap_hours=_longest_run(missing),
        first_hour=str(hours[0]),
        last_hour=str(hours[-1]),
        rows_written=len(table),
    )
    if report.rows_written + report.duplicate_rows_merged != report.rows_read:
        raise PrepareError("the rows do not add up")
    return table, report


def parse_dates(text: pd.Series[str]) -> tuple[pd.Series[pd.Timestamp], int, int]:
    """Reads year-first and year-last dates and proves the order of day and month before it uses it.

    The year-last dates of one file share one order. A first number above 12 proves the day first, a second one above
    12 the month first. If all are 12 or less, the order under which the hours hang together is taken, if it is
    clearly one of the two.

    Returns:
        The stamps, how many were written day first, and how many of those carry the proof themselves.

    Raises:
        PrepareError: a date has another shape or does not exist, or the order is contradictory or not decidable.
    """
    year_first = text.str.fullmatch(_YEAR_FIRST_SHAPE)
    year_last = text.str.fullmatch(_YEAR_LAST_SHAPE)
    _refuse_rows(~(year_first | year_last), "the date has an unknown shape")
    stamps = pd.Series(pd.NaT, index=text.index, dtype="datetime64[us]")
    stamps[year_first] = pd.to_datetime(text[year_first], format=YEAR_FIRST, errors="coerce")
    late = text[year_last]
    proof = int((late.str[:2].astype(int) > 12).sum())
    converted = 0
    if len(late):
        order = _order(late, proof)
        stamps[year_last] = pd.to_datetime(late, format=order, errors="coerce")
        converted = len(late) if order == DAY_FIRST else 0
    _refuse_rows(stamps.isna(), "the date does not exist")
    off_hour = (stamps.dt.minute != 0) | (stamps.dt.second != 0)
    _refuse_rows(off_hour, "the date is not on the hour")
    return stamps, converted, proof if converted else 0


def write(table: pd.DataFrame, directory: Path, form: Literal["parquet", "csv"]) -> Path:
    """Writes the table as `load.parquet` or `load.csv` into `directory` and returns the path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"load.{form}"
    if form == "parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, date_format="%Y-%m-%d %H:%M:%S")
    return path


def _read_raw(source: Path) -> pd.DataFrame:
    opener = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rt", encoding="utf-8", newline="") as stream:
        header, *rows = [*csv.reader(stream, strict=True)] or [[]]
    if len(header) != 2 or header[0] != "Datetime" or not header[1].endswith("_MW"):
        raise PrepareError("expected the two columns Datetime and NAME_MW")
    if not rows:
        raise PrepareError("the file has no rows")
    _refuse_rows(pd.Series([len(row) != 2 for row in rows]), "expected two fields")
    return pd.DataFrame(rows, columns=["datetime", "load_mw"], dtype=str)


def _parse_loads(text: pd.Series[str]) -> pd.Series[float]:
    loads = pd.to_numeric(text, errors="coerce").astype(float)
    _refuse_rows(~(loads > 0) | (loads == float("inf")), "the load is not a positive number")
    return loads


def _order(late: pd.Series[str], day_proofs: int) -> str:
    month_proofs = int((late.str[3:5].astype(int) > 12).sum())
    if day_proofs and month_proofs:
        raise PrepareError(
            f"dates contradict each other: {day_proofs} only fit the day first, {month_proofs} only the month first"
        )
    if day_proofs or month_proofs:
        return DAY_FIRST if day_proofs else MONTH_FIRST
    holes = {form: _holes(pd.to_datetime(late, format=form, errors="coerce")) for form in (DAY_FIRST, MONTH_FIRST)}
    best, worst = sorted(holes, key=lambda form: holes[form])
    if holes[best] * 2 >= holes[worst]:
        raise PrepareError("no date tells whether the day or the month comes first")
    return best


def _holes(stamps: pd.Series[pd.Timestamp]) -> int:
    """Counts the breaks in the hourly sequence: the wrong order of day and month scatters days over the year."""
    steps = stamps.drop_duplicates().sort_values().diff().dropna()
    return int((steps != pd.Timedelta(hours=1)).sum())


def _refuse_rows(bad: pd.Series[bool], why: str) -> None:
    lines = [int(position) + 2 for position in bad.to_numpy().nonzero()[0]]  # line 1 is the header
    if lines:
        raise PrepareError(f"{why}: {len(lines)} row(s), first at line {lines[0]}")


def _changes(missing: pd.DatetimeIndex, *, hour: int, months: tuple[int, ...]) -> int:
    sundays = missing[(missing.day_of_week == 6) & (missing.hour == hour)]
    return int(sundays.month.isin(months).sum())


def _longest_run(missing: pd.DatetimeIndex) -> int:
    if missing.empty:
        return 0
    runs = (missing.to_series().diff() != pd.Timedelta(hours=1)).cumsum()
    return int(runs.value_counts().max())


def main(argv: list[str] | None = None) -> int:
    """Prepares one raw file: the report as JSON on stdout, the table under --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="NAME_hourly.csv or NAME_hourly.csv.gz")
    parser.add_argument("--out", type=Path, required=True, help="directory for the table and report.json")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    arguments = parser.parse_args(argv)
    try:
        table, report = prepare(arguments.source)
        write(table, arguments.out, arguments.format)
    except (PrepareError, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    text = json.dumps(asdict(report), indent=2)
    (arguments.out / "report.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
