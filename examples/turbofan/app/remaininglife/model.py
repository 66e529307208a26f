"""The network that travels, and how it is trained and judged: the same for a fleet alone, a job and pooled windows."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from remaininglife.windows import CAP, INPUTS, Examples

HIDDEN = 64
MOMENTUM = 0.9
CLIP_NORM = 1.0


class LifeNet(nn.Module):
    """Maps features of a window to cycles left over half the cap, less one: between -1 and 1."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(INPUTS, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns shape (n,)."""
        out: torch.Tensor = self.layers(x)[:, 0]
        return out


def decayed(rate: float, server_round: int, rounds: int) -> float:
    """Returns the learning rate of a round: a cosine from `rate` in round 1 to a hundredth of it in the last."""
    progress = (server_round - 1) / max(rounds - 1, 1)
    return rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def train(
    model: LifeNet, examples: Examples, *, learning_rate: float, epochs: int, batch_size: int, seed: int
) -> float:
    """Trains `model` in place with plain gradient steps; returns its mean squared error in cycles^2 over the last epoch."""
    x, target = torch.from_numpy(examples.x), torch.from_numpy(examples.life / (CAP / 2.0) - 1.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=MOMENTUM, nesterov=True)
    shuffle = torch.Generator().manual_seed(seed)
    model.train()
    mean = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.split(torch.randperm(len(x), generator=shuffle), batch_size):
            loss = ((model(x[batch]) - target[batch]) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimiser.step()
            total += float(loss.detach()) * len(batch)
        mean = total / len(x)
    return mean * (CAP / 2.0) ** 2


def squared_error(model: LifeNet, examples: Examples) -> float:
    """Returns the mean squared error in cycles^2, predictions kept between 0 and the cap."""
    model.eval()
    with torch.no_grad():
        life = (model(torch.from_numpy(examples.x)).clamp(-1.0, 1.0).numpy() + 1.0) * (CAP / 2.0)
    return float(np.mean((life - examples.life) ** 2))
