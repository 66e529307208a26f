"""Runs an app's own server and client parts in one process, with the arithmetic of a job that aggregates by `sum`.

For choosing settings and for tests. There is no node, permit, mask or ledger here: everybody's data sit in this process. What
is kept is what decides the outcome: each reply minus what was sent, clamped, in fixed point, averaged by the rows of
each node's table, and handed to the unmodified strategy as one reply.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

CLAMP = 8.0
FRACTION_BITS = 40
Settings = dict[str, bool | float | int | str]


@dataclass(frozen=True)
class Node:
    """A node of the emulation: its dataset directory and its weight, the rows of its table."""

    directory: Path
    rows: int


class SumGrid(Grid):
    """Answers a round of messages with one synthetic reply: weighted mean arrays, weighted mean metrics, total weight.

    Attributes:
        last_mean: the arrays of the last reply to a training round.
    """

    def __init__(self, client: ClientApp, nodes: Sequence[Node], settings: Settings) -> None:
        self._client = client
        self.last_mean: dict[str, npt.NDArray[Any]] = {}
        self._nodes = {number + 1: node for number, node in enumerate(nodes)}
        self._contexts = {
            number: Context(
                run_id=1,
                node_id=number,
                node_config={
                    "dataset-path": str(node.directory),
                    "partition-id": number - 1,
                    "num-partitions": len(self._nodes),
                },
                state=RecordDict(),
                run_config=dict(settings),
            )
            for number, node in self._nodes.items()
        }

    def get_node_ids(self) -> Iterable[int]:
        """Returns the whole cohort."""
        return list(self._nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Runs the client part for each message and returns one reply for all."""
        total = float(sum(node.rows for node in self._nodes.values()))
        sums: dict[str, npt.NDArray[np.float64]] = {}
        metrics: dict[str, float] = {}
        first: Message | None = None
        for message in messages:
            first = first or message
            number = message.metadata.dst_node_id
            share = self._nodes[number].rows / total
            reply = self._client(message, self._contexts[number])
            sent, back = _arrays(message), _arrays(reply)
            for key, value in back.items():
                delta = np.clip(value.astype(np.float64) - sent[key], -CLAMP, CLAMP)
                fixed = np.rint(delta * 2.0**FRACTION_BITS) / 2.0**FRACTION_BITS
                sums[key] = sums.get(key, 0.0) + share * fixed
            for key, figure in _metrics(reply).items():
                metrics[key] = metrics.get(key, 0.0) + share * float(str(figure))
        if first is None:
            return []
        content = RecordDict({"metrics": MetricRecord({**metrics, "num-examples": int(total)})})
        if sums:
            sent = _arrays(first)
            self.last_mean = {key: (sent[key] + sums[key]).astype(sent[key].dtype) for key in sent}
            content["arrays"] = ArrayRecord({key: Array(value) for key, value in self.last_mean.items()})
        return [Message(content=content, reply_to=first)]

    def set_run(self, run: object) -> None:
        """Does nothing: there is one run."""

    @property
    def run(self) -> NoReturn:
        """Is not part of what the strategies use."""
        raise NotImplementedError

    def create_message(self, *_: object, **__: object) -> NoReturn:
        """Is not part of what the strategies use."""
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> NoReturn:
        """Is not part of what the strategies use."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> NoReturn:
        """Is not part of what the strategies use."""
        raise NotImplementedError


def app_settings(app: Path) -> Settings:
    """Returns `[tool.flwr.app.config]` of an app."""
    settings: Settings = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"][
        "config"
    ]
    return settings


def emulate(server: ServerApp, client: ClientApp, nodes: Sequence[Node], settings: Settings) -> SumGrid:
    """Runs an app over the nodes; the files that its server part writes appear in the current directory."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # who sends, for Message's constructor
    grid = SumGrid(client, nodes, settings)
    server(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=dict(settings)))
    return grid


def _arrays(message: Message) -> Mapping[str, npt.NDArray[Any]]:
    return {k: array.numpy() for record in message.content.array_records.values() for k, array in record.items()}


def _metrics(message: Message) -> Mapping[str, Any]:
    return {k: value for record in message.content.metric_records.values() for k, value in record.items()}


def emulate_tables(
    server: ServerApp, client: ClientApp, tables: Mapping[str, Path], settings: Settings, folder: Path
) -> Path:
    """Runs an app over Parquet tables as a job over as many nodes would; returns the folder with the server part's files.

    Args:
        tables: each participant's file.
        folder: where each gets a dataset directory of its own, beside `output`.
    """
    nodes = []
    for name, table in tables.items():
        place = folder / "nodes" / name
        place.mkdir(parents=True)
        rows = pd.read_parquet(table)
        rows.to_parquet(place / "data.parquet", index=False)
        nodes.append(Node(place.resolve(), len(rows)))
    (folder / "output").mkdir()
    with chdir(folder / "output"):
        emulate(server, client, nodes, settings)
    return folder / "output"
