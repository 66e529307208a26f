"""Predict the roll force of one pass with a trained model.

    python -m examples.plate_mills.predict model.safetensors --entry-thickness-mm 30 --exit-thickness-mm 24 ...

Every input is an option named like its column; what is left out takes the value shown by ``--help``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from .app.rolling import training
from .app.rolling.model import INPUTS
from .compare import load_arrays, to_model
from .simulate import DESCRIPTIONS

TYPICAL = {
    "entry_thickness_mm": 30.0,
    "exit_thickness_mm": 25.0,
    "slab_thickness_mm": 220.0,
    "width_mm": 2400.0,
    "temperature_c": 1020.0,
    "roll_speed_m_s": 3.5,
    "roll_radius_mm": 510.0,
    "roll_km_since_change": 10.0,
    "interpass_time_s": 9.0,
    "previous_reduction": 0.17,
    "carbon_pct": 0.16,
    "mn_pct": 1.35,
    "nb_pct": 0.018,
    "cr_pct": 0.0,
    "mo_pct": 0.0,
}
"""A late pass on structural steel, the one steel that every mill rolls."""


def predict_force(model: Path, inputs: dict[str, float]) -> float:
    """Return the predicted roll force in kN of one pass.

    Args:
        model: safetensors file.
        inputs: column name to value; missing ones are taken from ``TYPICAL``.

    Raises:
        ValueError: unknown column, or a pass that does not reduce the plate.
    """
    unknown = set(inputs) - set(INPUTS)
    if unknown:
        raise ValueError(f"no such input: {', '.join(sorted(unknown))}")
    row = TYPICAL | inputs
    if not 0.0 < row["exit_thickness_mm"] < row["entry_thickness_mm"]:
        raise ValueError("the exit thickness must be positive and below the entry thickness")
    return float(training.predict(to_model(load_arrays(model)), pd.DataFrame([row]))[0])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the force in kN on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plate_mills.predict", description="Roll force of one pass, in kN."
    )
    parser.add_argument("model", type=Path, help="model as safetensors")
    for name in INPUTS:
        text = f"{DESCRIPTIONS[name].replace('%', '%%')} (default {TYPICAL[name]:g})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=TYPICAL[name], help=text)
    chosen = vars(parser.parse_args(arguments))
    model = chosen.pop("model")
    try:
        force = predict_force(model, chosen)
    except (OSError, ValueError, RuntimeError) as error:
        parser.error(f"cannot predict: {error}".splitlines()[0])
    sys.stdout.write(f"{force:.0f}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
