"""The emissions example: moments add up to pooled ones, what is unseen stays unseen, and the app's parts fit together."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.common.emulate import Settings  # noqa: E402
from examples.emissions.compare import as_text, compare, default_settings, series  # noqa: E402
from examples.emissions.prepare import PrepareError, prepare  # noqa: E402
from noxmodel import client_app  # noqa: E402
from noxmodel.features import NOMINAL, TARGET_RANGE, make_plant  # noqa: E402
from noxmodel.moments import moments, size, solve, squared_error  # noqa: E402

COUNT, WIDTH, SEED = 60, 0.8, 0


def raw(hours: int, seed: int) -> pd.DataFrame:
    """Hours of a made-up turbine whose emissions hang on temperature and load."""
    random = np.random.default_rng(seed)
    scaled = random.uniform(-1, 1, (hours, len(NOMINAL))) + seed * 0.1
    table = pd.DataFrame({name: m + h * scaled[:, at] for at, (name, (m, h)) in enumerate(NOMINAL.items())})
    table["CO"] = 1.0
    table["NOX"] = 65 + 12 * (np.sin(2 * scaled[:, 0]) + 0.5 * scaled[:, 7]) + random.normal(0, 0.5, hours)
    return table


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, pd.DataFrame]:
    found = {}
    for number, hours in enumerate((203, 151, 97)):
        raw(hours, number).rename(columns={"AFDP": "AFDP "}).to_csv(tmp_path / f"{number}.csv", index=False)
        found[f"plant-{number}"] = prepare(tmp_path / f"{number}.csv")
    return found


def test_what_is_prepared(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    assert list(tables["plant-0"]) == [*NOMINAL, "NOX", "unseen"]
    assert [int(table["unseen"].sum()) for table in tables.values()] == [40, 30, 19]
    for broken in ("AT", "NOX"):
        raw(10, 0).drop(columns=broken).to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(PrepareError, match=broken):
            prepare(tmp_path / "bad.csv")
    table = raw(10, 0)
    table.loc[3, "TIT"] = np.nan
    table.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(PrepareError, match="missing"):
        prepare(tmp_path / "bad.csv")


def test_the_weighted_mean_of_moments_is_that_of_all_rows(tables: dict[str, pd.DataFrame]) -> None:
    plants = [make_plant(table) for table in tables.values()]
    total = sum(plant.rows for plant in plants)
    mean = sum(one.rows / total * moments(one.seen, one.rows, COUNT, WIDTH, SEED) for one in plants)
    pooled = make_plant(pd.concat(tables.values(), ignore_index=True))
    whole = moments(pooled.seen, pooled.rows, COUNT, WIDTH, SEED)
    assert len(whole) == size(COUNT)
    np.testing.assert_allclose(np.asarray(mean), whole, rtol=1e-12, atol=1e-12)
    model = solve(whole, 1e-4)
    assert np.sqrt(squared_error(model, pooled.unseen, WIDTH, SEED)) < 0.3 * TARGET_RANGE


def test_unseen_hours_change_no_moment(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["plant-0"].copy()
    before = moments(make_plant(table).seen, len(table), COUNT, WIDTH, SEED)
    table.loc[table["unseen"], [*NOMINAL, "NOX"]] = 1e6
    np.testing.assert_array_equal(before, moments(make_plant(table).seen, len(table), COUNT, WIDTH, SEED))


def test_the_parts_of_the_app_give_the_pooled_model(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    """Train and evaluate as a job does them, with the arithmetic of a sum in between."""
    from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # who sends, for Message's constructor

    settings: Settings = {**default_settings(), "features": COUNT}
    total = sum(map(len, tables.values()))
    mean = np.zeros(size(COUNT))
    contexts = {}
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        table.to_parquet(tmp_path / name / "data.parquet", index=False)
        contexts[name] = Context(1, 1, {"dataset-path": str(tmp_path / name)}, RecordDict(), dict(settings))
        sent = ArrayRecord({"moments": Array(np.zeros(size(COUNT), dtype=np.float32))})
        reply = client_app.add_moments(Message(RecordDict({"arrays": sent}), 1, "train"), contexts[name])
        mean += len(table) / total * reply.content["arrays"]["moments"].numpy().astype(np.float64)
    model = solve(mean.astype(np.float32).astype(np.float64), float(settings["penalty"]))
    result = compare(tables, model, settings)
    assert all(abs(row.federated / row.pooled - 1) < 1e-3 for row in result.rows)
    assert "plant-2" in as_text(result) and len(series(result)["pooled"]) == 3
    judged = ArrayRecord({"moments": Array(mean.astype(np.float32))})
    reply = client_app.judge(Message(RecordDict({"arrays": judged}), 1, "evaluate"), contexts["plant-0"])
    assert np.sqrt(float(reply.content["metrics"]["mse"])) == pytest.approx(result.rows[0].federated, rel=1e-4)
