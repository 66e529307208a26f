"""What an owner looks at before an output leaves: forms, sizes, norms, metrics, and small tables whole."""

from __future__ import annotations

import math
import sys

import numpy as np
from pydantic import BaseModel, ConfigDict

from enterprise_node.output_gate import GatedReply
from federation.secagg.encoding import CHUNK, differences
from federation.secagg.layout import Arrays, Layout, Segment

SHOWN_VALUES = 1000
"""A declared array of at most so many values is shown whole: it is a table of statistics, not a model."""


_LARGEST = sys.float_info.max


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArraySummary(_Part):
    """One array: what it is called, its form, and how far it lies from what was sent (or from zero, where nothing was)."""

    record: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    sent: bool
    l2: float
    largest: float
    values: tuple[float, ...] = ()
    """All values of a small array that was not sent, in C order."""


class OutputSummary(_Part):
    """A whole output, as it passed the gate and before it is encoded."""

    arrays: tuple[ArraySummary, ...]
    metrics: dict[str, float]
    l2: float
    """Norm over all floating point arrays together: what the plan's clip bounds."""
    rows: int
    """Of the snapshot that it was computed on."""
    bytes: int
    normalised: int
    saturated: int
    leak_bits: int


def summarise(
    gated: GatedReply, sent: Arrays, layout: Layout, saturated: int, leak_bits: int, rows: int
) -> OutputSummary:
    """What the owner is shown of a reply that passed the gate; takes no memory of the reply's size."""
    buffer = np.empty(CHUNK, dtype=np.float64)
    arrays, squares = [], 0.0
    for segment in layout.segments:
        own, largest = 0.0, 0.0
        for _, values in differences(gated.content.arrays, sent, segment, buffer):
            largest = max(largest, float(np.abs(values).max(initial=0.0)))
            with np.errstate(over="ignore"):
                own = min(own + float(np.square(values, out=values).sum()), _LARGEST)
        squares += 0.0 if segment.wide else min(own, _LARGEST - squares)
        arrays.append(
            ArraySummary(
                record=segment.record,
                name=segment.name,
                dtype=segment.dtype,
                shape=segment.shape,
                sent=segment.relative,
                l2=math.sqrt(own),
                largest=largest,
                values=_values(gated, segment),
            )
        )
    given = [(name, value) for values in gated.content.metrics.values() for name, value in values.items()]
    metrics = {name: float(value) for name, value in given if not isinstance(value, list)}  # the gate let scalars pass
    return OutputSummary(
        arrays=tuple(arrays),
        metrics=metrics,
        l2=math.sqrt(squares),
        rows=rows,
        bytes=gated.bytes,
        normalised=gated.normalised,
        saturated=saturated,
        leak_bits=leak_bits,
    )


def _values(gated: GatedReply, segment: Segment) -> tuple[float, ...]:
    if segment.relative or segment.size > SHOWN_VALUES:
        return ()
    return tuple(float(value) for value in gated.content.arrays[segment.record][segment.name].reshape(-1))
