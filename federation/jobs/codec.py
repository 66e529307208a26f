"""Content of a message in a closed format: arrays, metrics and configs, nothing that is executed when it is read.

The header is JSON, the body the arrays' bytes in the header's order, C order and little endian, without gaps::

    {"v":1,"arrays":[["arrays",[["conv.weight","float32",[8,3]], ...]]],
           "metrics":[["metrics",[["loss",0.5],["hits",[1,2]]]]], "configs":[["config",[["lr",0.1]]]]}

Order is kept (a list of weights is ordered), one content has one encoding, and its digest is over that. A float that
JSON has no number for is ``{"f":"nan"|"inf"|"-inf"}``, bytes are ``{"b":base64}``. Whether NaN may leave a company is
not judged here but by the output gate. Standard library and numpy only, and no import of flwr: trusted processes use
this module.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _json, _values
from ._values import ConfigValue, ContentError, MetricValue, check_name
from .frames import Buffer

__all__ = [
    "DTYPES",
    "Array",
    "Content",
    "ContentError",
    "body_digest",
    "body_size",
    "content_digest",
    "decode",
    "decode_many",
    "describe",
    "encode",
    "header_bytes",
    "nested_digest",
]

DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}
MAX_RECORDS = 64
MAX_ENTRIES = 65_536  # of all records together
MAX_DIMENSIONS = 32
MAX_ELEMENTS = 2**48
_KINDS = ("arrays", "metrics", "configs")
VERSION = 1
_TAG = b"keyong/content/v1\0"
_NESTED_TAG = b"keyong/content/v2\0"

Array = NDArray[Any]
_Records = dict[str, list[tuple[str, list[Any]]]]  # kind -> (record, its entries)


@dataclass(frozen=True, eq=False)
class Content:
    """What a message carries: named records of named values, in order. A record's name is used once over all kinds."""

    arrays: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, MetricValue]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, ConfigValue]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Slot:
    record: str
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int


def describe(content: Content) -> tuple[dict[str, object], list[memoryview]]:
    """Return the header as a JSON object, to be put into a frame, and the body's buffers.

    Arrays are copied only where their layout is not the format's.

    Raises:
        ContentError: the content does not fit the format.
    """
    buffers: list[memoryview] = []
    arrays: list[object] = []
    for record, entries in content.arrays.items():
        slots: list[object] = []
        for name, array in entries.items():
            if not isinstance(array, np.ndarray) or array.dtype.name not in DTYPES:
                raise ContentError("content-dtype")
            ordered = np.asarray(array, dtype=DTYPES[array.dtype.name], order="C")
            slots.append([name, array.dtype.name, list(ordered.shape)])
            buffers.append(ordered.reshape(-1).view(np.uint8).data)
        arrays.append([record, slots])
    header: dict[str, object] = {
        "v": VERSION,
        "arrays": arrays,
        "metrics": [[r, [[n, _values.encode_metric(v)] for n, v in e.items()]] for r, e in content.metrics.items()],
        "configs": [[r, [[n, _values.encode_config(v)] for n, v in e.items()]] for r, e in content.configs.items()],
    }
    _layout(_records(header))
    return header, buffers


def encode(content: Content) -> tuple[bytes, list[memoryview]]:
    """Return (header, buffers of the body).

    Raises:
        ContentError: the content does not fit the format.
    """
    header, buffers = describe(content)
    return header_bytes(header), buffers


def header_bytes(header: object) -> bytes:
    """Return the one spelling of a header object, the bytes a digest is taken over.

    Raises:
        ContentError: it has no JSON form.
    """
    try:
        return _json.write(header)
    except (ValueError, TypeError, RecursionError):
        raise ContentError("content-header") from None


def body_size(header: object) -> int:
    """Return how many bytes the body of this header has.

    Raises:
        ContentError: it is not a header.
    """
    return sum(slot.nbytes for slot in _layout(_records(header)))


def decode(header: Buffer | Mapping[str, object], body: Buffer) -> Content:
    """Read a content; arrays are views of ``body``.

    Args:
        header: the bytes that `encode` gives, or the object that `describe` gives and a frame carries.
        body: exactly the bytes of the arrays.

    Raises:
        ContentError: anything is not exactly as `encode` would have written it.
    """
    if isinstance(header, (bytes, bytearray, memoryview)):
        raw = bytes(header)
        try:
            parsed = _json.read(raw)
        except ValueError:
            raise ContentError("content-header") from None
        if header_bytes(parsed) != raw:
            raise ContentError("content-header")
    else:
        parsed = header
    records = _records(parsed)
    slots = _layout(records)
    view = memoryview(body).cast("B")
    if sum(slot.nbytes for slot in slots) != len(view):
        raise ContentError("content-size")
    arrays: dict[str, dict[str, Array]] = {record: {} for record, _ in records["arrays"]}
    offset = 0
    for slot in slots:
        arrays[slot.record][slot.name] = _array(slot, view[offset : offset + slot.nbytes])
        offset += slot.nbytes
    metrics = _values_of(records["metrics"], _values.decode_metric)
    configs = _values_of(records["configs"], _values.decode_config)
    return Content(arrays, metrics, configs)


def decode_many(headers: Sequence[Mapping[str, object]], body: Buffer) -> list[Content]:
    """Read contents whose bodies follow each other in one frame's body, with nothing left over.

    Raises:
        ContentError: one of them does not hold, or the sizes do not add up.
    """
    view = memoryview(body).cast("B")
    contents: list[Content] = []
    offset = 0
    for header in headers:
        size = body_size(header)
        contents.append(decode(header, view[offset : offset + size]))
        offset += size
    if offset != len(view):
        raise ContentError("content-size")
    return contents


def content_digest(header: bytes, buffers: Iterable[Buffer]) -> str:
    """Return ``sha256:`` and the digest in hex of a header as `encode` gives it and its body, however that is cut."""
    digest = hashlib.sha256(_TAG + len(header).to_bytes(8, "big") + header)
    for buffer in buffers:
        digest.update(buffer)
    return "sha256:" + digest.hexdigest()


def body_digest(buffers: Iterable[Buffer]) -> str:
    """Return ``sha256:`` and the digest in hex of a body alone, however it is cut."""
    digest = hashlib.sha256()
    for buffer in buffers:
        digest.update(buffer)
    return "sha256:" + digest.hexdigest()


def nested_digest(header: bytes, body: str) -> str:
    """Return the digest of a content by its header and the digest of its body, which is then hashed once for many.

    The tag keeps it apart from `content_digest`: no content has both for one value.
    """
    raw = bytes.fromhex(body.removeprefix("sha256:"))
    if len(raw) != hashlib.sha256().digest_size:
        raise ValueError("not the digest of a body")
    return "sha256:" + hashlib.sha256(_NESTED_TAG + len(header).to_bytes(8, "big") + header + raw).hexdigest()


def _array(slot: _Slot, data: memoryview) -> Array:
    array: Array = (
        np.frombuffer(data, dtype=slot.dtype).reshape(slot.shape)
        if slot.nbytes
        else np.zeros(slot.shape, dtype=slot.dtype)
    )
    # a bool byte other than 0 and 1 is seven hidden bits, and undefined behaviour in what computes with it
    if slot.dtype == np.bool_ and slot.nbytes and int(np.frombuffer(data, dtype=np.uint8).max()) > 1:
        raise ContentError("content-bool")
    return array


def _records(header: object) -> _Records:
    """Return the records of each kind, names and counts checked."""
    if not isinstance(header, Mapping) or set(header) != {"v", *_KINDS} or not _is_version(header["v"]):
        raise ContentError("content-header")
    seen: set[str] = set()
    entries = 0
    result: _Records = {}
    for kind in _KINDS:
        records: list[tuple[str, list[Any]]] = []
        for item in _list(header[kind]):
            record, values = _pair(item)
            if check_name(record) in seen:
                raise ContentError("content-duplicate")
            seen.add(record)
            names = [check_name(entry[0]) for entry in map(_filled, _list(values))]
            if len(set(names)) != len(names):
                raise ContentError("content-duplicate")
            entries += len(names)
            records.append((record, values))
        result[kind] = records
    if len(seen) > MAX_RECORDS or entries > MAX_ENTRIES:
        raise ContentError("content-count")
    return result


def _is_version(value: object) -> bool:
    return type(value) is int and value == VERSION  # True and 1.0 are equal to 1 and spelled otherwise


def _layout(records: _Records) -> list[_Slot]:
    slots: list[_Slot] = []
    for record, entries in records["arrays"]:
        for entry in entries:
            if len(entry) != 3 or not isinstance(entry[1], str):
                raise ContentError("content-header")
            name, dtype, shape = entry
            if dtype not in DTYPES:
                raise ContentError("content-dtype")
            sizes = _list(shape)
            if len(sizes) > MAX_DIMENSIONS or any(type(size) is not int or size < 0 for size in sizes):
                raise ContentError("content-shape")
            if math.prod(size for size in sizes if size) > MAX_ELEMENTS:
                raise ContentError("content-shape")
            kind = DTYPES[dtype]
            slots.append(_Slot(record, name, kind, tuple(sizes), math.prod(sizes) * kind.itemsize))
    return slots


def _values_of(records: list[tuple[str, list[Any]]], read: Callable[[object], object]) -> dict[str, dict[str, Any]]:
    return {record: {name: read(value) for name, value in map(_pair, entries)} for record, entries in records}


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ContentError("content-header")
    return value


def _filled(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ContentError("content-header")
    return value


def _pair(value: object) -> tuple[Any, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise ContentError("content-header")
    return value[0], value[1]
