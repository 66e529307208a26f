"""The Flower app called as Flower calls it, without a network; and the comparison around it."""

from __future__ import annotations

import ast
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import Grid

from examples.plate_mills import compare, predict
from examples.plate_mills.app.rolling import model, training
from examples.plate_mills.simulate import simulate_mill, write

APP = Path(compare.__file__).parent / "app"
QUICK = replace(compare.SCHEDULE, rounds=3)


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    torch.set_num_threads(1)
    return {code: pd.DataFrame(simulate_mill(code, seed=5, plates=150)) for code in ("a", "c")}


@pytest.fixture
def context(tmp_path) -> Context:
    write(simulate_mill("d", seed=5, plates=60), tmp_path / "data.parquet")
    return Context(
        run_id=1, node_id=7, node_config={"dataset-path": str(tmp_path)}, state=RecordDict(), run_config=compare.CONFIG
    )


def message(content: RecordDict, kind: str) -> Message:
    """A message as it arrives: with the metadata that Flower's own process would set."""
    metadata = Metadata(
        run_id=1,
        message_id="0" * 64,
        src_node_id=1,
        dst_node_id=7,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=600.0,
        message_type=kind,
    )
    return Message(content, metadata=metadata)


def ask(kind: str, weights: torch.nn.Module, context: Context) -> RecordDict:
    from examples.plate_mills.app.rolling.client_app import app

    content = RecordDict(
        {"arrays": ArrayRecord(weights.state_dict()), "config": ConfigRecord({"server-round": 1})},
    )
    reply = app(message(content, kind), context)
    assert reply.has_content()
    return reply.content


def test_training_replies_with_changed_weights_and_means(context):
    before = model.new_model(1)
    content = ask("train", before, context)
    after = content.array_records["arrays"].to_torch_state_dict()
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in before.state_dict().items()
    }
    change = max(float((after[name] - value).abs().max()) for name, value in before.state_dict().items())
    assert 1e-3 < change < 8.0
    metrics = content.metric_records["metrics"]
    rows = pd.read_parquet(Path(context.node_config["dataset-path"]) / "data.parquet")
    assert metrics["num-examples"] == int((rows["plate_id"] % 5 != 0).sum())
    assert 0.0 < metrics["train_loss"] < 10.0


def test_evaluation_replies_with_means_alone(context):
    content = ask("evaluate", model.new_model(1), context)
    assert not content.array_records
    assert set(content.metric_records["metrics"]) == {"num-examples", "share_within_10pct", "mse_kn2"}
    assert 0.0 <= content.metric_records["metrics"]["share_within_10pct"] <= 1.0


def test_the_app_imports_nothing_of_the_project():
    """It is an ordinary Flower app; relative imports stay inside it."""
    outside = {"__future__", "flwr", "numpy", "pandas", "torch"} | set(sys.stdlib_module_names)
    for path in (APP / "rolling").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {name.name.split(".")[0] for name in node.names} <= outside, path
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").split(".")[0] in outside, path
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path


def test_components_named_in_pyproject_load():
    from importlib import import_module

    components = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    assert set(components) == {"serverapp", "clientapp"}
    for reference in components.values():
        module, name = reference.split(":")
        assert hasattr(import_module(module), name)


def test_features_are_finite_and_of_order_one(frames):
    for frame in frames.values():
        values = model.features(frame)
        assert values.shape == (len(frame), model.FEATURES)
        assert np.isfinite(values).all() and np.abs(values).max() < 12.0
        assert np.allclose(model.force_kn(model.targets(frame), frame), frame[model.TARGET], rtol=1e-4)


def test_no_plate_is_on_both_sides(frames):
    train, unseen = training.split(frames["a"])
    assert not set(train["plate_id"]) & set(unseen["plate_id"])
    assert len(train) + len(unseen) == len(frames["a"])
    assert 0.1 < len(unseen) / len(frames["a"]) < 0.3


def test_score_is_the_definition(frames):
    weights = model.new_model(2)
    frame = frames["a"]
    predicted, measured = training.predict(weights, frame), frame["roll_force_kn"].to_numpy()
    score = training.evaluate(weights, frame)
    assert score.share == pytest.approx(np.mean(np.abs(predicted / measured - 1.0) <= 0.10))
    assert score.rmse == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)))
    assert score.n == len(frame)


def test_averaging_in_process_is_flowers_strategy(frames):
    """Two rounds through FedAvgM's own aggregation give the same weights as the emulation."""
    from flwr.serverapp.strategy import FedAvgM

    schedule = replace(QUICK, rounds=2)
    emulated = compare.average_in_process(list(frames.values()), schedule)
    strategy = FedAvgM(server_momentum=compare.MOMENTUM)
    arrays = ArrayRecord(model.new_model(1).state_dict())
    strategy.current_arrays = arrays
    for round_ in (1, 2):
        replies = []
        for frame in frames.values():
            weights = model.RollPressure()
            weights.load_state_dict(arrays.to_torch_state_dict())
            training.train(weights, training.split(frame)[0], schedule, round_, 1)
            # The weight is the count of all rows, as the trusted side counts it.
            content = RecordDict(
                {
                    "arrays": ArrayRecord(weights.state_dict()),
                    "metrics": MetricRecord({"num-examples": len(frame)}),
                }
            )
            replies.append(message(content, "train"))
        aggregated, _ = strategy.aggregate_train(round_, replies)
        assert aggregated is not None
        arrays = aggregated
    for name, array in arrays.to_torch_state_dict().items():
        assert np.allclose(array.numpy(), emulated[name], atol=1e-5), name


def test_training_learns_and_evaluation_tells_mills_apart(frames):
    untrained = compare.evaluate(compare.to_arrays(model.new_model(1)), frames["a"])
    alone = compare.train_alone(frames["a"], replace(QUICK, rounds=6))
    at_home, away = compare.evaluate(alone, frames["a"]), compare.evaluate(alone, frames["c"])
    assert at_home.rmse < untrained.rmse and at_home.share > untrained.share
    assert at_home.share > away.share
    both = compare.together([at_home, away])
    assert both.n == at_home.n + away.n
    assert away.share < both.share < at_home.share


def test_a_stored_model_predicts(frames, tmp_path, capsys):
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = compare.train_alone(frames["a"], replace(QUICK, rounds=6))
    path = tmp_path / "model.safetensors"
    numpy.save_file(arrays, path)
    assert compare.evaluate(compare.load_arrays(path), frames["a"]) == compare.evaluate(arrays, frames["a"])
    hot, cold = (predict.predict_force(path, {"temperature_c": value}) for value in (1080.0, 950.0))
    assert 0.0 < hot < cold
    assert predict.main([str(path), "--temperature-c", "1080"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(hot, abs=0.5)
    with pytest.raises(ValueError, match="below the entry"):
        predict.predict_force(path, {"exit_thickness_mm": 31.0})
    with pytest.raises(SystemExit):
        predict.main([str(tmp_path / "none"), "--width-mm", "2000"])


def test_a_mill_alone_ignores_what_never_varied_there(frames):
    """Mill a rolls no molybdenum steel: its own model must not change with molybdenum, nor at home at all."""
    alone = compare.to_model(compare.train_alone(frames["a"], replace(QUICK, rounds=1)))
    home = frames["a"].head(200)
    assert (home["mo_pct"] == 0.0).all()
    assert np.allclose(training.predict(alone, home), training.predict(alone, home.assign(mo_pct=0.4)))
    plain = model.new_model(1)
    training.train(plain, training.split(frames["a"])[0], replace(QUICK, rounds=1), 1, 1)
    assert np.allclose(training.predict(alone, home), training.predict(plain, home), rtol=1e-4)


class InProcessGrid(Grid):
    """Answers each message by calling the client app in this process; one dataset directory a node."""

    def __init__(self, nodes: dict[int, Context]) -> None:
        self.nodes = nodes

    def set_run(self, run: object) -> None:
        raise NotImplementedError

    @property
    def run(self) -> object:
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self, *args: object, **kwargs: object) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: object) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: object) -> list[Message]:
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        from examples.plate_mills.app.rolling.client_app import app

        return [app(message, self.nodes[message.metadata.dst_node_id]) for message in messages]


def test_the_server_app_runs_the_rounds_and_writes_the_model(frames, tmp_path, monkeypatch, capsys):
    from flwr.supercore.task_identity import TaskIdentity

    from examples.plate_mills.app.rolling.server_app import app

    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 1)
    config = compare.CONFIG | {"num-server-rounds": 3, "server-momentum": 0.0}
    nodes = {}
    for node, (code, frame) in enumerate(frames.items(), start=11):
        (tmp_path / code).mkdir()
        frame.to_parquet(tmp_path / code / "data.parquet")
        place = {"dataset-path": str(tmp_path / code)}
        nodes[node] = Context(run_id=1, node_id=node, node_config=place, state=RecordDict(), run_config=config)
    monkeypatch.chdir(tmp_path)
    app(InProcessGrid(nodes), Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config))
    trained = compare.to_model({name: a.numpy() for name, a in torch.load("final_model.pt", weights_only=True).items()})
    assert "round 3" in capsys.readouterr().out
    for frame in frames.values():
        assert training.evaluate(trained, frame).share > training.evaluate(model.new_model(1), frame).share
