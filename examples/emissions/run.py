"""Five gas turbine plants fit one model of their emissions: five nodes, real processes, one command.

    python -m examples.emissions.run --data ../shared/data/gas_turbine

It prepares each plant's table, founds a consortium, lets each plant register and offer its own, runs the app once over all
of them, masked, compares, draws, and verifies all ledgers. Exit code 0 only if the bars hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from examples.common.course import Course, Finding, run
from noxmodel.client_app import app as client_app
from noxmodel.server_app import app as server_app

from . import APP
from .compare import as_text, compare, default_settings, read_model, series
from .prepare import YEARS, prepare


def plants(raw: Path) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each plant's id, legal entity and hours, and a line about them."""
    for name, year in YEARS.items():
        table = prepare(raw / f"gt_{year}.csv.gz")
        print(f"gt_{year}.csv.gz: {len(table)} hours, {int(table['unseen'].sum())} of them kept unseen, to {name}")
        yield name, f"Gas Turbine Plant {name[-1].upper()}", table


def judge(tables: Mapping[str, pd.DataFrame], model: Path) -> Finding:
    """The federated model beside those that the plants, and all of them pooled, would fit."""
    result = compare(tables, read_model(model), default_settings())
    return Finding(result, as_text(result), series(result), result.holds)


COURSE = Course(
    about=__doc__,
    data="directory with gt_2011.csv.gz to gt_2015.csv.gz",
    folder=".emissions",
    consortium="Gas Turbine Emissions",
    dataset=("hours", "Hourly operation of a gas turbine", "燃气轮机逐小时运行数据"),
    title="Emission model",
    purpose="fed:EnergyManagement",
    app=APP,
    parts=(server_app, client_app),
    settings=default_settings(),
    tables=plants,
    compare=judge,
    heading=("NOx: error on unseen hours", "mg/m3"),
)

if __name__ == "__main__":
    raise SystemExit(run(COURSE))
