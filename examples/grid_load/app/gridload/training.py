"""Local training and evaluation: the same functions serve the client, the utility alone and the pooled comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from gridload.features import Examples, Floats
from gridload.model import DayAheadNet

MOMENTUM = 0.9
CLIP_NORM = 1.0
LEAST_RATIO = 0.2  # a load below a fifth of its week's level is a fault of the meter: not trained on, but evaluated on


@dataclass(frozen=True)
class Scores:
    """Errors over the measured hours, as fractions (0.05 is 5 %).

    Attributes:
        mape: mean absolute percentage error.
        mape_last_week: the same for the load of the same hours a week before.
        bias: mean signed percentage error.
        hours: measured hours judged.
    """

    mape: float
    mape_last_week: float
    bias: float
    hours: int


def decayed(rate: float, server_round: int, rounds: int) -> float:
    """Returns the learning rate of a round: a cosine from `rate` in round 1 to a hundredth of it in the last.

    Federated averaging stays off the pooled optimum by an amount that shrinks with the local step.
    """
    progress = (server_round - 1) / max(rounds - 1, 1)
    return rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def train(
    model: DayAheadNet,
    examples: Examples,
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    proximal_mu: float = 0.0,
) -> float:
    """Trains `model` in place on the mean absolute percentage error and returns its mean over the last epoch.

    Plain gradient steps with a fresh momentum each call, not Adam: steps that each node normalises by its own
    gradients do not average to the pooled step.

    Args:
        proximal_mu: weight of half the squared distance from the parameters at the start (FedProx).
    """
    x, base = torch.from_numpy(examples.x), torch.from_numpy(examples.base)
    target = torch.from_numpy(np.nan_to_num(examples.target, nan=0.0))
    sound = target >= LEAST_RATIO
    weight = torch.where(sound, 1.0 / target.clamp_min(LEAST_RATIO), 0.0)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=MOMENTUM, nesterov=True)
    shuffle = torch.Generator().manual_seed(seed)
    model.train()
    mean = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.split(torch.randperm(len(x), generator=shuffle), batch_size):
            error = (model(x[batch], base[batch]) - target[batch]).abs() * weight[batch]
            loss = error.sum() / sound[batch].sum().clamp_min(1)
            total += float(loss.detach()) * len(batch)
            if proximal_mu > 0.0:
                drift = [((now - then) ** 2).sum() for now, then in zip(model.parameters(), start, strict=True)]
                loss = loss + proximal_mu / 2.0 * torch.stack(drift).sum()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimiser.step()
        mean = total / len(x)
    return mean


def predict(model: DayAheadNet, examples: Examples) -> Floats:
    """Returns the forecasts over the examples' levels, shape (days, 24)."""
    model.eval()
    with torch.no_grad():
        forecast: Floats = model(torch.from_numpy(examples.x), torch.from_numpy(examples.base)).numpy()
    return forecast


def evaluate(model: DayAheadNet, examples: Examples) -> Scores:
    """Scores the model on the hours that were measured; every measured hour counts, faults of the meter included.

    Raises:
        ValueError: no hour to judge.
    """
    return score(predict(model, examples), examples)


def score(forecast: Floats, examples: Examples) -> Scores:
    """Scores forecasts over level, shape (days, 24), and the same hours a week before on the same hours."""
    judged = np.isfinite(examples.target)
    if not judged.any():
        raise ValueError("no measured hour to evaluate on")
    actual = examples.target[judged].astype(np.float64)
    relative = (forecast[judged] - actual) / actual
    naive = (examples.last_week[judged] - actual) / actual
    return Scores(
        mape=float(np.abs(relative).mean()),
        mape_last_week=float(np.abs(naive).mean()),
        bias=float(relative.mean()),
        hours=int(judged.sum()),
    )
