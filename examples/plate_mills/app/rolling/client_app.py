"""A mill's side: trains on its own passes and replies with weights and a few means."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .model import RollPressure
from .training import Schedule, evaluate, read_passes, split, train

app = ClientApp()


def _received(message: Message) -> RollPressure:
    torch.set_num_threads(1)
    model = RollPressure()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    return model


def _schedule(context: Context) -> Schedule:
    config = context.run_config
    return Schedule(
        rounds=int(config["num-server-rounds"]),
        local_epochs=int(config["local-epochs"]),
        lr=float(config["lr"]),
        batch_size=int(config["batch-size"]),
    )


@app.train()
def train_round(message: Message, context: Context) -> Message:
    """Train the received model on this mill's training plates."""
    model = _received(message)
    passes, _ = split(read_passes(Path(str(context.node_config["dataset-path"]))))
    round_ = cast(int, message.content.config_records["config"]["server-round"])
    loss = train(model, passes, _schedule(context), round_, seed=int(context.run_config["seed"]))
    metrics = MetricRecord({"num-examples": len(passes), "train_loss": loss})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate_round(message: Message, context: Context) -> Message:
    """Evaluate the received model on this mill's unseen plates; means only, so that they add up over mills."""
    _, unseen = split(read_passes(Path(str(context.node_config["dataset-path"]))))
    score = evaluate(_received(message), unseen)
    metrics = MetricRecord({"num-examples": score.n, "share_within_10pct": score.share, "mse_kn2": score.rmse**2})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
