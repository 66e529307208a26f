"""A torch app as Flower's quickstart writes one, server and clients in sessions, unmodified."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from federation.jobs import Content

torch = pytest.importorskip("torch")

TASK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


def load_data(path, partition_id):
    generator = torch.Generator().manual_seed(int(open(path).read()))
    x = torch.randn(64, 4, generator=generator)
    return x, x.sum(1, keepdim=True)
"""
CLIENT = """
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from task import Net, load_data

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y = load_data(context.node_config["dataset-path"], context.node_config["partition-id"])
    optimizer = torch.optim.SGD(model.parameters(), lr=msg.content["config"]["lr"])
    for _ in range(10):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    content = RecordDict({
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord({"train_loss": loss.item(), "num-examples": len(x)}),
    })
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context):
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    x, y = load_data(context.node_config["dataset-path"], context.node_config["partition-id"])
    model.eval()
    with torch.no_grad():
        loss = torch.nn.functional.mse_loss(model(x), y).item()
    return Message(RecordDict({"metrics": MetricRecord({"eval_loss": loss, "num-examples": len(x)})}), reply_to=msg)
"""
SERVER = """
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    torch.manual_seed(0)
    global_model = Net()
    arrays = ArrayRecord(global_model.state_dict())
    strategy = FedAvg(fraction_evaluate=1.0)
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        train_config=ConfigRecord({"lr": context.run_config["lr"]}),
        num_rounds=context.run_config["rounds"],
    )
    state_dict = result.arrays.to_torch_state_dict()
    global_model.load_state_dict(state_dict)
    torch.save(global_model.state_dict(), "final_model.pt")
    with open("losses.txt", "w") as file:
        for number, metrics in result.evaluate_metrics_clientapp.items():
            print(metrics["eval_loss"], file=file)
"""


@pytest.mark.long
def test_flowers_pytorch_quickstart_runs_and_learns(
    write_app: Callable[..., Any],
    start_client: Callable[..., Any],
    run_server: Callable[..., SimpleNamespace],
    tmp_path: Any,
):
    app = write_app(server=SERVER, client=CLIENT, task=TASK)
    clients = {}
    for number, node_id in enumerate((11, 12)):
        (tmp_path / f"data-{number}").write_text(str(number))
        node_config = {"partition-id": number, "num-partitions": 2, "dataset-path": str(tmp_path / f"data-{number}")}
        clients[node_id], ready = start_client(app, node_config=node_config, node_id=node_id)
        assert ready == {"op": "ready"}, clients[node_id].log()

    def reply(kind: str, node_id: int, content: Content) -> Content:
        answer: Content = clients[node_id].call(kind, content)
        return answer

    fields = {"node_ids": (11, 12), "run_config": {"rounds": 3, "lr": 0.1}}
    result = run_server(app, reply, **fields)
    assert result.end == {"op": "done"}, result.worker.log()
    assert set(result.files) == {"final_model.pt", "losses.txt"}
    losses = [float(line) for line in result.files["losses.txt"].split()]
    assert losses[2] < losses[0]
    (tmp_path / "model.pt").write_bytes(result.files["final_model.pt"])
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert state["layers.0.weight"].shape == (8, 4)
    assert state["layers.1.num_batches_tracked"].item() == 30
