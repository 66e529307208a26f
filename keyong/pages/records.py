"""Entries as pages show them: read from the ledger's own bytes, whatever has become of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from federation.errors import KeyongError
from federation.ledger import Entry
from federation.ledger.entry import Field, decode
from federation.ledger.store import read_field
from federation.statements import Envelope
from keyong.pages.facets import NAMES, Glance
from keyong.text import explain


@dataclass(frozen=True)
class Signed:
    """A statement in a field: its type, its digest, what it says and who signed (key ids; not verified here)."""

    type: str
    digest: str
    says: Mapping[str, Any]
    signers: tuple[str, ...]

    @property
    def name(self) -> str:
        """The type without its frame: ``receipt.v1``."""
        return self.type.removeprefix("application/vnd.keyong.").removesuffix("+json")


@dataclass(frozen=True)
class Record:
    """One entry.

    Attributes:
        entry: its envelope; None where its bytes are no entry.
        values: opened fields, statements as :class:`Signed`.
        fields: the same with salt and payload, as they were committed to.
        sealed: fields that are not there: erased, or not disclosed.
        damage: what is wrong with it, in the language that is spoken now.
    """

    index: int
    kind: str
    time: str
    ref: int | None
    leaf: str
    data: bytes
    entry: Entry | None
    values: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)
    sealed: tuple[str, ...] = ()
    damage: str = ""

    def text(self, name: str) -> str:
        """A value that is a text, else nothing."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def statement(self, name: str) -> Mapping[str, Any]:
        """What the statement in a field says, nothing where there is none."""
        value = self.values.get(name)
        return value.says if isinstance(value, Signed) else {}

    def digest(self, name: str) -> str:
        """The digest of the statement in a field."""
        value = self.values.get(name)
        return value.digest if isinstance(value, Signed) else ""


def read_record(connection: sqlite3.Connection, index: int) -> Record | None:
    """The entry at an index with all its fields; None where there is none."""
    row = connection.execute("SELECT kind, time, ref, leaf, data FROM entry WHERE idx = ?", (index,)).fetchone()
    if row is None:
        return None
    kind, time, ref, leaf, data = row
    data = data if isinstance(data, bytes) else str(data).encode()
    entry, damage = None, ""
    fields: dict[str, Field] = {}
    values: dict[str, Any] = {}
    try:
        entry = decode(data, index)
        for name, form, salt, payload in connection.execute(
            "SELECT name, form, salt, payload FROM field WHERE idx = ? ORDER BY name", (index,)
        ):
            fields[str(name)] = read_field(form, salt, payload, index)
            values[str(name)] = _value(fields[str(name)])
    except KeyongError as error:
        damage = explain(error)[0]
    sealed = tuple(sorted(set(entry.fields) - set(fields))) if entry is not None else ()
    if entry is not None:
        kind, time, ref = entry.kind, entry.time, entry.ref
    shown_leaf = leaf.hex() if isinstance(leaf, bytes) else ""
    return Record(index, str(kind), str(time), ref, shown_leaf, data, entry, values, fields, sealed, damage)


def read_glances(connection: sqlite3.Connection, indices: Iterable[int]) -> list[Glance]:
    """What a list shows of these entries, in their order; those that are not there are left out."""
    wanted = list(indices)
    places = ",".join("?" * len(wanted))
    found = {
        index: Glance(index, str(kind), str(time))
        for index, kind, time in connection.execute(
            f"SELECT idx, kind, time FROM entry WHERE idx IN ({places})",  # noqa: S608
            wanted,
        )
    }
    names = ",".join("?" * len(NAMES))
    for index, name, form, payload in connection.execute(
        f"SELECT idx, name, form, payload FROM field WHERE idx IN ({places}) AND name IN ({names})",  # noqa: S608
        (*wanted, *NAMES),
    ):
        if index in found:
            found[index].take(str(name), str(form), payload)
    return [found[index] for index in wanted if index in found]


def _value(one: Field) -> Any:
    value = one.value()
    if not isinstance(value, bytes):
        return value
    try:
        envelope = Envelope.from_bytes(value)
        says = json.loads(envelope.payload)
    except (KeyongError, ValueError, RecursionError):
        return value
    signers = tuple(signature.key_id for signature in envelope.signatures)
    return Signed(envelope.payload_type, envelope.digest, says if isinstance(says, dict) else {}, signers)
