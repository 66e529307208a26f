"""The Flower app under the arithmetic of a sum: every strategy runs, weights are rows, features are made once."""

from __future__ import annotations

import ast
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from flwr.cli.config_utils import load_and_validate

from examples.grid_load import APP
from examples.grid_load.compare import compare, fit, model_of, pool, read_arrays
from examples.grid_load.emulate import Node, SumGrid, default_settings, emulate
from gridload import client_app
from gridload.examples import make_examples
from gridload.model import DayAheadNet
from gridload.server_app import make_strategy
from gridload.training import decayed, evaluate, predict, score, train

SPLIT = "2016-12-20"
QUICK = {"train_before": SPLIT, "num_server_rounds": 2, "batch_size": 16, "learning_rate": 0.05}
STRATEGIES = ("FedAvg", "FedAvgM", "FedProx", "FedAdam", "FedYogi", "FedAdagrad")


@pytest.fixture
def nodes(made_utilities: list[Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The made-up utilities, with a working directory of the job's own."""
    monkeypatch.chdir(tmp_path)
    return made_utilities


def test_flower_accepts_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    config, warnings = load_and_validate(APP / "pyproject.toml")
    assert config["tool"]["flwr"]["app"]["publisher"]
    assert not warnings


def test_app_imports_nothing_of_the_framework_around_it() -> None:
    allowed = {"gridload", "flwr", "numpy", "pandas", "torch"} | sys.stdlib_module_names
    for path in APP.rglob("*.py"):
        for statement in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
            if isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path.name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_and_evaluates_once(nodes: list[Node], strategy: str) -> None:
    emulate(nodes, default_settings(**QUICK, strategy=strategy))
    metrics = json.loads(Path("metrics.json").read_text())
    assert sorted(metrics["train"]) == ["1", "2"]
    assert list(metrics["evaluate"]) == ["2"]
    assert 0 < metrics["evaluate"]["2"]["mape"] < 0.2
    arrays = read_arrays(Path("model.npz"))
    initial = DayAheadNet(seed=0).state_dict()
    assert arrays.keys() == initial.keys()
    assert any(not np.array_equal(arrays[key], initial[key].numpy()) for key in arrays)


def test_evaluation_every_round_is_a_setting(nodes: list[Node]) -> None:
    emulate(nodes, default_settings(**QUICK, evaluate_every_round=True))
    assert sorted(json.loads(Path("metrics.json").read_text())["evaluate"]) == ["1", "2"]


def test_one_round_is_the_mean_of_local_trainings_weighted_by_rows(nodes: list[Node]) -> None:
    settings = default_settings(**{**QUICK, "num_server_rounds": 1}, strategy="FedAvg")
    emulate(nodes, settings)
    total = sum(node.rows for node in nodes)
    expected: dict[str, np.ndarray] = {}
    for node in nodes:
        model = DayAheadNet(seed=0)
        past = client_app.node_examples(str(node.directory), date.fromisoformat(SPLIT)).between(
            None, date.fromisoformat(SPLIT)
        )
        train(model, past, learning_rate=decayed(0.05, 1, 1), epochs=1, batch_size=16, seed=1)
        for key, value in model.state_dict().items():
            expected[key] = expected.get(key, 0.0) + value.numpy() * (node.rows / total)
    for key, value in read_arrays(Path("model.npz")).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6)


def test_features_are_made_once_a_session(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(table, split):
        made.append(split)
        return make_examples(table, split)

    monkeypatch.setattr(client_app, "make_examples", counted)
    client_app.node_examples.cache_clear()
    emulate(nodes, default_settings(**QUICK))
    assert len(made) == len(nodes)


def test_same_seed_gives_the_same_model(nodes: list[Node]) -> None:
    emulate(nodes, default_settings(**QUICK))
    first = read_arrays(Path("model.npz"))
    emulate(nodes, default_settings(**QUICK))
    for key, value in read_arrays(Path("model.npz")).items():
        np.testing.assert_allclose(value, first[key], atol=1e-6)  # the order of sums depends on memory alignment


def test_untrained_network_forecasts_the_base(make_table) -> None:
    examples = make_examples(make_table(), date.fromisoformat(SPLIT))
    np.testing.assert_array_equal(predict(DayAheadNet(seed=3), examples), examples.base)


def test_proximal_term_holds_the_model_back(make_table) -> None:
    examples = make_examples(make_table(), date.fromisoformat(SPLIT))
    moved = []
    for mu in (0.0, 10.0):
        model = DayAheadNet(seed=0)
        start = model.perceptron[0].weight.detach().clone()
        train(model, examples, learning_rate=0.02, epochs=2, batch_size=16, seed=1, proximal_mu=mu)
        moved.append(float((model.perceptron[0].weight.detach() - start).norm()))
    assert moved[1] < moved[0]


def test_score_counts_measured_hours_only(make_table) -> None:
    examples = make_examples(make_table(), date.fromisoformat(SPLIT))
    forecast = (examples.target * 1.1).astype(np.float32)
    examples.target[0, 5] = np.nan
    scores = score(forecast, examples)
    assert scores.mape == pytest.approx(0.1, abs=1e-5)
    assert scores.bias == pytest.approx(0.1, abs=1e-5)
    assert scores.hours == examples.target.size - 1
    with pytest.raises(ValueError, match="no measured hour"):
        evaluate(DayAheadNet(seed=0), examples.between(date(2030, 1, 1), None))


def test_learning_rate_falls_to_a_hundredth() -> None:
    rates = [decayed(0.3, number, 60) for number in range(1, 61)]
    assert rates[0] == pytest.approx(0.3)
    assert rates[-1] == pytest.approx(0.003)
    assert rates == sorted(rates, reverse=True)


def test_strategies_outside_the_list_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown strategy"):
        make_strategy(default_settings(strategy="Krum"))
    with pytest.raises(ValueError, match="no such setting"):
        default_settings(learnig_rate=1.0)


def test_sum_grid_clamps_each_element(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.common.emulate.CLAMP", 1e-4)
    settings = default_settings(**{**QUICK, "num_server_rounds": 1}, strategy="FedAvg")
    grid: SumGrid = emulate(nodes, settings)
    initial = DayAheadNet(seed=0).state_dict()
    largest = max(float(np.abs(value - initial[key].numpy()).max()) for key, value in grid.last_mean.items())
    assert largest == pytest.approx(1e-4, rel=1e-2)


def test_safetensors_are_read(tmp_path: Path) -> None:
    arrays = {key: value.numpy() for key, value in DayAheadNet(seed=5).state_dict().items()}
    header, body = {"__metadata__": {"round": "1"}}, b""
    for key, value in arrays.items():
        header[key] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + value.nbytes],
        }
        body += value.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path / "last.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    for key, value in model_of(read_arrays(path)).state_dict().items():
        np.testing.assert_array_equal(value.numpy(), arrays[key])


def test_comparison_holds_only_for_arrays_as_good_as_pooled(make_table) -> None:
    tables = {f"U{n}": make_table(140, mean=500.0 * (n + 1), seed=n) for n in range(2)}
    settings = default_settings(**{**QUICK, "num_server_rounds": 3})
    split = date.fromisoformat(SPLIT)
    past = [make_examples(table, split).between(None, split) for table in tables.values()]
    pooled = {key: value.numpy() for key, value in fit(pool(past), settings).state_dict().items()}
    good = compare(tables, pooled, settings)
    assert good.holds
    assert good.federated_over_pooled == pytest.approx(1.0)
    assert [row.utility for row in good.rows] == ["U0", "U1"]
    spoilt = {key: value + 0.2 for key, value in pooled.items()}
    bad = compare(tables, spoilt, settings)
    assert not bad.holds
    assert bad.alone_wins == ("U0", "U1")
