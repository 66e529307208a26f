"""What each fleet gets: its mean, its model alone, the federated model, the model on pooled engines.

All fleets' engines sit in this process, as they could for no party of a federation: the yardstick, not the story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from examples.common.emulate import Settings, app_settings
from examples.turbofan import APP
from remaininglife.model import LifeNet, decayed, squared_error, train
from remaininglife.windows import Examples, make_fleet

TOLERANCE = 0.05  # the federated error over all engines may be this much above the pooled one, relative


@dataclass(frozen=True)
class Row:
    """One fleet: root mean squared errors in cycles over its engines that were taken out, and how many those are.

    Attributes:
        mean: of always saying the mean life left of the fleet's failed engines' windows.
        alone: of the fleet's own model.
        alone_all: of that model on the engines of all fleets.
    """

    fleet: str
    engines: int
    mean: float
    alone: float
    federated: float
    pooled: float
    alone_all: float


@dataclass(frozen=True)
class Comparison:
    """All rows, the figures over the engines of all fleets, and whether the bars hold.

    Attributes:
        holds: over all engines the federated error is at most 1 + `TOLERANCE` of the pooled one and below the mean of the
            fleets' own models.
        alone_wins: fleets whose own model is better on their own engines.
    """

    rows: tuple[Row, ...]
    federated: float
    pooled: float
    holds: bool
    alone_wins: tuple[str, ...]


def default_settings() -> Settings:
    """Returns `[tool.flwr.app.config]` of the app."""
    return app_settings(APP)


def fit(examples: Examples, settings: Settings) -> LifeNet:
    """Trains one network in one place with the job's epochs, learning rates and local optimiser."""
    rounds, seed = int(settings["num-server-rounds"]), int(settings["seed"])
    model = LifeNet(seed=seed)
    for number in range(1, rounds + 1):
        train(
            model,
            examples,
            learning_rate=decayed(float(settings["learning-rate"]), number, rounds),
            epochs=int(settings["local-epochs"]),
            batch_size=int(settings["batch-size"]),
            seed=seed * 100_003 + number,
        )
    return model


def compare(tables: Mapping[str, pd.DataFrame], federated: LifeNet, settings: Settings) -> Comparison:
    """Trains the alone and pooled models and scores all on the engines that were taken out before they failed."""
    fleets = {name: make_fleet(table) for name, table in tables.items()}
    every = join([one.judged for one in fleets.values()])
    pooled = fit(join([one.failed for one in fleets.values()]), settings)
    rows = []
    for name, one in fleets.items():
        own = fit(one.failed, settings)
        spread = one.judged.life - one.failed.life.mean()
        errors = (_error(model, one.judged) for model in (own, federated, pooled))
        rows.append(
            Row(name, len(one.judged.life), float(np.sqrt(np.mean(spread**2))), *errors, alone_all=_error(own, every))
        )
    both = _error(federated, every), _error(pooled, every)
    return Comparison(
        tuple(rows),
        *both,
        holds=both[0] <= (1.0 + TOLERANCE) * both[1] and both[0] < float(np.mean([row.alone_all for row in rows])),
        alone_wins=tuple(row.fleet for row in rows if row.alone < row.federated),
    )


def join(parts: Sequence[Examples]) -> Examples:
    """Returns the windows of several fleets as one set: what nobody in the federation has."""
    x, life, engine = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "life", "engine"))
    return Examples(x, life, engine)


def read_model(path: Path) -> LifeNet:
    """Reads the network that the server part left; the file cannot carry code."""
    model = LifeNet(seed=0)
    with np.load(path, allow_pickle=False) as file:
        model.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    return model


def as_text(comparison: Comparison) -> str:
    """Returns the comparison as a table for a person."""
    columns = ("mean", "alone", "federated", "pooled", "alone_all")
    lines = [
        f"{'RMSE, cycles':12}{'engines':>9}" + "".join(f"{name:>12}" for name in ("mean", *columns[1:4], "alone*"))
    ]
    for row in comparison.rows:
        lines.append(f"{row.fleet:12}{row.engines:9d}" + "".join(f"{getattr(row, column):12.2f}" for column in columns))
    lines += [
        f"{'all':12}{sum(row.engines for row in comparison.rows):9d}{'':24}"
        f"{comparison.federated:12.2f}{comparison.pooled:12.2f}",
        "* on the engines of all five fleets",
        f"own model is better on its own engines at: {', '.join(comparison.alone_wins) or 'none'}",
        f"bars {'hold' if comparison.holds else 'DO NOT HOLD'}",
    ]
    return "\n".join(lines)


def series(comparison: Comparison) -> dict[str, list[float]]:
    """The figures as the picture shows them."""
    names = {"own model": "alone", "own model, all fleets": "alone_all", "federated": "federated", "pooled": "pooled"}
    return {title: [getattr(row, name) for row in comparison.rows] for title, name in names.items()}


def _error(model: LifeNet, examples: Examples) -> float:
    return float(np.sqrt(squared_error(model, examples)))
