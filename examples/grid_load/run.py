"""Seven US electric utilities train one day-ahead load model: seven nodes, real processes, one command.

    python -m examples.grid_load.run --data ../shared/data/pjm_hourly

It prepares each utility's raw file and says what it found, founds a consortium, lets each utility register and offer its
own table, trains the app across the nodes, compares, and verifies all ledgers. Exit code 0 only if the bars hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch

from examples.common import Participant, federate, verify, write_figures
from keyong.demo.parties import DemoError

from .compare import UTILITIES, as_text, compare, read_arrays
from .emulate import default_settings
from .prepare import PrepareError, prepare, write

APP = Path(__file__).parent / "app"
PURPOSE = "fed:LoadForecast"


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="directory with NAME_hourly.csv.gz of the seven utilities"
    )
    parser.add_argument("--dir", type=Path, default=Path(".grid-load"), help="where its state is kept; made anew")
    parser.add_argument("--config", action="append", default=[], metavar="NAME=VALUE", help="a setting of the app")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    began = time.monotonic()
    shutil.rmtree(chosen.dir, ignore_errors=True)
    chosen.dir.mkdir(mode=0o700)
    try:
        files = {
            name: _prepare(chosen.data / f"{name}_hourly.csv.gz", chosen.dir / "tables" / name) for name in UTILITIES
        }
        utilities = [Participant(name.lower(), f"{name} (utility)", path) for name, path in files.items()]
        training = federate(
            chosen.dir, "Load Forecast", utilities, dataset=("load", "Hourly electric load", "逐小时用电负荷"),
            title="Day-ahead load", purpose=PURPOSE, app=APP, config=chosen.config,
        )  # fmt: skip
        tables = {name: pd.read_parquet(path) for name, path in files.items()}
        # After a strategy with server momentum the app's own file is the model; the last aggregate is the mean before it.
        federated = read_arrays(training.result / "output" / "model.npz")
        result = compare(tables, federated, _settings(chosen.config))
        result.seconds["federated, seven nodes"] = training.seconds
        print(as_text(result))
        write_figures(chosen.dir / "figures.json", asdict(result))
        verify(chosen.dir, utilities, training.fingerprint)
    except (DemoError, PrepareError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the whole in {time.monotonic() - began:.0f} s; its state is in {chosen.dir}")
    return 0 if result.holds else 1


def _prepare(source: Path, directory: Path) -> Path:
    table, report = prepare(source.resolve())
    print(
        f"{source.name}: {report.rows_read} rows; {report.day_first_dates_converted} dates written day first; "
        f"{report.duplicate_hours_merged} hours twice, merged by mean; {report.missing_hours} hours missing, left out"
    )
    return write(table, directory, "parquet")


def _settings(pairs: list[str]) -> dict[str, bool | int | float | str]:
    settings = default_settings()
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in settings:
            raise DemoError("the app has no setting {name}", name=name)
        kind = type(settings[name])
        settings[name] = text == "true" if kind is bool else kind(text)
    return settings


if __name__ == "__main__":
    raise SystemExit(main())
