"""The one door by which a job's result leaves: exactly what the plan declared, in values that hide nothing easily.

What passes is rebuilt from the schema, never copied from the reply: names and order of records and arrays are the
schema's, since both could spell a message. A refusal names what the schema expected, never what the job wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from federation.errors import DeniedError
from federation.jobs import Content
from federation.secagg import expected_arrays
from federation.statements import MetricSpec, StageOutput

METRICS_RECORD = "metrics"
"""The record all metrics leave in, whatever the job called its own."""
METRIC_BYTES = 8

RefusalCode = Literal[
    "output-config",
    "output-dtype",
    "output-extra-array",
    "output-extra-metric",
    "output-metric-range",
    "output-metric-type",
    "output-missing-array",
    "output-missing-metric",
    "output-not-finite",
    "output-shape",
    "output-too-large",
]

_CHUNK = 1 << 16
_FLOAT_BITS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    # the unsigned type of the same width, the bits of the smallest normal number, the bits of infinity (IEEE 754)
    "float16": (np.uint16, 0x0400, 0x7C00),
    "float32": (np.uint32, 0x0080_0000, 0x7F80_0000),
    "float64": (np.uint64, 0x0010_0000_0000_0000, 0x7FF0_0000_0000_0000),
}


class OutputRefusedError(DeniedError):
    """A reply is not what its plan declared; nothing of it leaves. ``code`` is one of a closed enumeration."""

    def __init__(self, template: str, *, code: RefusalCode, hint: str = "", **params: object) -> None:
        super().__init__(template, hint=hint, code=code, **params)


@dataclass(frozen=True, eq=False)
class GatedReply:
    """A reply that may go on to protection.

    Attributes:
        content: rebuilt from the schema; shares memory with the reply where no value was changed.
        normalised: how many negative zeros, subnormals and ill-formed truth values were set to plain ones.
        bytes: size of all arrays and metrics.
    """

    content: Content
    normalised: int
    bytes: int


def check_reply(content: Content, sent: Content, output: StageOutput, maximal_bytes: int) -> GatedReply:
    """Pass a reply that is exactly what the plan's schema declares, or refuse it whole.

    Sizes are judged before any value is read, and nothing is allocated for what a schema or a reply merely claims.

    Args:
        content: what the job returned.
        sent: the broadcast content it answers.
        output: the schema of this stage.
        maximal_bytes: the plan's bound on arrays and metrics together.

    Raises:
        OutputRefusedError: with the code of the first rule that does not hold.
    """
    if any(content.configs.values()):
        raise OutputRefusedError(
            "the job's reply holds a config record; only arrays and metrics may leave",
            code="output-config",
            hint="return numbers as metrics named in the plan",
        )
    expected = expected_arrays(sent.arrays, output)
    found = {(record, name): array for record, entries in content.arrays.items() for name, array in entries.items()}
    for (record, name), (dtype, shape, was_sent) in expected.items():
        _check_form(found.get((record, name)), record, name, dtype, shape, widens=was_sent)
    if len(found) > len(expected):
        raise OutputRefusedError(
            "the job's reply holds {count} arrays; the plan declares {expected}",
            code="output-extra-array",
            count=len(found),
            expected=len(expected),
        )
    metrics = _metrics(content, output)
    size = sum(found[place].size * np.dtype(dtype).itemsize for place, (dtype, _, _) in expected.items())
    size += METRIC_BYTES * len(metrics)
    if size > maximal_bytes:
        raise OutputRefusedError(
            "the job's reply has {size} bytes; the plan allows {limit}",
            code="output-too-large",
            size=size,
            limit=maximal_bytes,
        )
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    normalised = 0
    for (record, name), (dtype, _, _) in expected.items():
        with np.errstate(over="ignore"):  # beyond the type's range it is infinite, and refused
            plain = found[record, name].astype(dtype, copy=False)  # what went out as longer fractions: _check_form
        clean, count = _normalise(plain, record, name)
        arrays.setdefault(record, {})[name] = clean
        normalised += count
    for name, value in metrics.items():
        metrics[name], count = _normal_number(value)
        normalised += count
    gated = Content(arrays=arrays, metrics={METRICS_RECORD: metrics} if metrics else {})
    return GatedReply(gated, normalised, size)


def _check_form(
    array: NDArray[Any] | None, record: str, name: str, dtype: str, shape: tuple[int, ...], *, widens: bool
) -> None:
    """Raise unless an array is of the form that the schema gives it.

    Args:
        widens: integers and shorter fractions are taken where fractions were sent. Adaptive strategies make long
            fractions of all they step, batch normalisation's counter too; the model that loads them answers in its own.
    """
    place = {"record": record, "name": name}
    if array is None:
        raise OutputRefusedError(
            "the job's reply lacks the array {record}/{name}", code="output-missing-array", **place
        )
    wanted = np.dtype(dtype)
    narrower = array.dtype.kind in "iu" or (array.dtype.kind == "f" and array.dtype.itemsize < wanted.itemsize)
    if array.dtype != wanted and not (widens and wanted.kind == "f" and narrower):
        raise OutputRefusedError(
            "the array {record}/{name} of the job's reply is not of type {dtype}",
            code="output-dtype",
            dtype=dtype,
            **place,
        )
    if array.shape != shape:
        raise OutputRefusedError(
            "the array {record}/{name} of the job's reply is not of shape {shape}",
            code="output-shape",
            shape=shape,
            **place,
        )


def _metrics(content: Content, output: StageOutput) -> dict[str, int | float]:
    """The declared metrics in the schema's order, each one scalar within its range."""
    given = [(name, value) for entries in content.metrics.values() for name, value in entries.items()]
    values = dict(given)
    declared = {metric.name for metric in output.metrics}
    if len(given) != len(values) or not values.keys() <= declared:
        raise OutputRefusedError(
            "the job's reply holds a metric that the plan does not name, or one twice",
            code="output-extra-metric",
            hint="name every metric in the plan's output schema, with its range",
        )
    return {metric.name: _in_range(metric, values) for metric in output.metrics}


def _in_range(metric: MetricSpec, values: Mapping[str, object]) -> int | float:
    if metric.name not in values:
        raise OutputRefusedError(
            "the job's reply lacks the metric {name}", code="output-missing-metric", name=metric.name
        )
    value = values[metric.name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OutputRefusedError(
            "the metric {name} of the job's reply is not a single number", code="output-metric-type", name=metric.name
        )
    value = int(value) if isinstance(value, int) else float(value)  # numpy's float64 is a float, and leaves as one
    if isinstance(value, float) and not math.isfinite(value):
        raise OutputRefusedError(
            "the metric {name} of the job's reply is not finite", code="output-not-finite", name=metric.name
        )
    if not Fraction(metric.minimum) <= Fraction(value) <= Fraction(metric.maximum):
        raise OutputRefusedError(
            "the metric {name} of the job's reply lies outside {minimum} to {maximum}",
            code="output-metric-range",
            hint="declare the range the metric can take in the plan's output schema",
            name=metric.name,
            minimum=metric.minimum,
            maximum=metric.maximum,
        )
    return value


def _normalise(array: NDArray[Any], record: str, name: str) -> tuple[NDArray[Any], int]:
    """The array in C order with plain values only, and how many were changed; it is copied only if one was."""
    ordered = np.ascontiguousarray(array).reshape(array.shape)
    plain = ordered.reshape(-1)
    if array.dtype == np.bool_:
        return _normalise_truth(ordered)
    if array.dtype.name not in _FLOAT_BITS:
        return ordered, 0
    kind, smallest, infinity = _FLOAT_BITS[array.dtype.name]
    bits = plain.view(kind)
    magnitude_mask = kind((1 << (8 * array.itemsize - 1)) - 1)
    magnitude = np.empty(min(_CHUNK, plain.size), dtype=kind)
    count = 0
    for start in range(0, plain.size, _CHUNK):
        part = bits[start : start + _CHUNK]
        rest = np.bitwise_and(part, magnitude_mask, out=magnitude[: part.size])
        if int(rest.max()) >= infinity:
            raise OutputRefusedError(
                "the array {record}/{name} of the job's reply holds a value that is not finite",
                code="output-not-finite",
                hint="check that the training converges; NaN and infinity never leave",
                record=record,
                name=name,
            )
        if int(rest.min()) >= smallest:
            continue
        odd = (rest < smallest) & (part != 0)
        changed = int(np.count_nonzero(odd))
        if changed:
            if not count:  # the first: from here on work on a copy, what the job handed over may be read-only
                ordered = ordered.copy()
                bits = ordered.reshape(-1).view(kind)
            bits[start : start + _CHUNK][odd] = 0
            count += changed
    return ordered, count


def _normalise_truth(array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Truth values whose byte is 0 or 1; any other byte would be read as true and carry seven hidden bits."""
    odd = array.view(np.uint8) > 1
    count = int(np.count_nonzero(odd))
    if not count:
        return array, 0
    clean = array.copy()
    clean.view(np.uint8)[odd] = 1
    return clean, count


def _normal_number(value: int | float) -> tuple[int | float, int]:
    if isinstance(value, float) and abs(value) < np.finfo(np.float64).tiny:
        return 0.0, int(value != 0 or math.copysign(1, value) < 0)
    return value, 0
