"""Rolling plans: which plate, of which steel, through which thicknesses. Arrays are (plates, passes)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .flow_stress import Floats
from .mills import GRADES, Mill

CHEMISTRY = ("carbon", "mn", "nb", "cr", "mo")


@dataclass(frozen=True)
class Plan:
    """What is decided before the slab leaves the furnace. Thicknesses past the last pass repeat the final one."""

    grade: list[str]
    chemistry: dict[str, Floats]
    slab: Floats
    slab_length: Floats
    width: Floats
    thickness: Floats
    passes: np.ndarray[tuple[int], np.dtype[np.int64]]
    hold_before: np.ndarray[tuple[int], np.dtype[np.int64]]
    hold_k: Floats
    discharge_k: Floats


def make_plan(mill: Mill, plates: int, rng: np.random.Generator) -> Plan:
    """Draw the order book of a mill: grade, heat, slab, target and pass schedule of each plate."""
    names = rng.choice(list(mill.mix), size=plates, p=list(mill.mix.values()))
    grades = [GRADES[name] for name in names]
    chemistry = {}
    for element in CHEMISTRY:
        nominal = np.array([getattr(grade, element) for grade in grades])
        chemistry[element] = nominal * np.clip(rng.normal(1.0, 0.06, plates), 0.8, 1.2)
    slab = rng.choice(mill.slab_mm, size=plates)
    target = np.exp(rng.uniform(np.log(mill.thickness_mm[0]), np.log(mill.thickness_mm[1]), size=plates))
    total = np.log(slab / target)
    passes = np.maximum(np.ceil(total / rng.uniform(*mill.pass_strain, size=plates)), 3).astype(np.int64)
    thickness = slab[:, None] * np.exp(-np.cumsum(_strains(total, passes, rng), axis=1))
    hold_c = np.array([np.nan if grade.hold_c is None else grade.hold_c for grade in grades])
    hold_c = hold_c + rng.normal(0.0, 15.0, plates)
    # Controlled rolling waits at two to three and a half times the final thickness, and finishes cold.
    waits = thickness <= target[:, None] * rng.uniform(2.0, 3.5, plates)[:, None]
    hold_before = np.where(np.isnan(hold_c), -1, np.argmax(waits, axis=1) + 1)
    return Plan(
        grade=[grade.name for grade in grades],
        chemistry=chemistry,
        slab=slab,
        slab_length=rng.uniform(*mill.slab_length_mm, size=plates),
        width=rng.uniform(*mill.width_mm, size=plates),
        thickness=thickness,
        passes=passes,
        hold_before=hold_before.astype(np.int64),
        hold_k=np.nan_to_num(hold_c, nan=3000.0) + 273.15,
        discharge_k=rng.uniform(*mill.discharge_c, size=plates) + 273.15,
    )


def _strains(total: Floats, passes: np.ndarray[tuple[int], np.dtype[np.int64]], rng: np.random.Generator) -> Floats:
    """Return logarithmic strains that add up to ``total``: light first passes, heavy middle ones, light flattening."""
    step = np.arange(int(passes.max()))
    position = (step[None, :] + 0.5) / passes[:, None]
    weight = (0.5 + np.sin(np.pi * np.clip(position, 0.0, 1.0))) * np.exp(rng.normal(0.0, 0.12, position.shape))
    weight = np.where(step[None, :] < passes[:, None], weight, 0.0)
    strains: Floats = total[:, None] * weight / weight.sum(axis=1, keepdims=True)
    return strains


def roll_distance(plan: Plan, campaign_km: float) -> tuple[Floats, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    """Return the km each roll set has rolled before each pass, and how many times the rolls were changed by then.

    Rolls are changed between plates, at the first plate past the campaign's length.
    """
    active = np.arange(plan.thickness.shape[1])[None, :] < plan.passes[:, None]
    length_km = np.where(active, (plan.slab_length * plan.slab)[:, None] / plan.thickness / 1e6, 0.0)
    before_plate = np.concatenate([[0.0], np.cumsum(length_km.sum(axis=1))[:-1]])
    campaign = np.floor(before_plate / campaign_km).astype(np.int64)
    first = np.searchsorted(campaign, campaign)
    start = before_plate[first]
    within = np.cumsum(length_km, axis=1) - length_km
    return (before_plate - start)[:, None] + within, np.broadcast_to(campaign[:, None], within.shape)
