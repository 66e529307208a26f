"""The validator of a statement's model, changed to give plain values: what it says is judged, and no model is made of it.

A verifier judges a million statements of a ledger and needs the name of who signed each. The rules (patterns, ranges, closed
sets of words, no unknown field) are those of the model's own schema; what is taken out is the making of objects, and the
defaults: in canonical bytes every field stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import SchemaValidator

_LEAVES = frozenset({"str", "int", "bool", "literal", "none"})
_INSTANT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
_INSIDE = {"tuple": "items_schema", "list": "items_schema", "nullable": "schema", "default": "schema"}


class UnknownSchemaError(TypeError):
    """The schema holds something that has no plain form; the model is then read as ever."""


def plain_validator(kind: type[BaseModel], later: tuple[str, ...], instant: Any) -> SchemaValidator:
    """The validator of ``kind`` that gives dicts, tuples and moments in place of models.

    Args:
        later: fields of ``kind`` that may be absent.
        instant: the function by which the model cuts a moment to the second, in UTC; what it would change is refused here.

    Raises:
        UnknownSchemaError: the model has rules of its own beside those of its fields, or fields of a type not foreseen.
    """
    return SchemaValidator(_plain(kind.__pydantic_core_schema__, frozenset(later), instant))


def _plain(schema: Mapping[str, Any], later: frozenset[str], instant: Any) -> dict[str, Any]:
    kind = schema["type"]
    if kind in _LEAVES:
        return _without_writing(schema)
    if kind == "model" and not schema.get("custom_init") and not schema.get("post_init"):
        return _plain(schema["schema"], later, instant)
    if kind == "model-fields":
        return {
            "type": "typed-dict",
            "extra_behavior": "forbid",
            "fields": {
                name: {
                    "type": "typed-dict-field",
                    "schema": _plain(field["schema"], frozenset(), instant),
                    "required": name not in later,
                }
                for name, field in schema["fields"].items()
            },
        }
    if (
        kind == "function-after"
        and schema["function"]["function"] is instant
        and schema["schema"]["type"] == "datetime"
    ):
        # Spelled to the second first: the function left out would cut a fraction off.
        return {"type": "chain", "steps": [{"type": "str", "pattern": _INSTANT}, {"type": "datetime"}]}
    if kind == "default":
        return _plain(schema["schema"], frozenset(), instant)
    if kind in _INSIDE or kind == "dict":
        return _without_writing(schema) | {
            name: part if name == "schema" and kind not in _INSIDE else _within(part, instant)
            for name, part in schema.items()
            if name in ("items_schema", "keys_schema", "values_schema", "schema")
        }
    raise UnknownSchemaError(kind)


def _within(part: Any, instant: Any) -> Any:
    if isinstance(part, list):
        return [_plain(one, frozenset(), instant) for one in part]
    return _plain(part, frozenset(), instant)


def _without_writing(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in schema.items() if name not in ("serialization", "metadata", "ref")}
