"""The client part: a plant's moments, once; and how well a model from all moments does on its unseen hours."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from noxmodel.features import Doubles, Plant, read_plant
from noxmodel.moments import moments, solve, squared_error

app = ClientApp()


@lru_cache(maxsize=4)
def _plant(directory: str) -> Plant:
    return read_plant(Path(directory))


@app.train()
def add_moments(message: Message, context: Context) -> Message:
    """Replies with what was sent plus this plant's moments."""
    settings = context.run_config
    plant = _plant(str(context.node_config["dataset-path"]))
    mine = moments(plant.seen, plant.rows, int(settings["features"]), float(settings["width"]), int(settings["seed"]))
    arrays = ArrayRecord({"moments": Array((_sent(message) + mine).astype(np.float32))})
    metrics = MetricRecord({"num-examples": len(plant.seen.y)})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def judge(message: Message, context: Context) -> Message:
    """Solves for the model and replies with its mean squared error on the hours that no moment holds."""
    settings = context.run_config
    plant = _plant(str(context.node_config["dataset-path"]))
    model = solve(_sent(message), float(settings["penalty"]))
    error = squared_error(model, plant.unseen, float(settings["width"]), int(settings["seed"]))
    metrics = MetricRecord({"mse": error, "num-examples": len(plant.unseen.y)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


def _sent(message: Message) -> Doubles:
    record = message.content["arrays"]
    if not isinstance(record, ArrayRecord):
        raise TypeError("the message carries no array record")
    return record["moments"].numpy().astype(np.float64)
