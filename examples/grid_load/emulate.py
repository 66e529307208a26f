"""Runs the app's own server and client parts in one process, with the arithmetic of a job that aggregates by `sum`.

For choosing settings and for tests. There is no node, permit, mask or ledger here: all utilities' data sit in
this process. What is kept is what decides the outcome: each reply minus what was sent, clamped, in fixed point,
averaged by the rows of each node's table, and handed to the unmodified strategy as one reply.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from examples.grid_load import APP
from gridload.client_app import app as client_app
from gridload.server_app import app as server_app

CLAMP = 8.0
FRACTION_BITS = 40
Settings = dict[str, bool | float | int | str]


@dataclass(frozen=True)
class Node:
    """A node of the emulation: its dataset directory and its weight, the rows of its table."""

    directory: Path
    rows: int


def default_settings(**overrides: bool | float | int | str) -> Settings:
    """Returns `[tool.flwr.app.config]` of the app with overrides; dashes in names are written as underscores."""
    config = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    named = {name.replace("_", "-"): value for name, value in overrides.items()}
    if unknown := named.keys() - config.keys():
        raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
    return {**config, **named}


class SumGrid(Grid):
    """Answers a round of messages with one synthetic reply: weighted mean arrays, weighted mean metrics, total weight.

    Attributes:
        last_mean: the arrays of the last reply to a training round.
    """

    def __init__(self, nodes: Sequence[Node], settings: Settings) -> None:
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
            reply = client_app(message, self._contexts[number])
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


def emulate(nodes: Sequence[Node], settings: Settings) -> SumGrid:
    """Runs the app over the nodes; its `model.npz` and `metrics.json` appear in the current directory."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1  # who sends, for Message's constructor
    grid = SumGrid(nodes, settings)
    server_app(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=dict(settings)))
    return grid


def _arrays(message: Message) -> Mapping[str, npt.NDArray[Any]]:
    return {k: array.numpy() for record in message.content.array_records.values() for k, array in record.items()}


def _metrics(message: Message) -> Mapping[str, Any]:
    return {k: value for record in message.content.metric_records.values() for k, value in record.items()}
