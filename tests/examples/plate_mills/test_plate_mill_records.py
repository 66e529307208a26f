"""The simulated records: reproducible, complete, in plausible ranges, and not alike from mill to mill."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from examples.plate_mills.mills import GRADES, MILLS
from examples.plate_mills.simulate import DESCRIPTIONS, main, simulate_mill

RANGES = {
    "entry_thickness_mm": (8.0, 351.0),
    "exit_thickness_mm": (7.5, 345.0),
    "width_mm": (1400.0, 3500.0),
    "temperature_c": (650.0, 1250.0),
    "roll_speed_m_s": (0.5, 8.0),
    "roll_radius_mm": (420.0, 610.0),
    "roll_km_since_change": (0.0, 35.0),
    "interpass_time_s": (3.0, 1500.0),
    "previous_reduction": (0.0, 0.5),
    "carbon_pct": (0.03, 0.8),
    "roll_force_kn": (2_000.0, 150_000.0),
}


@pytest.fixture(scope="module", params=sorted(MILLS))
def records(request):
    return request.param, simulate_mill(request.param, seed=1)


def test_a_mill_has_at_least_twenty_thousand_passes(records):
    assert 20_000 <= records[1]["plate_id"].size <= 26_000


def test_columns_and_ranges(records):
    _, columns = records
    assert list(columns) == list(DESCRIPTIONS)
    assert len({values.size for values in columns.values()}) == 1
    for name, (low, high) in RANGES.items():
        assert low <= columns[name].min() and columns[name].max() <= high, name
    assert (columns["exit_thickness_mm"] < columns["entry_thickness_mm"]).all()
    assert (np.diff(columns["time"]) > np.timedelta64(0)).all()


def test_a_pass_enters_with_the_thickness_of_the_one_before(records):
    _, columns = records
    follows = columns["plate_id"][1:] == columns["plate_id"][:-1]
    assert (columns["entry_thickness_mm"][1:][follows] == columns["exit_thickness_mm"][:-1][follows]).all()
    assert (columns["pass_no"][1:][~follows] == 1).all()


def test_every_mill_knows_part_of_the_steels_and_shares_one(records):
    code, columns = records
    rolled = set(columns["grade"].tolist())
    assert rolled == set(MILLS[code].mix) < set(GRADES)
    assert "structural" in rolled


def test_same_seed_same_records_and_other_seed_others():
    first, again, other = (simulate_mill("b", seed, plates=30) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert not np.array_equal(first["roll_force_kn"], other["roll_force_kn"])
    assert not np.array_equal(first["width_mm"][:50], simulate_mill("a", 1, plates=30)["width_mm"][:50])


def test_command_writes_what_it_names(tmp_path, capsys):
    assert main(["--mill", "d", "--seed", "3", "--out", str(tmp_path / "new"), "--format", "parquet"]) == 0
    printed = capsys.readouterr()
    assert "simulated" in printed.err
    table = pq.read_table(printed.out.strip())
    assert table.schema.metadata[b"origin"].startswith(b"simulated")
    assert table.num_rows == simulate_mill("d", 3)["plate_id"].size
