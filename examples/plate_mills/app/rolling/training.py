"""Training and evaluation on one mill's rows: what the client app runs, and what a comparison runs outside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from .model import INPUTS, TARGET, RollPressure, features, force_kn, targets

UNSEEN_EVERY = 5
"""Every fifth plate is never trained on."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The learning rate falls by a cosine from ``lr`` to a twentieth of it."""

    rounds: int
    local_epochs: int
    lr: float
    batch_size: int

    def lr_of(self, round_: int) -> float:
        """Return the learning rate of a round, counted from 1."""
        progress = (round_ - 1) / max(self.rounds - 1, 1)
        return self.lr * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress)))


class Score(NamedTuple):
    """How well forces are predicted: share of passes within 10 % of the measured force, RMSE in kN, passes."""

    share: float
    rmse: float
    n: int


def read_passes(directory: Path) -> pd.DataFrame:
    """Return the rows of ``data.parquet`` that a model can use: only the columns it needs, no gaps."""
    columns = ["plate_id", *INPUTS, TARGET]
    return pd.read_parquet(directory / "data.parquet", columns=columns).dropna().reset_index(drop=True)


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (passes to train on, unseen passes), by plate: passes of one plate are too alike to be on both sides."""
    unseen = frame["plate_id"].to_numpy() % UNSEEN_EVERY == 0
    return frame[~unseen].reset_index(drop=True), frame[unseen].reset_index(drop=True)


def train(model: RollPressure, frame: pd.DataFrame, schedule: Schedule, round_: int, seed: int = 0) -> float:
    """Train for one round's local epochs, in place; return the mean loss of the last epoch.

    Mean squared error on the log pressure with Adam, whose moments start anew each round: they are this mill's own
    and stay out of the average.
    """
    x, y = torch.from_numpy(features(frame)), torch.from_numpy(targets(frame))
    optimiser = torch.optim.Adam(model.parameters(), lr=schedule.lr_of(round_), betas=(0.9, 0.98))
    shuffle = torch.Generator().manual_seed(1000 * seed + round_)
    model.train()
    loss_sum = 0.0
    for _ in range(schedule.local_epochs):
        loss_sum = 0.0
        order = torch.randperm(len(x), generator=shuffle)
        for rows in torch.split(order, schedule.batch_size):
            optimiser.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x[rows]), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            loss_sum += float(loss.detach()) * len(rows)
    return loss_sum / max(len(x), 1)


def predict(model: RollPressure, frame: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the predicted roll force in kN, one a row."""
    model.eval()
    with torch.inference_mode():
        return force_kn(model(torch.from_numpy(features(frame))).numpy(), frame)


def evaluate(model: RollPressure, frame: pd.DataFrame) -> Score:
    """Return how well the model predicts these rows."""
    measured, predicted = frame[TARGET].to_numpy(float), predict(model, frame)
    within = np.abs(predicted - measured) <= 0.10 * measured
    return Score(float(within.mean()), float(np.sqrt(np.mean((predicted - measured) ** 2))), len(frame))
