"""Compares what a utility gets: same hour last week, its model alone, the federated model, the model on pooled data.

    python -m examples.grid_load.compare RAW_DIRECTORY --federated model.npz
    python -m examples.grid_load.compare RAW_DIRECTORY --emulate

All seven utilities' data sit in this process, as they could for no party of a federation: the yardstick, not the story.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import chdir
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from examples.grid_load.emulate import Node, Settings, default_settings, emulate
from examples.grid_load.prepare import PrepareError, prepare, write
from gridload.examples import make_examples
from gridload.features import Examples
from gridload.model import DayAheadNet
from gridload.training import decayed, evaluate, train

UTILITIES = ("AEP", "COMED", "DAYTON", "DEOK", "DOM", "DUQ", "EKPC")
TOLERANCE = 0.01  # the federated mean may be this much above the pooled one, relative
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """One utility's mean absolute percentage errors, in percent, and how many hours they are over."""

    utility: str
    hours: int
    last_week: float
    linear_base: float
    alone: float
    federated: float
    pooled: float


@dataclass(frozen=True)
class Comparison:
    """All rows, their plain means over the utilities, and whether the bars hold.

    Attributes:
        federated_over_pooled: ratio of the means.
        holds: the ratio is at most 1 + TOLERANCE and every utility is better off than with the same hour last week.
        alone_wins: utilities whose own model beats the federated one.
        seconds: what each training took here.
    """

    rows: tuple[Row, ...]
    mean: Row
    federated_over_pooled: float
    holds: bool
    alone_wins: tuple[str, ...]
    seconds: dict[str, float]


def prepare_all(raw: Path, directory: Path) -> dict[str, Node]:
    """Writes each utility's table as `directory/NAME/data.parquet`, as a node would hand it to the job."""
    nodes = {}
    for name in UTILITIES:
        table, report = prepare(raw / f"{name}_hourly.csv.gz")
        write(table, directory / name, "parquet").rename(directory / name / "data.parquet")
        nodes[name] = Node(directory / name, report.rows_written)
    return nodes


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads named float32 arrays from `.npz` or `.safetensors`; neither can carry code.

    Raises:
        ValueError: another dtype, or bytes that are not such a file.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is {entry['dtype']}, expected F32")
        first, end = entry["data_offsets"]
        flat = np.frombuffer(content[8 + length + first : 8 + length + end], dtype="<f4")
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def model_of(arrays: Arrays) -> DayAheadNet:
    """Returns the network with these arrays; raises RuntimeError if names or shapes differ from the network's."""
    model = DayAheadNet(seed=0)
    model.load_state_dict({name: torch.from_numpy(np.array(value, dtype=np.float32)) for name, value in arrays.items()})
    return model


def pool(parts: Iterable[Examples]) -> Examples:
    """Returns the examples of several utilities as one set: what nobody in the federation has."""
    sets = list(parts)
    days = pd.DatetimeIndex(np.concatenate([part.days.to_numpy() for part in sets]))
    stacked = [np.concatenate([getattr(part, name) for part in sets]) for name in ("x", "base", "target", "last_week")]
    return Examples(days, *stacked)


def fit(examples: Examples, settings: Settings) -> DayAheadNet:
    """Trains one network in one place with the federated job's epochs, learning rates and local optimiser."""
    rounds, seed = int(settings["num-server-rounds"]), int(settings["seed"])
    model = DayAheadNet(seed=seed)
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


def compare(tables: Mapping[str, pd.DataFrame], federated: Arrays, settings: Settings | None = None) -> Comparison:
    """Trains the alone and pooled models, and scores all on the days from `train-before` on.

    Args:
        tables: each utility's table as `prepare` makes it.
        federated: the arrays of the federated job, trained under the same `train-before`.
        settings: the app's config; the defaults if None.
    """
    settings = settings or default_settings()
    split = date.fromisoformat(str(settings["train-before"]))
    until = date.fromisoformat(str(settings["evaluate-until"])) if settings["evaluate-until"] else None
    examples = {name: make_examples(table, split) for name, table in tables.items()}
    past = {name: every.between(None, split) for name, every in examples.items()}
    start = time.monotonic()
    pooled = fit(pool(past.values()), settings)
    seconds = {"pooled": time.monotonic() - start}
    shared = model_of(federated)
    rows = []
    start = time.monotonic()
    for name, every in examples.items():
        test = every.between(split, until)
        common, alone = evaluate(shared, test), evaluate(fit(past[name], settings), test)
        base = evaluate(DayAheadNet(seed=0), test)  # untrained, it forecasts the base
        errors = (common.mape_last_week, base.mape, alone.mape, common.mape, evaluate(pooled, test).mape)
        rows.append(Row(name, common.hours, *(100.0 * error for error in errors)))
    seconds["alone, all"] = time.monotonic() - start
    mean = _mean(rows)
    ratio = mean.federated / mean.pooled
    return Comparison(
        rows=tuple(rows),
        mean=mean,
        federated_over_pooled=ratio,
        holds=ratio <= 1.0 + TOLERANCE and all(row.federated < row.last_week for row in rows),
        alone_wins=tuple(row.utility for row in rows if row.alone < row.federated),
        seconds=seconds,
    )


def as_text(comparison: Comparison) -> str:
    """Returns the comparison as a table for a person."""
    columns = ("last_week", "linear_base", "alone", "federated", "pooled")
    lines = [f"{'MAPE, %':8}{'hours':>8}" + "".join(f"{name.replace('_', ' '):>13}" for name in columns)]
    for row in (*comparison.rows, comparison.mean):
        figures = "".join(f"{getattr(row, name):13.2f}" for name in columns)
        lines.append(f"{row.utility:8}{row.hours:8d}{figures}")
    lines += [
        f"federated / pooled: {comparison.federated_over_pooled:.4f} (at most {1 + TOLERANCE})",
        f"own model beats the federated one at: {', '.join(comparison.alone_wins) or 'none'}",
        f"bars {'hold' if comparison.holds else 'DO NOT HOLD'}",
        "seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in comparison.seconds.items()),
    ]
    return "\n".join(lines)


def _mean(rows: list[Row]) -> Row:
    def of(name: str) -> float:
        return float(np.mean([getattr(row, name) for row in rows]))

    names = ("last_week", "linear_base", "alone", "federated", "pooled")
    return Row("mean", sum(row.hours for row in rows), *(of(name) for name in names))


def main(argv: list[str] | None = None) -> int:
    """Prints the comparison; exit code 0 only if the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="directory with NAME_hourly.csv.gz of the seven utilities")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--federated", type=Path, help="arrays of a job, .npz or .safetensors")
    source.add_argument("--emulate", action="store_true", help="train them here, without nodes or protection")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the app")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        settings = _settings(arguments.set)
        with tempfile.TemporaryDirectory() as folder:
            nodes = prepare_all(arguments.raw.resolve(), Path(folder))
            tables = {name: pd.read_parquet(node.directory / "data.parquet") for name, node in nodes.items()}
            start = time.monotonic()
            if arguments.emulate:
                with chdir(folder):
                    emulate(list(nodes.values()), settings)
                    arrays = read_arrays(Path("model.npz"))
            else:
                arrays = read_arrays(arguments.federated)
            emulated = time.monotonic() - start
        result = compare(tables, arrays, settings)
    except (PrepareError, OSError, ValueError, RuntimeError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    if arguments.emulate:
        result.seconds["federated, emulated"] = emulated
    print(as_text(result) if arguments.format == "text" else json.dumps(asdict(result), indent=2))
    return 0 if result.holds else 1


def _settings(pairs: Iterable[str]) -> Settings:
    settings = default_settings()
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in settings:
            raise ValueError(f"no such setting: {name}")
        kind = type(settings[name])
        settings[name] = text == "true" if kind is bool else kind(text)
    return settings


if __name__ == "__main__":
    sys.exit(main())
