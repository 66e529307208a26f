"""Canonical JSON (RFC 8785) for what we sign, and a strict reader for what others sent.

Both sides hold the same domain, so whatever `parse_json` returns, `canonical_json` can write: no duplicate keys, no
NaN, no lone surrogates, integers within +-(2^53 - 1), bounded depth, and no floats unless the caller asks. Amounts
(epsilon, counts, prices) are integers or decimal strings: a float two languages print differently is two statements.
"""

from __future__ import annotations

import json
import math
import re
from json.scanner import make_scanner
from typing import Any, Final, NoReturn

import orjson
import rfc8785

from federation.crypto.errors import CanonicalError, MalformedError

MAX_SAFE_INTEGER = 2**53 - 1
MAX_DEPTH = 64
_MAX_INTEGER_CHARACTERS = 17  # a sign and the 16 digits of 2^53 - 1
_SHOWN_KEY_CHARACTERS = 40
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
_PLAIN_TEXT = re.compile(rb'"[ !#-\[\]-~]*"')
_RARE_CHARACTER = re.compile("[\ud800-\U0010ffff]")
"""From U+D800 on, texts may hold half a surrogate pair or sort otherwise than their UTF-16 does."""


def canonical_json(value: object, *, allow_floats: bool = False) -> bytes:
    """The RFC 8785 bytes of ``value``, or a refusal that names the place.

    Args:
        value: dicts with string keys, lists or tuples, strings, integers, booleans and None.
        allow_floats: also take finite floats. Never for anything that is hashed or signed as an amount.

    Returns:
        UTF-8 bytes; equal values give equal bytes on every machine.

    Raises:
        CanonicalError: the value has no canonical form; ``params["path"]`` is the place, as in ``$.rounds[2].rho``.
    """
    if type(value) is str and _PLAIN.fullmatch(value) is not None:
        return b'"%b"' % value.encode("ascii")
    quick = _written_plainly(value)  # of what holds no float
    if quick is not None:
        return quick
    _check(value, allow_floats=allow_floats, depth_limit=MAX_DEPTH)
    return rfc8785.dumps(value)  # type: ignore[arg-type]  # _check has just established the type


def parse_json(data: bytes, *, limit: int, allow_floats: bool = False, depth_limit: int = MAX_DEPTH) -> Any:
    """Read JSON from an untrusted source; anything two readers could understand differently is refused.

    Args:
        data: the bytes as received, UTF-8 without a byte order mark.
        limit: the most bytes to look at.
        allow_floats: also take numbers with a fraction or an exponent, as long as they are finite.
        depth_limit: the most nested containers, at most `MAX_DEPTH`.

    Raises:
        MalformedError: too long, not UTF-8, not JSON, a key twice, a float, a number out of range, nested too deep.
    """
    if len(data) > limit:
        raise MalformedError(
            "the document has {size} bytes; at most {limit} are allowed here", size=len(data), limit=limit
        )
    if _PLAIN_TEXT.fullmatch(data) is not None:
        return data[1:-1].decode("ascii")
    quick = _canonical_value(data, min(depth_limit, MAX_DEPTH))
    if quick is not _UNKNOWN:
        return quick
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("the document is not UTF-8 (byte {position})", position=error.start) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float if allow_floats else _refuse_float,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise MalformedError(
            "the document is not JSON (line {line}, column {column})", line=error.lineno, column=error.colno
        ) from None
    except RecursionError:
        raise MalformedError("the document is nested deeper than {limit} levels", limit=depth_limit) from None
    try:
        _check(value, allow_floats=allow_floats, depth_limit=min(depth_limit, MAX_DEPTH))
    except CanonicalError as error:
        raise MalformedError(
            error.template, hint=error.hint_template, code=MalformedError.code, **error.params
        ) from None
    return value


# The quick way: what a plain encoder writes back byte for byte is canonical, and within the domain of reader
# and writer. It only ever accepts; whatever it does not recognise goes the long way, which alone refuses and says why.


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def _safe_integer(text: str) -> int:
    if len(text) >= _MAX_INTEGER_CHARACTERS - 1:  # 15 digits are never beyond 2^53 - 1
        raise ValueError(text)
    return int(text)


_UNKNOWN: Final = object()
_scan = make_scanner(json.JSONDecoder(parse_int=_safe_integer, parse_float=_refuse, parse_constant=_refuse))  # type: ignore[arg-type]  # typeshed takes itself for its context


def _write(value: object) -> bytes:
    """As RFC 8785 has it, wherever `_RARE_CHARACTER` and floats do not occur; a moment of UTC as statements spell it."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_UTC_Z)


def restates_plainly(value: object, data: bytes) -> bool:
    """Whether ``data`` is the canonical form of ``value``, and that is plain to see; False says nothing.

    For values whose types are known to admit no float: of all else that is not within the domain, nothing is ever equal.
    """
    try:
        return data.isascii() and _write(value) == data
    except (TypeError, RecursionError):
        return False


def restates(value: object, data: bytes) -> bool:
    """Whether ``data``, which `parse_json` took without floats, is the canonical form of ``value``.

    For a model that was read from these bytes: does it say what they say? What was read once is not read again: in bytes
    that hold safe integers and no key twice, equal ASCII text is all there is to compare.
    """
    return restates_plainly(value, data) or canonical_json(value) == data


def _canonical_value(data: bytes, depth_limit: int) -> Any:
    """The value whose canonical bytes ``data`` is, or `_UNKNOWN` where that is not plain to see."""
    # Counted before anything is parsed: no depth can then cost more than its bytes.
    if data.count(b"{") + data.count(b"[") > depth_limit:
        return _UNKNOWN
    try:
        text = data.decode("utf-8")
        if not text.isascii() and _RARE_CHARACTER.search(text) is not None:
            return _UNKNOWN
        value, _ = _scan(text, 0)
        # Also refuses a key given twice, a second spelling of anything, and what follows the value.
        return value if _write(value) == data else _UNKNOWN
    except (ValueError, TypeError, StopIteration):
        return _UNKNOWN


def _written_plainly(value: object) -> bytes | None:
    """The canonical bytes of ``value``, or None where that is not plain to see."""
    try:
        data = _write(value)
        if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
            return None
        text = data.decode("utf-8")
        if not text.isascii() and _RARE_CHARACTER.search(text) is not None:
            return None
        # Read back: a float or a foreign type was written as something else than it is.
        return data if _scan(text, 0)[0] == value else None
    except (ValueError, TypeError, StopIteration, RecursionError):
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedError("the key {key} appears twice in one object", key=_shown(key))
            seen.add(key)
    return result


def _integer(text: str) -> int:
    # Before int(): a million digits cost quadratic time, and Python's own limit raises a bare ValueError.
    if len(text) > _MAX_INTEGER_CHARACTERS:
        raise MalformedError("the document holds an integer beyond 2^53 - 1")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise MalformedError("the document holds a number that is out of range")
    return value


def _refuse_float(text: str) -> NoReturn:
    raise MalformedError(
        "the document holds a number with a fraction or an exponent",
        hint="write amounts as integers or as decimal strings",
    )


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedError("the document holds NaN or Infinity, which are not JSON")


def _check(value: object, *, allow_floats: bool, depth_limit: int) -> None:
    """Raise `CanonicalError` at the first place of ``value`` that is outside the common domain of reader and writer."""
    # An explicit stack: a hostile depth must not meet Python's recursion limit. Paths are links, spelled on error only.
    stack: list[tuple[object, _Path | None, int]] = [(value, None, 0)]
    while stack:
        item, path, depth = stack.pop()
        if isinstance(item, str):
            if not item.isascii():
                _check_text(item, path)
        elif item is None or isinstance(item, bool):
            continue
        elif isinstance(item, int):
            if not -MAX_SAFE_INTEGER <= item <= MAX_SAFE_INTEGER:
                raise CanonicalError(
                    "the integer at {path} is beyond 2^53 - 1", hint="write it as a decimal string", path=_spell(path)
                )
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise CanonicalError("the number at {path} is not finite", path=_spell(path))
            if not allow_floats:
                raise CanonicalError(
                    "the number at {path} is a float",
                    hint="write amounts as integers or as decimal strings",
                    path=_spell(path),
                )
        elif isinstance(item, (dict, list, tuple)):
            if depth >= depth_limit:
                raise CanonicalError("the value is nested deeper than {limit} levels", limit=depth_limit)
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        raise CanonicalError("a key of the object at {path} is not a string", path=_spell(path))
                    if not key.isascii():
                        _check_text(key, path)
                stack.extend((member, (path, key), depth + 1) for key, member in reversed(item.items()))
            else:
                stack.extend((item[i], (path, i), depth + 1) for i in range(len(item) - 1, -1, -1))
        else:
            raise CanonicalError(
                "the value at {path} has no JSON form (type {type})", path=_spell(path), type=type(item).__name__
            )


_Path = tuple[Any, str | int]  # (parent path or None, step)


def _check_text(text: str, path: _Path | None) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise CanonicalError("the text at {path} holds half a surrogate pair", path=_spell(path)) from None


def _spell(path: _Path | None) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        if isinstance(step, int):
            steps.append(f"[{step}]")
        else:
            steps.append(f".{step}" if step.isascii() and step.isidentifier() else f"[{_shown(step)}]")
    return "$" + "".join(reversed(steps))


def _shown(key: str) -> str:
    # ASCII, quoted and short: a key from outside must not move a terminal's cursor or fill a log.
    text = key if len(key) <= _SHOWN_KEY_CHARACTERS else key[:_SHOWN_KEY_CHARACTERS] + "..."
    return json.dumps(text)
