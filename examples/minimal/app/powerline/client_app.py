"""A plant's side: a few steps of gradient descent on its own rows."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def rows(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """This plant's rows: what the model sees, and the power measured."""
    table = pq.read_table(Path(str(context.node_config["dataset-path"])) / "data.parquet").drop_null()
    load, speed, power = (table[name].to_numpy() for name in ("load_t", "speed_rpm", "power_kw"))
    return np.column_stack([load / 100, speed / 100, np.ones(len(load))]), power / 100


@app.train()
def train(message: Message, context: Context) -> Message:
    """Improve the coefficients received, and send them back."""
    x, y = rows(context)
    w = message.content.array_records["arrays"]["w"].numpy()
    for _ in range(int(context.run_config["steps"])):
        w = w - float(context.run_config["lr"]) * x.T @ (x @ w - y) / len(y)
    reply = {"arrays": ArrayRecord({"w": Array(w)}), "metrics": figures(x, y, w)}
    return Message(content=RecordDict(reply), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Say how well the coefficients received fit here."""
    w = message.content.array_records["arrays"]["w"].numpy()
    return Message(content=RecordDict({"metrics": figures(*rows(context), w)}), reply_to=message)


def figures(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> MetricRecord:
    """The mean squared error, in units of (100 kW)^2; means add up over plants."""
    return MetricRecord({"num-examples": len(y), "mse": float(np.mean((x @ w - y) ** 2))})
