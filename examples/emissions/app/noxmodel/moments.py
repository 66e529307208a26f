"""Second moments of features and target: all that a ridge regression needs, and they add up over plants.

The model on the sum of all plants' moments *is* the model on all plants' rows; nothing is lost by never pooling them.
"""

from __future__ import annotations

import numpy as np

from noxmodel.features import TARGET_RANGE, Doubles, Hours, expand


def size(count: int) -> int:
    """How many numbers the packed moments of `count` cosines are."""
    width = count + 11  # the cosines, nine inputs, a constant and the target
    return width * (width + 1) // 2


def moments(hours: Hours, rows: int, count: int, width: float, seed: int) -> Doubles:
    """Returns the upper triangle of Z'Z / rows, where Z is the expanded inputs with the target as last column.

    Args:
        rows: of the whole table. The mean that a job takes is weighted by it, so the weighted mean is the pooled Z'Z
            over the pooled rows to the last bit, whatever share of its rows a plant fits on.
    """
    z = np.column_stack([expand(hours.x, count, width, seed), hours.y])
    both = z.T @ z / rows
    packed: Doubles = both[np.triu_indices(len(both))]
    return packed


def solve(packed: Doubles, penalty: float) -> Doubles:
    """Returns the ridge regression's coefficients from packed moments."""
    width = int((np.sqrt(8.0 * len(packed) + 1.0) - 1.0) / 2.0)
    both = np.zeros((width, width))
    both[np.triu_indices(width)] = packed
    both = both + np.triu(both, 1).T
    found: Doubles = np.linalg.solve(both[:-1, :-1] + penalty * np.eye(width - 1), both[:-1, -1])
    return found


def squared_error(coefficients: Doubles, hours: Hours, width: float, seed: int) -> float:
    """Returns the mean squared error over the hours, in (mg/m3)^2."""
    predicted = expand(hours.x, len(coefficients) - 10, width, seed) @ coefficients
    return float(np.mean((predicted - hours.y) ** 2)) * TARGET_RANGE**2
