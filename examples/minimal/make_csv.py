"""Write a small CSV of made-up drive records: ``python make_csv.py PLANT-NUMBER FILE``."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path


def write(plant: int, file: Path, rows: int = 400) -> None:
    """Write ``rows`` records of a plant (each has its own range of loads), power with 3 kW of noise."""
    random.seed(plant)
    with file.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(["time", "load_t", "speed_rpm", "power_kw"])
        for row in range(rows):
            load = random.uniform(20, 80) + 10 * plant
            speed = random.uniform(40, 120)
            power = 2.5 * load + 1.2 * speed + 30 + random.gauss(0, 3)
            out.writerow(
                [f"2026-03-01T{row // 60:02d}:{row % 60:02d}:00", f"{load:.2f}", f"{speed:.1f}", f"{power:.1f}"]
            )


if __name__ == "__main__":
    write(int(sys.argv[1]), Path(sys.argv[2]))
