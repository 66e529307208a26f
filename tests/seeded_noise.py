"""Noise from a seed, for tests of what becomes of it; who draws it, and how well, is tested in tests/federation/noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from federation.noise import gaussian


@pytest.fixture
def seeded_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of the exact sampler are rounded normal ones, the same at each run: a right test never fails by chance."""
    random = np.random.default_rng(20_250_101)

    def measurement(scale: float) -> Callable[[list[int]], list[int]]:
        return lambda zeros: [round(one * scale) for one in random.normal(size=len(zeros)).tolist()]

    monkeypatch.setattr(gaussian, "_measurement", measurement)
