"""What a mill's own owner computes on the mill's own rows: trains alone, judges models. No permit needed, but on record.

    python -m examples.plate_mills.own_figures train --home HOME --data mill_a.csv --out alone-a.safetensors
    python -m examples.plate_mills.own_figures judge --home HOME --data mill_a.csv --out a.json NAME=MODEL...

The second form prints nothing and writes, for each model, the score on this mill's unseen passes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from safetensors.numpy import save_file

from federation.home import Home
from keyong.registering import record_own_use

from .compare import evaluate, load_arrays, schedule_of, train_alone


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.plate_mills.own_figures", description=__doc__)
    parser.add_argument("what", choices=["train", "judge"])
    parser.add_argument("--home", type=Path, required=True, help="the mill's identity, whose ledger records the use")
    parser.add_argument("--data", type=Path, required=True, help="the mill's own records")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="as many as the federated training had; the app's own by default")
    parser.add_argument("models", nargs="*", metavar="NAME=MODEL", help="safetensors files to judge")
    chosen = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    record_own_use(Home(chosen.home), "passes", f"{chosen.what} for the owner")
    frame = pd.read_csv(chosen.data)
    if chosen.what == "train":
        save_file(train_alone(frame, schedule_of(chosen.rounds), chosen.seed), chosen.out)
        return 0
    scores = {}
    for pair in chosen.models:
        name, _, path = pair.partition("=")
        score = evaluate(load_arrays(Path(path)), frame)
        scores[name] = {"share": score.share, "rmse": score.rmse, "n": score.n}
    chosen.out.write_text(json.dumps(scores), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
