"""The client part: trains and evaluates on the one utility's table that its node hands to the job."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gridload.examples import make_examples, read_table
from gridload.features import Examples
from gridload.model import DayAheadNet
from gridload.training import decayed, evaluate, train

torch.set_num_threads(1)  # the network is small: threads only get into each other's way

app = ClientApp()


@lru_cache(maxsize=16)
def node_examples(directory: str, train_before: date) -> Examples:
    """Reads the table and makes the features once a session: they cost more than a round of training."""
    return make_examples(read_table(Path(directory)), train_before)


@app.train()
def train_on_node(message: Message, context: Context) -> Message:
    """Runs the local epochs of one round and replies with the new arrays."""
    settings = context.run_config
    order = _config(message)
    train_before = date.fromisoformat(str(settings["train-before"]))
    examples = node_examples(str(context.node_config["dataset-path"]), train_before).between(None, train_before)
    server_round = int(str(order["server-round"]))
    model = _model(message)
    loss = train(
        model,
        examples,
        learning_rate=decayed(float(settings["learning-rate"]), server_round, int(settings["num-server-rounds"])),
        epochs=int(settings["local-epochs"]),
        batch_size=int(settings["batch-size"]),
        seed=int(settings["seed"]) * 100_003 + server_round,
        proximal_mu=float(str(order.get("proximal-mu", 0.0))),
    )
    metrics = MetricRecord({"train-mape": loss, "num-examples": examples.hours()})
    return Message(
        content=RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message
    )


@app.evaluate()
def evaluate_on_node(message: Message, context: Context) -> Message:
    """Scores the arrays on the operating days from `train-before` on; errors are fractions of the load."""
    settings = context.run_config
    train_before = date.fromisoformat(str(settings["train-before"]))
    until = str(settings["evaluate-until"])
    examples = node_examples(str(context.node_config["dataset-path"]), train_before).between(
        train_before, date.fromisoformat(until) if until else None
    )
    scores = evaluate(_model(message), examples)
    metrics = MetricRecord(
        {
            "mape": scores.mape,
            "mape-last-week": scores.mape_last_week,
            "bias": scores.bias,
            "num-examples": scores.hours,
        }
    )
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


def _config(message: Message) -> ConfigRecord:
    record = message.content["config"]
    if not isinstance(record, ConfigRecord):
        raise TypeError("the message carries no config record")
    return record


def _model(message: Message) -> DayAheadNet:
    record = message.content["arrays"]
    if not isinstance(record, ArrayRecord):
        raise TypeError("the message carries no array record")
    model = DayAheadNet(seed=0)
    model.load_state_dict(record.to_torch_state_dict())
    return model
