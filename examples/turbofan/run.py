"""Five owners of turbofan engines train one estimate of remaining life: five nodes, real processes, one command.

    python -m examples.turbofan.run --data ../shared/data/cmapss_fd001

It prepares each fleet's table, founds a consortium, lets each owner register and offer its own, trains the app across the
nodes, masked, compares, draws, and verifies all ledgers. Exit code 0 only if the bars hold.
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

from examples.common import Participant, bars, federate, verify, write_figures
from examples.common.emulate import emulate_tables
from keyong.demo.parties import DemoError
from remaininglife.client_app import app as client_app
from remaininglife.server_app import app as server_app

from . import APP
from .compare import as_text, compare, default_settings, read_model, series
from .prepare import FLEETS, PrepareError, fleet, prepare


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with the files of C-MAPSS FD001")
    parser.add_argument("--dir", type=Path, default=Path(".turbofan"), help="where its state is kept; made anew")
    parser.add_argument(
        "--emulate", action="store_true", help="in this process, without nodes, permits, masks or ledgers"
    )
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    began = time.monotonic()
    shutil.rmtree(chosen.dir, ignore_errors=True)
    (chosen.dir / "tables").mkdir(mode=0o700, parents=True)
    try:
        raw = prepare(chosen.data)
        owners = [_participant(raw, name, chosen.dir / "tables") for name in FLEETS]
        training = None
        if chosen.emulate:
            files = {owner.name: owner.table for owner in owners}
            output = emulate_tables(server_app, client_app, files, default_settings(), chosen.dir)
        else:
            training = federate(
                chosen.dir, "Turbofan Engines", owners,
                dataset=("cycles", "Engine cycles", "发动机运行循环"),
                title="Remaining useful life", purpose="fed:RemainingLife", app=APP,
            )  # fmt: skip
            output = training.result / "output"
        tables = {owner.name: pd.read_parquet(owner.table) for owner in owners}
        result = compare(tables, read_model(output / "model.npz"), default_settings())
        print(as_text(result))
        seconds = {} if training is None else {"job_seconds": training.seconds}
        write_figures(chosen.dir / "figures.json", {**asdict(result), **seconds})
        drawing = bars("Remaining life: error on engines taken out of service", "cycles", list(FLEETS), series(result))
        (chosen.dir / "figures.svg").write_text(drawing, encoding="utf-8")
        if training is not None:
            print(f"protection {training.protection}; the job took {training.seconds:.0f} s over five nodes")
            verify(chosen.dir, owners, training.fingerprint)
    except (DemoError, PrepareError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the whole in {time.monotonic() - began:.0f} s; figures.json and figures.svg are in {chosen.dir}")
    return 0 if result.holds else 1


def _participant(raw: pd.DataFrame, name: str, folder: Path) -> Participant:
    table = fleet(raw, name)
    path = folder / f"{name}.parquet"
    table.to_parquet(path, index=False)
    engines = table.groupby("failed")["engine"].nunique()
    print(f"{name}: {len(table)} cycles of {engines[True]} engines that failed and {engines[False]} taken out before")
    return Participant(name, f"Engine Owner {name[-1].upper()}", path)


if __name__ == "__main__":
    raise SystemExit(main())
