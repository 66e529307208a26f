"""The upper mark: the same model trained on all mills' rows in one place, which no consortium may do.

python -m examples.plate_mills.pooled --out pooled.safetensors mill_a.csv mill_b.csv ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from safetensors.numpy import save_file

from .compare import schedule_of, train_pooled


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.plate_mills.pooled", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="as many as the federated training had; the app's own by default")
    parser.add_argument("records", nargs="+", type=Path)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    frames = [pd.read_csv(path) for path in chosen.records]
    save_file(train_pooled(frames, schedule_of(chosen.rounds), chosen.seed), chosen.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
