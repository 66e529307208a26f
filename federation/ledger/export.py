"""The export: a ledger's whole history in one file of JSON lines, with only the disclosed fields opened.

::

    {"format": "keyong-ledger-export", "v": 1, "origin": ..., "size": n}
    {"entry": "<canonical envelope>", "fields": {name: {"form", "salt", "payload"}}}    n times, and after some of them
    {"checkpoint": "<signed note>"}                                                     at least after the last

Plain text, no compression, at most 4 MiB a line: reading it takes constant memory whatever is in it. Envelopes are all
there, because completeness is judged from them; a field that is not opened stays a commitment.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from federation.ledger._rows import Row, stored_rows
from federation.ledger.bundle import decode_fields, encode_fields
from federation.ledger.checkpoint import Checkpoint
from federation.ledger.entry import Entry, decode
from federation.ledger.errors import LedgerUnavailableError, LedgerUnreadableError
from federation.ledger.note import parse_note

FORMAT = "keyong-ledger-export"
VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024


def write_export(connection: sqlite3.Connection, path: Path, disclose: Callable[[Entry], Collection[str]]) -> None:
    """Write the snapshot that ``connection`` sees to ``path``, replacing it only when complete."""
    size = int(connection.execute("SELECT size FROM head").fetchone()[0])
    first = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()[0]
    origin = Checkpoint.parse(parse_note(first).text).origin
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(_private(temporary), "wb") as file:
            file.write(_line({"format": FORMAT, "v": VERSION, "origin": origin, "size": size}))
            for row in stored_rows(connection):
                chosen = set(disclose(decode(row.data, row.place)))
                fields = {name: field for name, field in row.fields.items() if name in chosen}
                file.write(_line({"entry": row.data.decode(), "fields": encode_fields(fields)}))
                if row.note is not None:
                    file.write(_line({"checkpoint": row.note.decode()}))
            if not size:
                file.write(_line({"checkpoint": first.decode()}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise LedgerUnavailableError(
            "the export cannot be written: {reason}", reason=os.strerror(error.errno or 0)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


class ExportReader:
    """Reads an export line by line; ``header`` at once, rows as they are asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise LedgerUnavailableError(
                "{path} cannot be read: {reason}", path=path, reason=os.strerror(error.errno or 0)
            ) from error
        self._line_number = 0
        self.final_note: bytes | None = None
        header = self._next()
        if (
            header is None
            or (header.get("format"), header.get("v")) != (FORMAT, VERSION)
            or type(header.get("size")) is not int
        ):
            self._file.close()
            raise LedgerUnreadableError("{path} is not a ledger's export of this version", path=path)
        self.size: int = header["size"]

    def __enter__(self) -> ExportReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rows(self) -> Iterator[Row]:
        """Yield the entries in the file's order, each with the checkpoint that follows it."""
        pending: Row | None = None
        index = 0
        while (line := self._next()) is not None:
            if line.keys() == {"checkpoint"}:
                note = self._text(line["checkpoint"])
                self.final_note = note
                if pending is not None:
                    yield pending._replace(note=note)
                    pending = None
                elif index:
                    raise LedgerUnreadableError("two checkpoints follow one entry", index=index - 1)
                continue
            if line.keys() != {"entry", "fields"}:
                raise LedgerUnreadableError("line {line} of the export is of no known kind", line=self._line_number)
            if pending is not None:
                yield pending
            pending = Row(index, self._text(line["entry"]), decode_fields(line["fields"], index))
            index += 1
        if pending is not None:
            yield pending

    def _text(self, value: Any) -> bytes:
        try:
            return str.encode(value)
        except (TypeError, UnicodeEncodeError):
            raise LedgerUnreadableError(
                "line {line} of the export is damaged, or the file ends there",
                hint="fetch it again from whoever made it; `keyong ledger export` writes it anew",
                line=self._line_number,
            ) from None

    def _next(self) -> dict[str, Any] | None:
        data = self._file.readline(MAX_LINE_BYTES + 1)
        if not data:
            return None
        self._line_number += 1
        try:
            if len(data) > MAX_LINE_BYTES or not data.endswith(b"\n"):
                raise ValueError
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise LedgerUnreadableError(
                "line {line} of the export is damaged, or the file ends there",
                hint="fetch it again from whoever made it; `keyong ledger export` writes it anew",
                line=self._line_number,
            ) from None
        if not isinstance(value, dict):
            raise LedgerUnreadableError(
                "line {line} of the export is damaged, or the file ends there",
                hint="fetch it again from whoever made it; `keyong ledger export` writes it anew",
                line=self._line_number,
            )
        return value
