"""The raw file's dirt: every row is accounted for, and no date is guessed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from examples.grid_load import prepare as prepare_module
from examples.grid_load.prepare import PrepareError, main, parse_dates, prepare


def raw(path: Path, stamps: list[str], loads: list[object] | None = None) -> Path:
    values = loads or [100 + number for number in range(len(stamps))]
    lines = ["Datetime,TEST_MW", *(f"{stamp},{load}" for stamp, load in zip(stamps, values, strict=True))]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def hours(start: str, count: int, form: str) -> list[str]:
    return [stamp.strftime(form) for stamp in pd.date_range(start, periods=count, freq="h")]


@pytest.mark.parametrize("form", [prepare_module.DAY_FIRST, prepare_module.MONTH_FIRST, prepare_module.YEAR_FIRST])
def test_same_table_whatever_the_date_format(tmp_path: Path, form: str) -> None:
    table, report = prepare(raw(tmp_path / "T_hourly.csv.gz", hours("2015-01-30 01:00", 24 * 20, form)))
    assert list(table["datetime"]) == list(pd.date_range("2015-01-30 01:00", periods=480, freq="h"))
    assert report.missing_hours == 0
    assert report.day_first_dates_converted == (480 if form == prepare_module.DAY_FIRST else 0)
    assert (report.day_first_proof > 0) == (form == prepare_module.DAY_FIRST)


@pytest.mark.parametrize("form", [prepare_module.DAY_FIRST, prepare_module.MONTH_FIRST])
def test_order_without_a_day_above_12_is_taken_from_continuity(form: str) -> None:
    # 1 to 12 March: read the other way these hours would be twelve lone days over the year
    stamps, converted, proof = parse_dates(pd.Series(hours("2015-03-01 00:00", 24 * 12, form)))
    assert list(stamps) == list(pd.date_range("2015-03-01", periods=288, freq="h"))
    assert (converted, proof) == (288 if form == prepare_module.DAY_FIRST else 0, 0)


def test_undecidable_order_is_refused() -> None:
    with pytest.raises(PrepareError, match="no date tells"):
        parse_dates(pd.Series(hours("2015-03-04 01:00", 20, prepare_module.DAY_FIRST)))


def test_contradicting_orders_are_refused() -> None:
    with pytest.raises(PrepareError, match="contradict"):
        parse_dates(pd.Series(["25-12-2015 01:00", "12-26-2015 01:00"]))


def test_year_first_and_day_first_rows_may_share_a_file(tmp_path: Path) -> None:
    stamps = hours("2015-01-13 01:00", 24, prepare_module.DAY_FIRST) + hours(
        "2015-01-14 01:00", 24, prepare_module.YEAR_FIRST
    )
    table, report = prepare(raw(tmp_path / "T.csv", stamps))
    assert (len(table), report.missing_hours, report.day_first_dates_converted) == (48, 0, 24)


def test_duplicates_gaps_and_disorder_are_counted(tmp_path: Path) -> None:
    every = hours("2015-10-31 01:00", 48, prepare_module.YEAR_FIRST)
    loads: list[object] = [1000.0] * 48
    twice = every.index("2015-11-01 02:00:00")
    loads[twice] = 900.0
    every.insert(twice + 1, "2015-11-01 02:00:00")
    loads.insert(twice + 1, 1100.0)
    del every[5:7], loads[5:7]  # two hours in a row were never written
    newest_first = every[24:] + every[:24], loads[24:] + loads[:24]
    table, report = prepare(raw(tmp_path / "T.csv", *newest_first))
    assert report.rows_read == 47
    assert (report.duplicate_hours_merged, report.duplicate_rows_merged) == (1, 1)
    assert report.largest_duplicate_spread_percent == 20.0
    assert (report.missing_hours, report.longest_gap_hours) == (2, 2)
    assert report.rows_out_of_order == 1
    assert report.rows_written == len(table) == 46
    assert table.set_index("datetime")["load_mw"][pd.Timestamp("2015-11-01 02:00")] == 1000.0
    assert table["datetime"].is_monotonic_increasing
    assert table["load_mw"].notna().all()  # nothing is interpolated into the table


def test_missing_hours_of_clock_changes_are_told_apart(tmp_path: Path) -> None:
    spring = hours("2015-03-08 01:00", 24, prepare_module.YEAR_FIRST)
    spring.remove("2015-03-08 03:00:00")
    spring.remove("2015-03-08 17:00:00")
    report = prepare(raw(tmp_path / "T.csv", spring))[1]
    assert (report.missing_hours, report.missing_after_spring_change, report.missing_at_autumn_change) == (2, 1, 0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("31-02-2015 01:00,5", "does not exist"),
        ("13/01/2015 01:00,5", "unknown shape"),
        ("13-01-2015 01:30,5", "not on the hour"),
        ("13-01-2015 02:00,", "not a positive number"),
        ("13-01-2015 02:00,nan", "not a positive number"),
        ("13-01-2015 02:00,inf", "not a positive number"),
        ("13-01-2015 02:00,-4", "not a positive number"),
        ("13-01-2015 02:00,5,6", "two fields"),
        ("", "two fields"),
    ],
)
def test_unreadable_row_stops_the_run_and_names_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, why: str
) -> None:
    source = tmp_path / "T.csv"
    source.write_text(f"Datetime,TEST_MW\n13-01-2015 01:00,4321\n{line}\n13-01-2015 03:00,4322\n")
    assert main([str(source), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert why in error
    assert "line 3" in error
    assert "432" not in error  # no load in an error
    assert not (tmp_path / "out").exists()


def test_command_writes_table_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = raw(tmp_path / "T.csv", hours("2015-01-13 01:00", 24, prepare_module.DAY_FIRST))
    for form in ("csv", "parquet"):
        assert main([str(source), "--out", str(tmp_path / form), "--format", form]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / form / "report.json").read_text())
    from_csv = pd.read_csv(tmp_path / "csv" / "load.csv", parse_dates=["datetime"])
    pd.testing.assert_frame_equal(from_csv, pd.read_parquet(tmp_path / "parquet" / "load.parquet"), check_dtype=False)
