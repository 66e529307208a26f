"""Five gas turbine plants fit one model of their emissions: five nodes, real processes, one command.

    python -m examples.emissions.run --data ../shared/data/gas_turbine

It prepares each plant's table, founds a consortium, lets each plant register and offer its own, runs the app once over all
of them, masked, compares, draws, and verifies all ledgers. Exit code 0 only if the bars hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from examples.common import Participant, bars, federate, verify, write_figures
from examples.common.emulate import emulate_tables
from keyong.demo.parties import DemoError
from noxmodel.client_app import app as client_app
from noxmodel.server_app import app as server_app

from . import APP
from .compare import as_text, compare, default_settings, read_model, series
from .prepare import YEARS, PrepareError, prepare


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with gt_2011.csv.gz to gt_2015.csv.gz")
    parser.add_argument("--dir", type=Path, default=Path(".emissions"), help="where its state is kept; made anew")
    parser.add_argument(
        "--emulate", action="store_true", help="in this process, without nodes, permits, masks or ledgers"
    )
    chosen = parser.parse_args(argv)
    began = time.monotonic()
    shutil.rmtree(chosen.dir, ignore_errors=True)
    (chosen.dir / "tables").mkdir(mode=0o700, parents=True)
    try:
        plants = [_participant(name, year, chosen.data, chosen.dir / "tables") for name, year in YEARS.items()]
        training = None
        if chosen.emulate:
            files = {plant.name: plant.table for plant in plants}
            output = emulate_tables(server_app, client_app, files, default_settings(), chosen.dir)
        else:
            training = federate(
                chosen.dir, "Gas Turbine Emissions", plants,
                dataset=("hours", "Hourly operation of a gas turbine", "燃气轮机逐小时运行数据"),
                title="Emission model", purpose="fed:EnergyManagement", app=APP,
            )  # fmt: skip
            output = training.result / "output"
        tables = {plant.name: pd.read_parquet(plant.table) for plant in plants}
        result = compare(tables, read_model(output / "model.npz"), default_settings())
        print(as_text(result))
        seconds = {} if training is None else {"job_seconds": training.seconds}
        write_figures(chosen.dir / "figures.json", {**asdict(result), **seconds})
        drawing = bars("NOx: error on unseen hours", "mg/m3", list(YEARS), series(result))
        (chosen.dir / "figures.svg").write_text(drawing, encoding="utf-8")
        if training is not None:
            print(f"protection {training.protection}; the job took {training.seconds:.0f} s over five nodes")
            verify(chosen.dir, plants, training.fingerprint)
    except (DemoError, PrepareError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the whole in {time.monotonic() - began:.0f} s; figures.json and figures.svg are in {chosen.dir}")
    return 0 if result.holds else 1


def _participant(name: str, year: int, raw: Path, folder: Path) -> Participant:
    table = prepare(raw / f"gt_{year}.csv.gz")
    path = folder / f"{name}.parquet"
    table.to_parquet(path, index=False)
    print(f"gt_{year}.csv.gz: {len(table)} hours, {int(table['unseen'].sum())} of them kept unseen, to {name}")
    return Participant(name, f"Gas Turbine Plant {name[-1].upper()}", path)


if __name__ == "__main__":
    raise SystemExit(main())
