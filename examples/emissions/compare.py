"""What each plant gets: its own mean, its model alone, the federated model, the model on pooled rows.

All plants' rows sit in this process, as they could for no party of a federation: the yardstick, not the story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from examples.common.emulate import Settings, app_settings
from examples.emissions import APP
from noxmodel.features import TARGET_RANGE, Doubles, Hours, make_plant
from noxmodel.moments import moments, solve, squared_error

ALONE_PENALTY = 0.001  # the best for one plant's rows, as 0.0001 is for all; both chosen within the seen hours
TOLERANCE = 0.001  # the federated model is the pooled one but for float32 and fixed point


@dataclass(frozen=True)
class Row:
    """One plant: root mean squared errors in mg/m3 over its unseen hours, and how many those are.

    Attributes:
        mean: of always saying the plant's own mean.
        alone: of the plant's own model.
        elsewhere: of that model on the unseen hours of the other four.
        federated_elsewhere: of the federated model on those.
    """

    plant: str
    hours: int
    mean: float
    alone: float
    federated: float
    pooled: float
    elsewhere: float
    federated_elsewhere: float


@dataclass(frozen=True)
class Comparison:
    """All rows, the figures over all unseen hours, and whether the bars hold.

    Attributes:
        holds: the federated model is within `TOLERANCE` of the pooled one at every plant, and beats every plant's own
            model on the others' hours.
        alone_wins: plants whose own model is better on their own hours.
    """

    rows: tuple[Row, ...]
    federated: float
    pooled: float
    holds: bool
    alone_wins: tuple[str, ...]


def default_settings() -> Settings:
    """Returns `[tool.flwr.app.config]` of the app."""
    return app_settings(APP)


def compare(tables: Mapping[str, pd.DataFrame], federated: Doubles, settings: Settings) -> Comparison:
    """Fits the alone and pooled models and scores all on the unseen hours.

    Args:
        tables: each plant's, as `prepare` makes it.
        federated: the coefficients that the job left.
        settings: those it ran with.
    """
    count, width, seed = int(settings["features"]), float(settings["width"]), int(settings["seed"])
    penalty = float(settings["penalty"])
    plants = {name: make_plant(table) for name, table in tables.items()}
    mine = {name: moments(one.seen, one.rows, count, width, seed) for name, one in plants.items()}
    total = sum(one.rows for one in plants.values())
    both = np.sum([one.rows / total * mine[name] for name, one in plants.items()], axis=0)
    pooled = solve(both, penalty)

    def error(model: Doubles, hours: Sequence[Hours]) -> float:
        parts = [(squared_error(model, one, width, seed), len(one.y)) for one in hours]
        return float(np.sqrt(sum(part * n for part, n in parts) / sum(n for _, n in parts)))

    rows = []
    for name, plant in plants.items():
        own = solve(mine[name], ALONE_PENALTY)
        others = [one.unseen for other, one in plants.items() if other != name]
        spread = plant.unseen.y - plant.seen.y.mean()
        rows.append(
            Row(
                name,
                len(plant.unseen.y),
                float(np.sqrt(np.mean(spread**2))) * TARGET_RANGE,
                error(own, [plant.unseen]),
                error(federated, [plant.unseen]),
                error(pooled, [plant.unseen]),
                error(own, others),
                error(federated, others),
            )
        )
    every = [one.unseen for one in plants.values()]
    near = all(abs(row.federated / row.pooled - 1.0) <= TOLERANCE for row in rows)
    return Comparison(
        tuple(rows),
        error(federated, every),
        error(pooled, every),
        near and all(row.federated_elsewhere < row.elsewhere for row in rows),
        tuple(row.plant for row in rows if row.alone < row.federated),
    )


def read_model(path: Path) -> Doubles:
    """Reads the coefficients that the server part left; the file cannot carry code."""
    with np.load(path, allow_pickle=False) as file:
        found: Doubles = file["coefficients"]
    return found


def as_text(comparison: Comparison) -> str:
    """Returns the comparison as a table for a person."""
    columns = ("mean", "alone", "federated", "pooled", "elsewhere", "federated_elsewhere")
    heads = ("own mean", "alone", "federated", "pooled", "alone*", "federated*")
    lines = [f"{'RMSE, mg/m3':12}{'hours':>7}" + "".join(f"{head:>12}" for head in heads)]
    for row in comparison.rows:
        figures = "".join(f"{getattr(row, column):12.2f}" for column in columns)
        lines.append(f"{row.plant:12}{row.hours:7d}{figures}")
    lines += [
        f"{'all':12}{sum(row.hours for row in comparison.rows):7d}{'':24}"
        f"{comparison.federated:12.2f}{comparison.pooled:12.2f}",
        "* on the unseen hours of the other four plants",
        f"own model is better on its own hours at: {', '.join(comparison.alone_wins) or 'none'}",
        f"bars {'hold' if comparison.holds else 'DO NOT HOLD'}",
    ]
    return "\n".join(lines)


def series(comparison: Comparison) -> dict[str, list[float]]:
    """The figures as the picture shows them."""
    names: dict[str, Any] = {
        "own model, own hours": "alone",
        "own model, other plants": "elsewhere",
        "federated": "federated",
        "pooled": "pooled",
    }
    return {title: [getattr(row, name) for row in comparison.rows] for title, name in names.items()}
