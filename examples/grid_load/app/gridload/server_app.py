"""The server part: one of Flower's own strategies over the whole cohort, and one evaluation of the final arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi

from gridload.model import DayAheadNet

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Trains for the configured rounds, evaluates, and leaves `metrics.json` and `model.npz` in the working directory.

    The arrays are saved because a strategy with a step of its own (momentum, Adam) does not end at the last mean.
    """
    settings = context.run_config
    rounds = int(settings["num-server-rounds"])
    strategy = make_strategy(settings)
    if not bool(settings["evaluate-every-round"]):
        evaluate_only_in(strategy, rounds)
    initial = ArrayRecord(DayAheadNet(seed=int(settings["seed"])).state_dict())
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=rounds)
    np.savez("model.npz", allow_pickle=False, **{key: array.numpy() for key, array in result.arrays.items()})
    figures = {"train": result.train_metrics_clientapp, "evaluate": result.evaluate_metrics_clientapp}
    by_round = {part: {number: dict(record) for number, record in rows.items()} for part, rows in figures.items()}
    Path("metrics.json").write_text(json.dumps(by_round, indent=2), encoding="utf-8")


def evaluate_only_in(strategy: FedAvg, last: int) -> None:
    """Makes the strategy ask for no evaluation before round `last`: each is a message to every node."""
    configure = strategy.configure_evaluate

    def configure_last(server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        return configure(server_round, arrays, config, grid) if server_round == last else []

    strategy.configure_evaluate = configure_last  # type: ignore[method-assign]


def make_strategy(settings: Mapping[str, bool | float | int | str]) -> FedAvg:
    """Returns the configured strategy; each takes every node in every round.

    Raises:
        ValueError: the name is not one of the six that need no more than the weighted mean.
    """
    name = str(settings["strategy"])
    rate = float(settings["server-learning-rate"])
    match name:
        case "FedAvg":
            return FedAvg()
        case "FedAvgM":
            return FedAvgM(server_momentum=float(settings["server-momentum"]))
        case "FedProx":
            return FedProx(proximal_mu=float(settings["proximal-mu"]))
        case "FedAdam":
            return FedAdam(eta=rate)
        case "FedYogi":
            return FedYogi(eta=rate)
        case "FedAdagrad":
            return FedAdagrad(eta=rate)
        case _:
            raise ValueError(f"unknown strategy {name!r}")
