"""The server part: plain federated averaging."""

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average for as many rounds as asked."""
    arrays = ArrayRecord([np.zeros(int(context.run_config["floats"]), dtype=np.float32)])
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=1.0)
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(context.run_config["num-server-rounds"]))
