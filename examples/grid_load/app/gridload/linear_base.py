"""The utility's own linear forecast: fitted inside the job on the node's own past, never sent.

The network that travels corrects this base, so it need not hold seven utilities' linear habits at once: averaging the
updates of nodes that disagree about those costs accuracy, averaging what they have in common does not.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd

from gridload.features import SPREAD, Doubles, Examples, Floats

RIDGE = 10.0  # penalty on inputs of about unit size; chosen on 2016
FOLDS = 5
CLIP = 0.5  # a day half off the week's level is a fault of the meter, not a pattern


def with_linear_base(examples: Examples, train_before: date) -> Examples:
    """Returns the examples with base = ridge forecast, and that forecast among the inputs.

    Days from `train_before` on get the ridge fitted on all days before it. A training day gets one fitted without its
    own block of time (`FOLDS` contiguous blocks), so that the network trains on errors like those it will meet.

    Raises:
        ValueError: too few complete days to fit on.
    """
    past = np.asarray(examples.days < pd.Timestamp(train_before))
    wanted = np.asarray(examples.target - examples.base, dtype=np.float64)
    complete = past & np.isfinite(wanted).all(axis=1)
    if complete.sum() < FOLDS:
        raise ValueError("too few complete days before the first day that is not trained on")
    wanted = np.clip(wanted, -CLIP, CLIP)
    correction = np.empty_like(wanted)
    correction[~past] = _apply(_fit(examples.x[complete], wanted[complete]), examples.x[~past])
    for block in np.array_split(np.flatnonzero(past), FOLDS):
        others = complete.copy()
        others[block] = False
        correction[block] = _apply(_fit(examples.x[others], wanted[others]), examples.x[block])
    base = (examples.base + correction).astype(np.float32)
    return replace(examples, x=np.concatenate([examples.x, (base - 1.0) * np.float32(SPREAD)], axis=1), base=base)


def _fit(x: Floats, y: Doubles) -> Doubles:
    inputs = _with_constant(x)
    penalty = np.full(inputs.shape[1], RIDGE)
    penalty[-1] = 1e-6  # the constant is free; not exactly zero, so that the system is never singular
    coefficients: Doubles = np.linalg.solve(inputs.T @ inputs + np.diag(penalty), inputs.T @ y).astype(np.float64)
    return coefficients


def _apply(coefficients: Doubles, x: Floats) -> Doubles:
    product: Doubles = _with_constant(x) @ coefficients
    return product


def _with_constant(x: Floats) -> Doubles:
    return np.column_stack([x.astype(np.float64), np.ones(len(x))])
