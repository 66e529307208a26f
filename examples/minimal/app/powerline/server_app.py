"""The coordinator's side: Flower's FedAvg over everybody, one model at the end."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and print each round's error; files written here come out with the result."""
    nodes = len(list(grid.get_node_ids()))
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    start = ArrayRecord({"w": Array(np.zeros(3))})
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=int(context.run_config["num-server-rounds"]))
    for round_, metrics in sorted(result.evaluate_metrics_clientapp.items()):
        print(f"round {round_}: mean squared error {metrics['mse']:.4f}")
    np.savetxt("coefficients.txt", result.arrays["w"].numpy())
