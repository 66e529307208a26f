"""Make the pass records of one simulated plate mill.

    python -m examples.plate_mills.simulate --mill a --seed 1 --out DIR

The records are SIMULATED: physics of the open literature (``flow_stress``, ``roll_gap``, ``thermal``) plus invented
mills (``mills``). The same mill and seed give the same records, bit for bit, on one machine with one numpy version.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from . import flow_stress, roll_gap, thermal
from .flow_stress import Floats
from .mills import MILLS, Mill
from .schedule import CHEMISTRY, Plan, make_plan, roll_distance

Records = dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]

DESCRIPTIONS = {
    "plate_id": "number of the plate, rising with time",
    "pass_no": "number of the pass on this plate, from 1",
    "time": "start of the pass, UTC",
    "grade": "grade family",
    "carbon_pct": "carbon of the heat, mass %",
    "mn_pct": "manganese, mass %",
    "nb_pct": "niobium, mass %",
    "cr_pct": "chromium, mass %",
    "mo_pct": "molybdenum, mass %",
    "slab_thickness_mm": "thickness of the slab",
    "entry_thickness_mm": "thickness before the pass",
    "exit_thickness_mm": "thickness after the pass",
    "width_mm": "width in the roll gap",
    "temperature_c": "surface temperature before the pass, by pyrometer",
    "roll_speed_m_s": "circumferential speed of the work rolls",
    "roll_radius_mm": "radius of the work rolls as ground",
    "roll_km_since_change": "length rolled since the last roll change, km",
    "interpass_time_s": "time since the end of the previous pass",
    "previous_reduction": "reduction of the previous pass, 0 for the first",
    "roll_force_kn": "roll force, by load cells",
}
START = np.datetime64("2025-03-01T06:00:00", "ms")
PLATE_SCATTER = 0.02
"""Relative standard deviation of what no instrument records: segregation, furnace skid marks, scale."""


def simulate_mill(code: str, seed: int, plates: int | None = None) -> Records:
    """Return all pass records of a mill as columns of one length, in order of time.

    Args:
        code: ``a`` to ``d``.
        seed: same seed, same records; mills differ under one seed.
        plates: how many plates; the mill's own number if None (20,000 to 26,000 passes).

    Raises:
        KeyError: no such mill.
    """
    mill = MILLS[code]
    rng = np.random.default_rng([seed, ord(code)])
    plan = make_plan(mill, mill.plates if plates is None else plates, rng)
    return _measure(mill, plan, _roll(mill, plan, rng), rng)


def _roll(mill: Mill, plan: Plan, rng: np.random.Generator) -> dict[str, Floats]:
    """Roll all plates at once, pass by pass; the truth that instruments then see. Arrays are (plates, passes)."""
    count, longest = len(plan.passes), int(plan.passes.max())
    km, campaign = roll_distance(plan, mill.campaign_km)
    radius = rng.uniform(*mill.radius_mm, size=int(campaign.max()) + 1)[campaign]
    truth = {name: np.zeros((count, longest)) for name in ("entry", "kelvin", "speed", "wait", "force", "reduction")}
    truth |= {"exit": plan.thickness, "radius": radius, "km": km}
    chem = plan.chemistry
    alloy = flow_stress.alloying_factor(chem["mn"], chem["nb"], chem["cr"], chem["mo"])
    scatter = np.exp(rng.normal(0.0, PLATE_SCATTER, count))
    kelvin, entry = plan.discharge_k, plan.slab
    retained, strain, grain = np.zeros(count), np.full(count, 0.1), np.exp(rng.normal(np.log(180.0), 0.15, count))
    for i in range(longest):
        # The first wait is the way from the furnace; a plate that is through keeps a harmless dummy pass.
        exit_ = np.where(i < plan.passes, plan.thickness[:, i], entry * 0.9)
        wait: Floats = rng.uniform(*mill.reversing_s, size=count) * (3.0 if i == 0 else 1.0)
        hold = thermal.seconds_to_cool(kelvin, plan.hold_k, entry)
        wait = np.where(plan.hold_before == i, np.maximum(wait, hold), wait)
        half = flow_stress.half_softening_time(chem["nb"], retained + strain, grain, kelvin)
        fraction = flow_stress.recrystallised(wait, half) if i else np.ones(count)
        if i:
            grain = flow_stress.next_grain(grain, retained + strain, kelvin, fraction)
        kelvin = thermal.after_radiation(kelvin, entry, wait)
        retained = (1.0 - fraction) * (retained + strain)
        speed = _speed(mill, plan, i, rng)
        draft, mean = entry - exit_, (entry + exit_) / 2.0
        strain = roll_gap.PLANE_STRAIN * np.log(entry / exit_)
        length = roll_gap.contact_length(radius[:, i], draft)
        rate = roll_gap.strain_rate(speed * 1000.0, length, entry, exit_)
        stress = alloy * scatter * flow_stress.base_stress(chem["carbon"], kelvin)
        stress = stress * flow_stress.mean_hardening(chem["carbon"], retained, strain)
        stress = stress * (rate / 10.0) ** flow_stress.rate_exponent(chem["carbon"], kelvin)
        mu = roll_gap.friction(kelvin - 273.15, np.full(count, mill.roll_finish), km[:, i])
        force, flat = roll_gap.roll_force(stress, radius[:, i], entry, exit_, plan.width, mu)
        for name, value in (("entry", entry), ("kelvin", kelvin), ("speed", speed), ("wait", wait), ("force", force)):
            truth[name][:, i] = value
        truth["reduction"][:, i] = draft / entry
        arc = roll_gap.contact_length(flat, draft)
        kelvin = thermal.after_pass(
            kelvin, mean, np.log(entry / exit_), force / (plan.width * arc), arc / (speed * 1000.0)
        )
        entry = exit_
    return truth


def _speed(mill: Mill, plan: Plan, i: int, rng: np.random.Generator) -> Floats:
    """Return roll speeds in m/s: slow on the thick slab, fast on the long thin plate."""
    low, high = mill.speed_m_s
    speed: Floats = low + (high - low) * np.clip((i + 1) / plan.passes, 0.0, 1.0)
    return speed * np.exp(rng.normal(0.0, 0.08, len(plan.passes)))


def _measure(mill: Mill, plan: Plan, truth: dict[str, Floats], rng: np.random.Generator) -> Records:
    """Return what the plant's instruments wrote down: bias, noise and rounding included."""
    shape = plan.thickness.shape
    active = np.arange(shape[1])[None, :] < plan.passes[:, None]
    plate, number = np.nonzero(active)
    true = {name: values[active] for name, values in truth.items()}
    size = plate.size
    previous = np.concatenate([np.zeros((shape[0], 1)), truth["reduction"][:, :-1]], axis=1)[active]
    surface = thermal.surface_temperature(true["kelvin"], true["entry"]) - 273.15
    rolling_s = plan.slab_length[plate] * plan.slab[plate] / true["exit"] / (true["speed"] * 1000.0)
    # Plates leave the furnace one after the other: a pass starts after all that was rolled and waited for before it.
    elapsed = np.cumsum(true["wait"] + np.concatenate([[0.0], rolling_s[:-1]])) + 60.0 * plate
    # One gauge reading serves as exit of one pass and as entry of the next.
    gauge = truth["exit"] + rng.normal(0.0, 0.03, shape)
    entry = np.concatenate([plan.slab[:, None], gauge[:, :-1]], axis=1)[active]
    exit_ = np.minimum(gauge[active], entry - 0.05)
    columns: Records = {
        "plate_id": plate.astype(np.int64) + 1,
        "pass_no": number.astype(np.int64) + 1,
        "time": START + (elapsed * 1000.0).astype("timedelta64[ms]"),
        "grade": np.array(plan.grade)[plate],
    }
    columns |= {f"{element}_pct": np.round(plan.chemistry[element][plate], 4) for element in CHEMISTRY}
    return columns | {
        "slab_thickness_mm": plan.slab[plate],
        "entry_thickness_mm": np.round(entry, 3),
        "exit_thickness_mm": np.round(exit_, 3),
        "width_mm": np.round(plan.width[plate] + rng.normal(0.0, 3.0, size), 0),
        "temperature_c": np.round(surface + mill.pyrometer_bias_c + rng.normal(0.0, mill.pyrometer_noise_c, size), 1),
        "roll_speed_m_s": np.round(true["speed"], 3),
        "roll_radius_mm": np.round(true["radius"], 2),
        "roll_km_since_change": np.round(true["km"], 3),
        "interpass_time_s": np.round(true["wait"], 1),
        "previous_reduction": np.round(previous, 4),
        "roll_force_kn": np.round(
            true["force"] / 1000.0 * mill.load_cell_gain * (1.0 + rng.normal(0.0, mill.load_cell_noise, size)), 1
        ),
    }


def write(records: Records, path: Path) -> None:
    """Write records as parquet or CSV, by the suffix of the path; parquet metadata say that they are simulated."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import csv, parquet

    table = pa.table({name: pa.array(values) for name, values in records.items()})
    if path.suffix == ".csv":
        csv.write_csv(table, path)
        return
    parquet.write_table(table.replace_schema_metadata({"origin": "simulated: examples/plate_mills"}), path)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; narration on stderr, the written path on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plate_mills.simulate", description="Make simulated pass records of one plate mill."
    )
    parser.add_argument("--mill", required=True, choices=sorted(MILLS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="directory, made if missing")
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    records = simulate_mill(chosen.mill, chosen.seed)
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"mill_{chosen.mill}.{chosen.format}"
    write(records, path)
    rows, plates = records["plate_id"].size, int(records["plate_id"].max().item())
    sys.stderr.write(
        f"simulated records of mill {chosen.mill}, seed {chosen.seed}: {rows} passes of {plates} plates "
        f"in {time.perf_counter() - began:.1f} s\n"
    )
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
