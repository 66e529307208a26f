"""The server part: plain federated averaging; under Flower's own engine it also notes when a round ended."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average for as many rounds as asked."""
    arrays = ArrayRecord([np.zeros(int(context.run_config["floats"]), dtype=np.float32)])
    nodes = int(context.run_config["nodes"])
    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=1.0,
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    marks = str(context.run_config["marks"])
    strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=Marks(Path(marks)) if marks else None,
    )


class Marks:
    """Called before the first round and after each: writes a line with the time, and with what the polls slept so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slept = 0.0
        self._sleep = time.sleep
        time.sleep = self._counted

    def __call__(self, server_round: int, arrays: ArrayRecord) -> None:
        mark = {"round": server_round, "time": time.monotonic(), "slept": self._slept}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(mark) + "\n")

    def _counted(self, seconds: float) -> None:
        # Flower's Grid waits for replies with `time.sleep(3)`, looked up anew each time.
        began = time.monotonic()
        self._sleep(seconds)
        if seconds >= 1:
            self._slept += time.monotonic() - began
