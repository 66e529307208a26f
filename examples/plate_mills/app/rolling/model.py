"""Inputs, target and network. Everything here is a constant of physics or of choice: no mill's statistics enter.

The network learns the logarithm of the mean roll pressure p = F / (w L), with the contact length L = sqrt(R (h0 - h1)).
Width and contact length are divided out because force is proportional to them; what remains is steel and geometry.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

Floats = npt.NDArray[np.float32]

INPUTS = (
    "entry_thickness_mm",
    "exit_thickness_mm",
    "slab_thickness_mm",
    "width_mm",
    "temperature_c",
    "roll_speed_m_s",
    "roll_radius_mm",
    "roll_km_since_change",
    "interpass_time_s",
    "previous_reduction",
    "carbon_pct",
    "mn_pct",
    "nb_pct",
    "cr_pct",
    "mo_pct",
)
TARGET = "roll_force_kn"

LOG_PRESSURE_CENTRE = 5.0
LOG_PRESSURE_SCALE = 0.4
"""exp(5.0) = 148 MPa, a usual roll pressure in hot rolling; a scale of 0.4 spans 100 to 220 MPa."""

WIDTH_OF_LAYERS = 48


def contact_area_mm2(frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return width times contact length of the unloaded roll, one value a pass."""
    draft = frame["entry_thickness_mm"].to_numpy(float) - frame["exit_thickness_mm"].to_numpy(float)
    area: npt.NDArray[np.float64] = frame["width_mm"].to_numpy(float) * np.sqrt(
        frame["roll_radius_mm"].to_numpy(float) * np.maximum(draft, 0.01)
    )
    return area


def features(frame: pd.DataFrame) -> Floats:
    """Return the network's inputs, shape (passes, FEATURES), each about -2 to 2 by fixed centres and scales."""
    column = {name: frame[name].to_numpy(float) for name in INPUTS}
    entry, exit_ = column["entry_thickness_mm"], column["exit_thickness_mm"]
    draft = np.maximum(entry - exit_, 0.01)
    strain = np.log(entry / (entry - draft))
    length = np.sqrt(column["roll_radius_mm"] * draft)
    rate = 1000.0 * column["roll_speed_m_s"] / length * strain
    previous = -np.log1p(-column["previous_reduction"])
    kelvin = column["temperature_c"] + 273.15
    table = (
        (np.log(strain), -2.0, 0.5),
        (np.log(rate), 1.5, 0.8),
        (1000.0 / kelvin, 0.78, 0.06),
        (np.log(2.0 * length / (entry + exit_)), 0.3, 0.8),
        (np.log(entry), 4.2, 0.8),
        (np.log(column["slab_thickness_mm"] / entry), 1.0, 0.8),
        (previous, 0.15, 0.08),
        (np.log(column["interpass_time_s"]), 2.5, 0.8),
        (column["roll_radius_mm"], 510.0, 50.0),
        (np.log1p(column["roll_km_since_change"] / 10.0), 0.8, 0.4),
        (np.log(column["width_mm"]), 7.8, 0.3),
        (column["carbon_pct"], 0.2, 0.2),
        (np.log(column["carbon_pct"] + 0.01), -1.8, 0.7),
        (column["mn_pct"], 1.1, 0.4),
        (column["nb_pct"], 0.02, 0.02),
        (column["cr_pct"], 0.3, 0.4),
        (column["mo_pct"], 0.15, 0.2),
        # Molybdenum strengthens steeply from nothing and then little more.
        (np.sqrt(column["mo_pct"]), 0.25, 0.3),
    )
    return np.stack([(value - centre) / scale for value, centre, scale in table], axis=1).astype(np.float32)


FEATURES = 18


def targets(frame: pd.DataFrame) -> Floats:
    """Return the scaled logarithm of the mean roll pressure, shape (passes,)."""
    pressure = 1000.0 * frame[TARGET].to_numpy(float) / contact_area_mm2(frame)
    scaled: Floats = ((np.log(pressure) - LOG_PRESSURE_CENTRE) / LOG_PRESSURE_SCALE).astype(np.float32)
    return scaled


def force_kn(output: npt.NDArray[np.floating], frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the force in kN that a network output stands for."""
    pressure = np.exp(output.astype(np.float64) * LOG_PRESSURE_SCALE + LOG_PRESSURE_CENTRE)
    force: npt.NDArray[np.float64] = pressure * contact_area_mm2(frame) / 1000.0
    return force


class RollPressure(torch.nn.Module):
    """Two hidden layers of 48, 3,313 parameters; no running statistics, so averaging weights is all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, WIDTH_OF_LAYERS),
            torch.nn.SiLU(),
            torch.nn.Linear(WIDTH_OF_LAYERS, WIDTH_OF_LAYERS),
            torch.nn.SiLU(),
            torch.nn.Linear(WIDTH_OF_LAYERS, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled log pressure, shape (passes,)."""
        out: torch.Tensor = self.layers(x)
        return out.squeeze(1)


def new_model(seed: int) -> RollPressure:
    """Return the network every party starts from: same seed, same weights."""
    torch.manual_seed(seed)
    return RollPressure()
