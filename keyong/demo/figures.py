"""The table at the end: each mill alone, federated, pooled, judged on unseen passes of all mills."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from keyong.demo.parties import DemoError, Party

MODULE = "examples.plate_mills.own_figures"


@dataclass(frozen=True)
class Row:
    """One model's figures: share within ten per cent at each mill, then over all; RMSE in kN over all."""

    model: str
    shares: tuple[float, ...]
    share: float
    rmse: float


def train_alone(mills: Sequence[Party], records: Path, models: Path, seed: int, rounds: int | None) -> None:
    """Each mill's owner trains on the mill's own rows, in a process of its own, two at a time.

    Args:
        rounds: as many as the federated training has; None for what the app says.
    """
    _each(
        mills,
        lambda mill: [
            "train",
            *_about(mill, records),
            "--out",
            str(models / f"{mill.name}.safetensors"),
            "--seed",
            str(seed),
            *as_many(rounds),
        ],
    )


def as_many(rounds: int | None) -> list[str]:
    """The arguments that give whoever is compared the same rounds as the federated training."""
    return [] if rounds is None else ["--rounds", str(rounds)]


def judge(mills: Sequence[Party], records: Path, models: dict[str, Path], folder: Path) -> list[Row]:
    """Each mill's owner judges every model on the mill's own unseen passes; the figures are joined here."""
    pairs = [f"{name}={path}" for name, path in models.items()]
    _each(mills, lambda mill: ["judge", *_about(mill, records), "--out", str(folder / f"{mill.name}.json"), *pairs])
    scores = [json.loads((folder / f"{mill.name}.json").read_text(encoding="utf-8")) for mill in mills]
    rows = []
    for name in models:
        parts = [score[name] for score in scores]
        n = sum(part["n"] for part in parts)
        rows.append(
            Row(
                name,
                tuple(part["share"] for part in parts),
                sum(part["share"] * part["n"] for part in parts) / n,
                math.sqrt(sum(part["rmse"] ** 2 * part["n"] for part in parts) / n),
            )
        )
    return rows


def _about(mill: Party, records: Path) -> list[str]:
    return ["--home", str(mill.home), "--data", str(records / f"{mill.name.replace('-', '_')}.csv")]


def _each(mills: Sequence[Party], arguments: object) -> None:
    def run(mill: Party) -> None:
        command = [sys.executable, "-m", MODULE, *arguments(mill)]  # type: ignore[operator]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError("{name}'s own figures failed: {why}", name=mill.name, why=done.stderr.strip()[-1000:])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, mills))
