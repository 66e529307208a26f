"""Flower apps as a user writes them, numpy alone: small enough that a job takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

PYPROJECT = """
[project]
name = "{name}"
version = "1.0.0"
license = "Apache-2.0"
dependencies = [{dependencies}]

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "{name}.server_app:app"
clientapp = "{name}.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 1
lr = 0.1
{config}

{outputs}
"""

OUTPUTS = """
[tool.keyong.outputs.train]
arrays = "sent"
metrics = [
    { name = "num-examples", minimum = "0", maximum = "100000000" },
    { name = "loss", minimum = "0", maximum = "1000000" },
]
[tool.keyong.outputs.evaluate]
metrics = [
    { name = "num-examples", minimum = "0", maximum = "100000000" },
    { name = "loss", minimum = "0", maximum = "1000000" },
]
"""

SERVER = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as strategies

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = strategies.FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    initial = ArrayRecord({"w": Array(np.array([0.5, -0.25, 0.125, 1.0]))})
    strategy.start(grid=grid, initial_arrays=initial, num_rounds=int(context.run_config["num-server-rounds"]))
"""

CLIENT = """
from pathlib import Path

import numpy as np
import pyarrow.parquet
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def rows(context):
    table = pyarrow.parquet.read_table(Path(context.node_config["dataset-path"]) / "data.parquet")
    inputs = [table[name].to_numpy() for name in ("x1", "x2", "x3")]
    x = np.column_stack([*inputs, np.ones(table.num_rows)])
    return x, table["y"].to_numpy()


def reply(message, w, metrics, **records):
    content = RecordDict({"arrays": ArrayRecord({"w": Array(w)}), "metrics": MetricRecord(metrics), **records})
    return Message(content=content, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    w = message.content["arrays"]["w"].numpy()
    x, y = rows(context)
    error = x @ w - y
    w = w - context.run_config["lr"] * (x.T @ error) / len(y)
    return reply(message, w, {"num-examples": len(y), "loss": float(np.mean(error**2))})
"""


def write_app(
    folder: Path,
    *,
    client: str = CLIENT,
    server: str = SERVER,
    outputs: str = OUTPUTS,
    config: Mapping[str, str] | None = None,
    dependencies: str = "",
    name: str = "linear",
) -> Path:
    """Write an app's folder; returns it."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "client_app.py").write_text(dedent(client))
    (package / "server_app.py").write_text(dedent(server))
    settings = "\n".join(f"{key} = {value}" for key, value in (config or {}).items())
    text = PYPROJECT.format(name=name, config=settings, outputs=outputs, dependencies=dependencies)
    (folder / "pyproject.toml").write_text(text)
    return folder


def client_that(body: str, before: str = "") -> str:
    """The client app with another body of ``train``; ``w``, ``x``, ``y`` and ``reply`` are at hand."""
    head, _, _ = CLIENT.partition("@app.train()")
    start = dedent("""\
        @app.train()
        def train(message: Message, context: Context) -> Message:
            w = message.content["arrays"]["w"].numpy()
            x, y = rows(context)
            good = {"num-examples": len(y), "loss": 1.0}
        """)
    indented = "".join(f"    {line}\n" if line else "\n" for line in dedent(body).strip().splitlines())
    return f"{head}{dedent(before)}\n\n{start}{indented}"


def server_with(strategy: str, before: str = "") -> str:
    """The server app with another strategy."""
    return SERVER.replace("strategies.FedAvg(fraction_train=1.0, fraction_evaluate=0.0)", strategy).replace(
        "app = ServerApp()", f"app = ServerApp()\n{dedent(before)}"
    )
