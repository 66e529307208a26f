"""The network that travels: a linear map and a small perceptron that correct a base forecast."""

from __future__ import annotations

import torch
from torch import nn

from gridload.features import CALENDAR_INPUTS, CURVE_LAGS, HOURS, MEAN_LAGS, SPREAD

INPUTS = HOURS * len(CURVE_LAGS) + len(MEAN_LAGS) + 1 + CALENDAR_INPUTS + HOURS
HIDDEN = 64


class DayAheadNet(nn.Module):
    """Predicts a day's 24 loads over their level as base + linear(x) + perceptron(x), starting at the base itself.

    No batch normalisation: its statistics would be averaged across utilities and would describe none of them.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(HIDDEN, HOURS)
            self.linear = nn.Linear(INPUTS, HOURS)
            self.perceptron = nn.Sequential(
                nn.Linear(INPUTS, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), last
            )
        for layer in (self.linear, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """Returns loads over their level, shape (days, 24)."""
        correction: torch.Tensor = self.linear(x) + self.perceptron(x)
        return base + correction / SPREAD
