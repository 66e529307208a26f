"""Which value of a reply stands where in the vectors that are added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from federation.crypto import canonical_json, digest
from federation.secagg.errors import EncodingError
from federation.statements import MetricSpec, StageOutput

Array = NDArray[Any]
Arrays = Mapping[str, Mapping[str, Array]]

FLOATS = frozenset({"float16", "float32", "float64"})
INTEGERS = frozenset({"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))})

ONE, WEIGHT, SATURATED, FIRST_METRIC = 0, 1, 2, 3
"""Places in the vector of totals: the constant 1, the weight, the number of saturated values, then the metrics."""


class Reply(Protocol):
    """What is encoded: the arrays and metrics of a content (``federation.jobs.Content`` fits)."""

    @property
    def arrays(self) -> Arrays:
        """Record, name, array."""

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Record, name, scalar."""


@dataclass(frozen=True)
class Segment:
    """One array's place: elements ``start`` to ``start + size`` of its vector.

    Attributes:
        relative: encoded as the difference from what was sent; otherwise as it is.
        wide: in the vector of integers; otherwise in the vector of floats.
    """

    record: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    relative: bool
    wide: bool
    start: int

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar array, 0 where a dimension is 0."""
        return math.prod(self.shape)


def expected_arrays(sent: Arrays, output: StageOutput) -> dict[tuple[str, str], tuple[str, tuple[int, ...], bool]]:
    """The arrays a reply must hold, in order: ``(record, name) -> (dtype, shape, was sent)``.

    First those that were sent, in their order, if the schema says so; then the declared ones. No memory is taken for
    any of them.

    Raises:
        EncodingError: an array was sent whose type has no encoding, or one is both sent and declared.
    """
    expected: dict[tuple[str, str], tuple[str, tuple[int, ...], bool]] = {}
    if output.sent:
        for record, entries in sent.items():
            for name, array in entries.items():
                if array.dtype.name not in FLOATS | INTEGERS:
                    raise EncodingError(
                        "an array of type {dtype} was sent; such arrays cannot be added",
                        hint="send floating point, integer or boolean arrays",
                        dtype=array.dtype.name,
                    )
                expected[record, name] = (array.dtype.name, array.shape, True)
    for spec in output.arrays:
        if (spec.record, spec.name) in expected:
            raise EncodingError(
                "the plan declares {record}/{name} as a further array, but it is one of those that were sent",
                hint="leave it out of the output schema: what was sent is expected back anyway",
                record=spec.record,
                name=spec.name,
            )
        expected[spec.record, spec.name] = (spec.dtype, spec.shape, False)
    return expected


@dataclass(frozen=True)
class Layout:
    """The order of all values of one stage's replies, the same on both sides.

    Both derive it from the broadcast content (whose digest every node checks) and the signed plan, so it never travels.
    Three vectors: ``narrow`` holds floating point arrays in the plan's ring, ``wide`` integer and boolean arrays in
    Z_2^64, ``totals`` the constant 1, weight, saturation count and metrics in Z_2^64.
    """

    segments: tuple[Segment, ...]
    metrics: tuple[MetricSpec, ...]
    narrow_size: int
    wide_size: int

    @classmethod
    def derive(cls, sent: Arrays, output: StageOutput) -> Self:
        """The layout of replies to these arrays under this schema.

        Raises:
            EncodingError: see `expected_arrays`.
        """
        segments: list[Segment] = []
        sizes = {False: 0, True: 0}
        for (record, name), (dtype, shape, relative) in expected_arrays(sent, output).items():
            wide = dtype in INTEGERS
            segment = Segment(record, name, dtype, shape, relative, wide, sizes[wide])
            segments.append(segment)
            sizes[wide] += segment.size
        return cls(tuple(segments), output.metrics, sizes[False], sizes[True])

    @property
    def totals_size(self) -> int:
        """Length of the vector of totals."""
        return FIRST_METRIC + len(self.metrics)

    def digest(self) -> str:
        """A digest that two layouts share exactly if they place every value alike."""
        return digest(
            canonical_json(
                {
                    "segments": [[s.record, s.name, s.dtype, list(s.shape), s.relative] for s in self.segments],
                    "metrics": [metric.model_dump(mode="json") for metric in self.metrics],
                }
            )
        )


def flat(arrays: Arrays, segment: Segment) -> Array:
    """The segment's array as one C-ordered dimension; a view wherever the memory allows.

    Raises:
        EncodingError: it is absent, or of another type or shape than its place.
    """
    array = arrays.get(segment.record, {}).get(segment.name)
    if array is None or array.dtype.name != segment.dtype or array.shape != segment.shape:
        raise EncodingError(
            "{record}/{name} is missing or not a {dtype} array of shape {shape}",
            record=segment.record,
            name=segment.name,
            dtype=segment.dtype,
            shape=segment.shape,
        )
    return np.ascontiguousarray(array).reshape(-1)
