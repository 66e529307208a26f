"""JSON read strictly and written in one way only.

Both sides of a session's channel use it, and a digest is taken over what it writes; so what two readers could
understand differently (a key twice, NaN, UTF-16, a number that overflows) is refused, and one value has one spelling.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number overflows")
    return value


def read(raw: bytes | bytearray | memoryview) -> object:
    """Parse UTF-8 JSON.

    Raises:
        ValueError: it is not JSON, or a key occurs twice, a number overflows, a constant is no JSON, it nests too deep.
    """
    try:
        return json.loads(str(raw, "utf-8"), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def write(value: object) -> bytes:
    """Write a value with no space, in the order given; floats in the shortest form that reads back as the same float.

    Raises:
        ValueError: a float is not finite, or a string is not Unicode text.
        TypeError: a value has no JSON form.
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")
