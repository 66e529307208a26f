"""The server part: one round of Flower's FedAvg over moments that start at zero; their weighted mean gives the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from noxmodel.moments import size, solve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Collects the moments, solves, and leaves `model.npz` and `metrics.json` in the working directory."""
    settings = context.run_config
    nothing = ArrayRecord({"moments": Array(np.zeros(size(int(settings["features"])), dtype=np.float32))})
    result = FedAvg().start(grid=grid, initial_arrays=nothing, num_rounds=int(settings["num-server-rounds"]))
    mean = result.arrays["moments"].numpy().astype(np.float64)
    np.savez("model.npz", allow_pickle=False, coefficients=solve(mean, float(settings["penalty"])))
    judged = {number: dict(record) for number, record in result.evaluate_metrics_clientapp.items()}
    Path("metrics.json").write_text(json.dumps(judged, indent=2), encoding="utf-8")
