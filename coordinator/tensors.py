"""Arrays under the names that a result has for them, and the head of a safetensors file that holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, Mapping[str, NDArray[Any]]]

_DTYPES = {
    "bool": "BOOL",
    **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
}
_RESERVED = "__metadata__"
_ALIGNMENT = 8


def named(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """All arrays in order, as the app named them; with the record's name before where there are several records."""
    return {
        name if len(arrays) == 1 else f"{_escaped(record)}/{name}": array
        for record, entries in arrays.items()
        for name, array in entries.items()
    }


def safetensors_head(arrays: Arrays) -> bytes | None:
    """What goes before the arrays' bytes, in order and without gaps, to make a safetensors file of them.

    Returns:
        None where the format has no such name.
    """
    tensors = named(arrays)
    if _RESERVED in tensors:
        return None
    header: dict[str, object] = {}
    at = 0
    for name, array in tensors.items():
        end = at + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _escaped(record: str) -> str:
    # "a/b" with "c" and "a" with "b/c" are two tensors
    return record.replace("%", "%25").replace("/", "%2F")
