"""The client part: trains and judges on the one fleet's table that its node hands to the job."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from remaininglife.model import LifeNet, decayed, squared_error, train
from remaininglife.windows import Fleet, read_fleet

torch.set_num_threads(1)  # the network is small: threads only get into each other's way

app = ClientApp()


@lru_cache(maxsize=4)
def _fleet(directory: str) -> Fleet:
    return read_fleet(Path(directory))


@app.train()
def train_on_node(message: Message, context: Context) -> Message:
    """Runs the local epochs of one round on the engines that failed, and replies with the new arrays."""
    settings, order = context.run_config, message.content["config"]
    if not isinstance(order, ConfigRecord):
        raise TypeError("the message carries no config record")
    failed = _fleet(str(context.node_config["dataset-path"])).failed
    number = int(str(order["server-round"]))
    model = _model(message)
    error = train(
        model,
        failed,
        learning_rate=decayed(float(settings["learning-rate"]), number, int(settings["num-server-rounds"])),
        epochs=int(settings["local-epochs"]),
        batch_size=int(settings["batch-size"]),
        seed=int(settings["seed"]) * 100_003 + number,
    )
    metrics = MetricRecord({"train-mse": error, "num-examples": len(failed.life)})
    return Message(
        content=RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message
    )


@app.evaluate()
def judge_on_node(message: Message, context: Context) -> Message:
    """Replies with the mean squared error on the engines that were taken out of service before they failed."""
    judged = _fleet(str(context.node_config["dataset-path"])).judged
    metrics = MetricRecord({"mse": squared_error(_model(message), judged), "num-examples": len(judged.life)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


def _model(message: Message) -> LifeNet:
    record = message.content["arrays"]
    if not isinstance(record, ArrayRecord):
        raise TypeError("the message carries no array record")
    model = LifeNet(seed=0)
    model.load_state_dict(record.to_torch_state_dict())
    return model
