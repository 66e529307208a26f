"""Drawing discrete Gaussian noise: OpenDP's sampler for short vectors, tables and an AES keystream for long ones.

>>> from fractions import Fraction
>>> noise = discrete_gaussian(1000, Fraction(100))
>>> noise.dtype.name, abs(float(noise.mean())) < 3
('int64', True)
"""

from federation.noise.gaussian import LARGEST_VARIANCE, TABLE_FROM, discrete_gaussian
from federation.noise.table import TABLE_DISTANCE, Keystream, table_gaussian

__all__ = ["LARGEST_VARIANCE", "TABLE_DISTANCE", "TABLE_FROM", "Keystream", "discrete_gaussian", "table_gaussian"]
