"""Names, metrics and configs of a content: what a value may be, and its JSON form."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable

MAX_NAME_BYTES = 256
MAX_LIST = 65_536
MAX_TEXT_BYTES = 1024 * 1024
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what Flower's own serialisation holds
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

Scalar = bool | int | float | str | bytes
MetricValue = int | float | list[int] | list[float]
ConfigValue = Scalar | list[bool] | list[int] | list[float] | list[str] | list[bytes]


class ContentError(ValueError):
    """A content is outside the format; ``code`` says which rule it broke, and nothing of its values.

    Codes: ``content-header``, ``content-size``, ``content-dtype``, ``content-shape``, ``content-bool``,
    ``content-name``, ``content-duplicate``, ``content-count``, ``content-value``.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def check_name(name: object) -> str:
    """Return a record's or a value's name: printable text of 1 to 256 bytes.

    Raises:
        ContentError: it is anything else (a control or a bidirectional character would lie to who reads it).
    """
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise ContentError("content-name")
    return name


def _encode_scalar(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and _INT_MIN <= value <= _INT_MAX:
        return int(value)
    if isinstance(value, float):
        number = float(value)  # numpy's float64 is a float, its repr is not
        return number if math.isfinite(number) else {"f": str(number)}
    if isinstance(value, str) and _is_text(value):
        return str(value)
    if isinstance(value, bytes) and len(value) <= MAX_TEXT_BYTES:
        return {"b": base64.b64encode(value).decode()}
    raise ContentError("content-value")


def _decode_scalar(value: object) -> Scalar:
    if isinstance(value, dict) and len(value) == 1:
        special, coded = value.get("f"), value.get("b")
        if isinstance(special, str) and special in _SPECIAL:
            return _SPECIAL[special]
        if isinstance(coded, str):
            return _decode_bytes(coded)
    elif isinstance(value, (bool, int, float, str)) and _encode_scalar(value) == value:
        return value
    raise ContentError("content-value")


def _decode_bytes(coded: str) -> bytes:
    try:
        raw = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        raise ContentError("content-value") from None
    if len(raw) > MAX_TEXT_BYTES or base64.b64encode(raw).decode() != coded:
        raise ContentError("content-value")
    return raw


def _is_text(value: str) -> bool:
    try:
        return len(value.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False


def _kind(value: object) -> type:
    # numpy's float64 is a float, an IntEnum an int: what counts is what they are sent as
    for kind in (bool, int, float, str, bytes):
        if isinstance(value, kind):
            return kind
    raise ContentError("content-value")


def _check(value: object, allowed: tuple[type, ...]) -> None:
    items = value if isinstance(value, list) else [value]
    kinds = {_kind(item) for item in items}
    if len(items) > MAX_LIST or len(kinds) > 1 or not kinds <= set(allowed):
        raise ContentError("content-value")


def _each(value: object, convert: Callable[[object], object]) -> object:
    return [convert(item) for item in value] if isinstance(value, list) else convert(value)


_METRIC = (int, float)
_CONFIG = (bool, int, float, str, bytes)


def encode_metric(value: object) -> object:
    """Return the JSON form of an int, a float or a list of one of them.

    Raises:
        ContentError: it is anything else.
    """
    _check(value, _METRIC)
    return _each(value, _encode_scalar)


def decode_metric(value: object) -> object:
    """Return the metric that this JSON form stands for.

    Raises:
        ContentError: it stands for none.
    """
    result = _each(value, _decode_scalar)
    _check(result, _METRIC)
    return result


def encode_config(value: object) -> object:
    """Return the JSON form of a scalar or a list of scalars of one type.

    Raises:
        ContentError: it is anything else.
    """
    _check(value, _CONFIG)
    return _each(value, _encode_scalar)


def decode_config(value: object) -> object:
    """Return the config value that this JSON form stands for.

    Raises:
        ContentError: it stands for none.
    """
    result = _each(value, _decode_scalar)
    _check(result, _CONFIG)
    return result
