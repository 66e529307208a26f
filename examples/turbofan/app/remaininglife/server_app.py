"""The server part: Flower's FedAvgM over all fleets, one judgement of the final arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvgM

from remaininglife.model import LifeNet

app = ServerApp()


class JudgedOnce(FedAvgM):
    """FedAvgM that asks for an evaluation after the last round alone: each is a message to every node."""

    last = 0

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Asks only in the last round."""
        return super().configure_evaluate(server_round, arrays, config, grid) if server_round == self.last else []


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains for the configured rounds and leaves `metrics.json` and `model.npz` in the working directory.

    The arrays are saved because a strategy with momentum does not end at the last mean.
    """
    settings = context.run_config
    strategy = JudgedOnce(server_momentum=float(settings["server-momentum"]))
    strategy.last = int(settings["num-server-rounds"])
    initial = ArrayRecord(LifeNet(seed=int(settings["seed"])).state_dict())
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=strategy.last)
    np.savez("model.npz", allow_pickle=False, **{key: array.numpy() for key, array in result.arrays.items()})
    figures = {"train": result.train_metrics_clientapp, "evaluate": result.evaluate_metrics_clientapp}
    by_round = {part: {number: dict(record) for number, record in rows.items()} for part, rows in figures.items()}
    Path("metrics.json").write_text(json.dumps(by_round, indent=2), encoding="utf-8")
