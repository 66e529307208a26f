"""Five owners of turbofan engines train one estimate of remaining life: five nodes, real processes, one command.

    python -m examples.turbofan.run --data ../shared/data/cmapss_fd001

It prepares each fleet's table, founds a consortium, lets each owner register and offer its own, trains the app across the
nodes, masked, compares, draws, and verifies all ledgers. Exit code 0 only if the bars hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch

from examples.common.course import Course, Finding, run
from remaininglife.client_app import app as client_app
from remaininglife.server_app import app as server_app

from . import APP
from .compare import as_text, compare, default_settings, read_model, series
from .prepare import FLEETS, fleet, prepare


def fleets(data: Path) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each owner's id, legal entity and cycles, and a line about them."""
    raw = prepare(data)
    for name in FLEETS:
        table = fleet(raw, name)
        engines = table.groupby("failed")["engine"].nunique()
        print(
            f"{name}: {len(table)} cycles of {engines[True]} engines that failed and {engines[False]} taken out before"
        )
        yield name, f"Engine Owner {name[-1].upper()}", table


def judge(tables: Mapping[str, pd.DataFrame], model: Path) -> Finding:
    """The federated model beside those that the owners, and all of them pooled, would train."""
    result = compare(tables, read_model(model), default_settings())
    return Finding(result, as_text(result), series(result), result.holds)


COURSE = Course(
    about=__doc__,
    data="directory with the files of C-MAPSS FD001",
    folder=".turbofan",
    consortium="Turbofan Engines",
    dataset=("cycles", "Engine cycles", "发动机运行循环"),
    title="Remaining useful life",
    purpose="fed:RemainingLife",
    app=APP,
    parts=(server_app, client_app),
    settings=default_settings(),
    tables=fleets,
    compare=judge,
    heading=("Remaining life: error on engines taken out of service", "cycles"),
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(run(COURSE))
