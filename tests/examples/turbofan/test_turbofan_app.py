"""The turbofan example: windows see no later cycle, labels are the publisher's, and the app's parts fit together."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.common.emulate import Settings  # noqa: E402
from examples.turbofan.compare import as_text, compare, default_settings, fit, join, series  # noqa: E402
from examples.turbofan.prepare import FLEETS, fleet, prepare  # noqa: E402
from remaininglife import client_app  # noqa: E402
from remaininglife.model import LifeNet  # noqa: E402
from remaininglife.windows import CAP, INPUTS, SENSORS, WINDOW, make_fleet  # noqa: E402


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A hundred made-up engines of each kind whose sensors drift toward their end, in the publisher's form."""
    folder, random = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    middle, spread = (np.array(one) for one in zip(*SENSORS.values(), strict=True))
    lives = random.integers(56, 70, 200)
    left = np.concatenate([np.zeros(100, dtype=int), random.integers(5, 25, 100)])
    lines: list[list[str]] = [[], []]
    for number, (life, missing) in enumerate(zip(lives, left, strict=True)):
        for cycle in range(1, life - missing + 1):
            sensors = np.full(21, 1.0)
            worn = middle + spread * (3 * (cycle / life) ** 3 + random.normal(0, 0.3, len(middle)))
            sensors[[int(name[1:]) - 1 for name in SENSORS]] = worn
            values = " ".join(f"{value:.4f}" for value in sensors)
            lines[number // 100].append(f"{number % 100 + 1} {cycle} 0 0 100 {values}  \n")
    for name, text in zip(("train", "test"), lines, strict=True):
        with gzip.open(folder / f"{name}_FD001.txt.gz", "wt", compresslevel=1) as file:
            file.writelines(text)
    (folder / "RUL_FD001.txt").write_text("\n".join(map(str, left[100:])) + "\n")
    return prepare(folder)


def test_fleets_hold_each_engine_once_and_labels_count_down(raw: pd.DataFrame) -> None:
    fleets = [fleet(raw, name) for name in FLEETS]
    assert sum(map(len, fleets)) == len(raw)
    assert all(one.groupby("failed")["engine"].nunique().tolist() == [20, 20] for one in fleets)
    first = fleets[0][fleets[0]["failed"]]
    assert (first.groupby("engine")["life_left"].min() == 0).all()
    taken_out = fleets[0][~fleets[0]["failed"]]
    assert (taken_out.groupby("engine")["life_left"].min() >= 5).all()
    assert (raw.groupby(["failed", "engine"])["life_left"].diff().dropna() == -1).all()


def test_windows_see_no_later_cycle(raw: pd.DataFrame) -> None:
    table = fleet(raw, "fleet-a")
    found = make_fleet(table)
    assert found.failed.x.shape == (len(found.failed.life), INPUTS) and len(found.judged.life) == 20
    assert found.failed.life.max() <= CAP
    engine = int(found.failed.engine[0])
    mine = table[(table["engine"] == engine) & table["failed"]]
    changed = table.copy()
    changed.loc[mine.index[WINDOW + 5 :], list(SENSORS)] = 0.0
    again = make_fleet(changed)
    np.testing.assert_array_equal(found.failed.x[:6], again.failed.x[:6])
    assert (found.failed.x[6] != again.failed.x[6]).any()


def test_a_few_rounds_learn_and_the_app_s_parts_fit(raw: pd.DataFrame, tmp_path: Path) -> None:
    """Rounds of the client part, averaged as a job does, beat the mean; compare trains its yardsticks beside it."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # who sends, for Message's constructor

    settings: Settings = {**default_settings(), "num-server-rounds": 3, "learning-rate": 0.1, "server-momentum": 0.0}
    tables = {name: fleet(raw, name) for name in list(FLEETS)[:2]}
    arrays = LifeNet(seed=0).state_dict()
    contexts = {}
    for name, table in tables.items():
        (tmp_path / name).mkdir()
        table.to_parquet(tmp_path / name / "data.parquet", index=False)
        contexts[name] = Context(1, 1, {"dataset-path": str(tmp_path / name)}, RecordDict(), dict(settings))
    for number in (1, 2, 3):
        content = {"arrays": ArrayRecord(arrays), "config": ConfigRecord({"server-round": number})}
        replies = [client_app.train_on_node(Message(RecordDict(content), 1, "train"), one) for one in contexts.values()]
        states = [reply.content["arrays"].to_torch_state_dict() for reply in replies]
        arrays = {name: sum(state[name] for state in states) / len(states) for name in arrays}
    model = LifeNet(seed=0)
    model.load_state_dict(arrays)
    result = compare(tables, model, settings)
    assert all(row.federated < 0.8 * row.mean for row in result.rows)
    assert "fleet-b" in as_text(result) and all(len(one) == 2 for one in series(result).values())
    reply = client_app.judge_on_node(Message(RecordDict(content | {"arrays": ArrayRecord(arrays)}), 1, "evaluate"),
                                     contexts["fleet-a"])  # fmt: skip
    assert float(reply.content["metrics"]["mse"]) ** 0.5 == pytest.approx(result.rows[0].federated, rel=1e-4)
    parts = [make_fleet(table).failed for table in tables.values()]
    assert len(join(parts).life) == sum(len(part.life) for part in parts)
    assert isinstance(fit(parts[0], {**settings, "num-server-rounds": 1}), LifeNet)
