"""The real files, where they are: what prepare finds in them, and that a few federated rounds beat last week."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from examples.grid_load.compare import compare, read_arrays
from examples.grid_load.emulate import Node, default_settings, emulate
from examples.grid_load.prepare import prepare
from tests.shared import SHARED

RAW = SHARED / "data" / "pjm_hourly"
pytestmark = pytest.mark.skipif(not RAW.is_dir(), reason=f"the raw PJM files are not at {RAW}")


@pytest.mark.parametrize(
    ("name", "read", "converted", "proof", "missing", "spring", "autumn"),
    [("DEOK", 57_739, 57_739, 34_943, 9, 7, 2), ("EKPC", 45_334, 0, 0, 6, 5, 1)],
)
def test_prepare_accounts_for_every_row(
    name: str, read: int, converted: int, proof: int, missing: int, spring: int, autumn: int
) -> None:
    table, report = prepare(RAW / f"{name}_hourly.csv.gz")
    assert (report.rows_read, report.day_first_dates_converted, report.day_first_proof) == (read, converted, proof)
    assert (report.duplicate_hours_merged, report.duplicate_rows_merged) == (4, 4)
    assert (report.missing_hours, report.longest_gap_hours) == (missing, 1)
    assert (report.missing_after_spring_change, report.missing_at_autumn_change) == (spring, autumn)
    assert report.rows_written == len(table) == read - 4
    assert report.last_hour == "2018-08-03 00:00:00"


def test_few_federated_rounds_beat_last_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nodes, tables = [], {}
    for name in ("COMED", "DEOK", "EKPC"):
        table, report = prepare(RAW / f"{name}_hourly.csv.gz")
        (tmp_path / name).mkdir()
        table.to_parquet(tmp_path / name / "data.parquet", index=False)
        nodes.append(Node(tmp_path / name, report.rows_written))
        tables[name] = pd.read_parquet(tmp_path / name / "data.parquet")
    settings = default_settings(num_server_rounds=4)
    emulate(nodes, settings)
    result = compare(tables, read_arrays(Path("model.npz")), settings)
    for row in result.rows:
        assert row.federated < 0.6 * row.last_week
