"""The coordinator's side: federated averaging with server momentum over the whole cohort, one model at the end.

Momentum (Hsu, Qi, Brown 2019, arXiv:1909.06335) evens out what mills with different products pull apart, and needs
nothing but the mean of the replies.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvgM

from .model import new_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds, print each round's means and write ``final_model.pt`` into the working directory."""
    nodes = max(len(list(grid.get_node_ids())), 1)
    strategy = FedAvgM(
        fraction_train=1.0,
        fraction_evaluate=1.0,
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
        server_momentum=float(context.run_config["server-momentum"]),
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(new_model(int(context.run_config["seed"])).state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
    for round_, metrics in sorted(result.evaluate_metrics_clientapp.items()):
        share, mse = cast(float, metrics["share_within_10pct"]), cast(float, metrics["mse_kn2"])
        print(f"round {round_}: {share:.1%} of unseen passes within 10 %, RMSE {math.sqrt(mse):.0f} kN")
    torch.save(result.arrays.to_torch_state_dict(), Path("final_model.pt"))
