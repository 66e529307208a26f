"""Flower apps run as `flwr new` and its examples write them; what would give a wrong result is refused first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.integration.apps import OUTPUTS, server_with, write_app
from tests.integration.consortium import Consortium

TASK = """
import pyarrow.parquet
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.body(x)


def load_data(path):
    table = pyarrow.parquet.read_table(f"{path}/data.parquet").to_pandas()
    x = torch.tensor(table[["x1", "x2", "x3"]].to_numpy(), dtype=torch.float32)
    y = torch.tensor(table[["y"]].to_numpy(), dtype=torch.float32)
    return x, y


def train(net, data, lr):
    x, y = data
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    for start in range(0, len(x), 32):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x[start : start + 32]), y[start : start + 32])
        loss.backward()
        optimizer.step()
    return loss.item()


def test(net, data):
    x, y = data
    net.eval()
    with torch.no_grad():
        return nn.functional.mse_loss(net(x), y).item()
"""

CLIENT = '''
"""pytorchexample: A Flower / PyTorch app."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from linear.task import Net, load_data
from linear.task import test as test_fn
from linear.task import train as train_fn

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    """Train the model on local data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    model.to(device)
    data = load_data(context.node_config["dataset-path"])
    train_loss = train_fn(model, data, msg.content["config"]["lr"])
    # Context of a node is kept for the rounds of a job.
    seen = context.state.metric_records.get("rounds", MetricRecord({"count": 0}))
    context.state["rounds"] = MetricRecord({"count": seen["count"] + 1})
    metrics = {"train_loss": train_loss, "seen": seen["count"] + 1, "num-examples": len(data[0])}
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    """Evaluate the model on local data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    data = load_data(context.node_config["dataset-path"])
    metrics = MetricRecord({"eval_loss": test_fn(model, data), "num-examples": len(data[0])})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
'''

SERVER = '''
"""pytorchexample: A Flower / PyTorch app."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg

from linear.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    torch.manual_seed(1)
    fraction_train: float = context.run_config["fraction-train"]
    num_rounds: int = context.run_config["num-server-rounds"]
    global_model = Net()
    arrays = ArrayRecord(global_model.state_dict())
    chosen = {"FedAvg": FedAvg, "FedAdam": FedAdam}[context.run_config["strategy"]]
    strategy = chosen(fraction_train=fraction_train)
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        train_config=ConfigRecord({"lr": context.run_config["lr"]}),
        num_rounds=num_rounds,
    )
    print("\\nSaving final model to disk...")
    torch.save(result.arrays.to_torch_state_dict(), "final_model.pt")
'''

DECLARED = """
[tool.keyong.outputs.train]
arrays = "sent"
metrics = ["train_loss", "seen", "num-examples"]
[tool.keyong.outputs.evaluate]
metrics = ["eval_loss", "num-examples"]
"""


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "app"
    config = {"fraction-train": "1.0", "strategy": '"FedAvg"'}
    write_app(folder, client=CLIENT, server=SERVER, outputs=DECLARED, config=config)
    (folder / "linear" / "task.py").write_text(TASK)
    return folder


@pytest.mark.parametrize(("strategy", "rounds"), [("FedAvg", 3), pytest.param("FedAdam", 2, marks=pytest.mark.long)])
def test_a_pytorch_app_with_batch_norm(
    consortium: Consortium, quickstart: Path, tmp_path: Path, strategy: str, rounds: int
) -> None:
    config = ("--config", f"strategy={strategy}", "--config", f"num-server-rounds={rounds}")
    done = consortium.job(quickstart, *config)
    assert done.code == 0, done.err
    folder = tmp_path / "result"
    consortium.institute.ok("job", "result", consortium.job_id(), "-o", folder)
    model = load_file(folder / "model.safetensors")
    counted = [value for name, value in model.items() if name.endswith("num_batches_tracked")]
    assert len(counted) == 1
    # FedAdam makes fractions of all it steps, in Flower too; FedAvg leaves a counter a counter.
    assert strategy != "FedAvg" or np.issubdtype(counted[0].dtype, np.integer), "a counter keeps its type"
    assert counted[0] > 0
    assert all(np.isfinite(value).all() for value in model.values())
    history = json.loads((folder / "metrics.json").read_text())
    losses = [one["metrics"]["eval_loss"] for one in history if one["stage"] == "evaluate"]
    assert len(losses) == rounds and losses[-1] < losses[0]
    seen = [one["metrics"]["seen"] for one in history if one["stage"] == "train"]
    assert seen == pytest.approx(range(1, rounds + 1), abs=1e-6), "a node's context lives as long as the job"
    assert list(folder.rglob("final_model.pt")), "what the server part left is in the result"


def test_half_of_the_nodes_is_refused(consortium: Consortium, quickstart: Path) -> None:
    done = consortium.job(quickstart, "--config", "fraction-train=0.5")
    assert done.code != 0 and "Traceback" not in done.err
    assert "fraction_train" in done.err and "1.0" in done.err, done.err


def test_krum_is_refused_before_round_one(consortium: Consortium, tmp_path: Path) -> None:
    server = server_with("strategies.Krum(num_malicious_nodes=0)")
    app = write_app(tmp_path / "krum", server=server, outputs=OUTPUTS)
    mill = consortium.mill("a")
    before = len(consortium.entries(mill, "intent"))
    done = consortium.job(app)
    assert done.code != 0 and "Traceback" not in done.err
    assert "Krum" in done.err and "single replies" in done.err, done.err
    assert len(consortium.entries(mill, "intent")) == before, "a node was asked all the same"
