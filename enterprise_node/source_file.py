"""An owner's file as bytes: which kind it is, its fingerprint, whether its text can be decoded, its header.

Nothing here interprets a value. Errors name lines and positions, never what stands there: a file without a header has
values where names should be.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import stat
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from enterprise_node.reading import Reading
from federation.errors import KeyongError, UsageError

ENCODINGS: Final = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8",
    "ascii": "utf-8",
    "gb18030": "gb18030",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "big5": "big5",
    "utf-16": "utf-16",
    "iso8859-1": "iso8859-1",
}
"""Python's name of an encoding -> the one it is read as (GB 18030 contains GBK and GB 2312)."""
CSV_SUFFIXES: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_SUFFIXES: Final = (".parquet", ".pq")

_BLOCK = 1 << 20


class DatasetChangedError(KeyongError):
    """A dataset's file is no longer the one that was registered and published."""

    code = "dataset-changed"
    exit_code = 3


def detect_reading(
    path: Path, *, encoding: str = "utf-8", delimiter: str | None = None, null_values: tuple[str, ...] = ()
) -> Reading:
    """Tell a file's kind by its name and its first bytes.

    Raises:
        UsageError: it is missing, no regular file, empty, of another kind, or the encoding is not known.
    """
    try:
        status = path.stat()
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise UsageError("there is no file {path}", hint="check the path", path=path) from None
    except IsADirectoryError:
        raise UsageError("{path} is a folder", hint="name one CSV or Parquet file", path=path) from None
    except OSError as error:
        raise UsageError(
            "{path} cannot be read: {reason}",
            hint="check that this account may read it",
            path=path,
            reason=error.strerror or type(error).__name__,
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError("{path} is not a regular file", hint="name one CSV or Parquet file", path=path)
    if not head:
        raise UsageError("{path} is empty", hint="export the data again", path=path)
    name = path.name.lower()
    if name.endswith(PARQUET_SUFFIXES):
        if head != b"PAR1":
            raise UsageError("{path} is not a Parquet file", hint="check how it was written", path=path)
        return Reading(kind="parquet")
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")) or not name.endswith(CSV_SUFFIXES):
        raise UsageError(
            "{path} is neither a CSV nor a Parquet file",
            hint="save the sheet as 'CSV UTF-8' (.csv, .tsv, also .gz) or the table as Parquet",
            path=path,
        )
    packed = name.endswith(".gz")
    if packed != head.startswith(b"\x1f\x8b"):
        raise UsageError(
            "{path} and its name disagree on gzip", hint="name gzip-compressed files .csv.gz, others .csv", path=path
        )
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii()):
        raise UsageError("a delimiter is one character, not a quote and not a line end")
    reading = Reading(
        kind="csv",
        encoding=_encoding(encoding),
        delimiter=delimiter or ("\t" if ".tsv" in name else ","),
        gzip=packed,
        null_values=tuple(dict.fromkeys(("", *null_values))),
    )
    if delimiter is None and reading.delimiter == ",":
        reading = replace(reading, delimiter=_delimiter(path, reading))
    return reading


def scan(path: Path, reading: Reading, staged: Path | None = None) -> str:
    """Read the whole file once: return its fingerprint and see that its text decodes.

    Args:
        path: the file.
        reading: how.
        staged: where to write the decoded text as UTF-8; what is hashed is then exactly what is read later.

    Returns:
        ``sha256:`` and the digest of the file's bytes.

    Raises:
        UsageError: the file cannot be read or decoded.
    """
    try:
        with path.open("rb", buffering=0) as raw:
            hashing = _HashingReader(raw)
            if reading.kind == "csv":
                _decode(path, reading, hashing, staged)
            while hashing.read(_BLOCK):
                pass
            return hashing.digest()
    except (gzip.BadGzipFile, EOFError):
        raise UsageError("{path} is a damaged gzip file", hint="compress it again", path=path) from None
    except OSError as error:
        raise UsageError(
            "{path} cannot be read: {reason}", path=path, reason=error.strerror or type(error).__name__
        ) from None


def read_header(file: Path, reading: Reading, path: Path) -> tuple[str, ...]:
    """The column names of a CSV file: its first record.

    Args:
        file: what to read.
        reading: how.
        path: what to call it in an error.

    Raises:
        UsageError: there is no such record, a name is empty, unusable or there twice, or all are numbers.
    """
    with _open_text(file, reading) as text:
        try:
            record = next(csv.reader(text, delimiter=reading.delimiter, strict=True), [])
        except (csv.Error, UnicodeError):
            record = []
    names = tuple(name.strip().lstrip("\ufeff") for name in record)
    if not any(names):
        raise UsageError(
            "the first line of {path} names no columns", hint="the first line must hold the column names", path=path
        )
    if all(_is_number(name) for name in names if name):
        raise UsageError(
            "the first line of {path} holds numbers where the column names should be",
            hint="add a first line with the column names",
            path=path,
        )
    check_names(path, names)
    return names


def check_names(path: Path, names: tuple[str, ...]) -> None:
    """Raise unless each name can be published and no two are alike.

    Raises:
        UsageError: naming positions only.
    """
    seen: dict[str, int] = {}
    for position, name in enumerate(names, start=1):
        if not name or len(name) > 128 or '"' in name or not name.isprintable():
            raise UsageError(
                "the name of column {position} of {path} is empty, too long or holds characters names cannot hold",
                hint="give it a printable name of at most 128 characters without quotes",
                position=position,
                path=path,
            )
        first = seen.setdefault(name.casefold(), position)
        if first != position:
            raise UsageError(
                "columns {first} and {position} of {path} have the same name (case does not count)",
                hint="rename one of them",
                first=first,
                position=position,
                path=path,
            )


class _HashingReader(io.RawIOBase):
    """Passes on a file's bytes and hashes them on the way."""

    def __init__(self, raw: io.RawIOBase | BinaryIO) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = cast(io.RawIOBase, self._raw).readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        return count

    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def _decode(path: Path, reading: Reading, raw: io.RawIOBase, staged: Path | None) -> None:
    source = gzip.GzipFile(fileobj=cast(BinaryIO, raw)) if reading.gzip else raw
    decoder = codecs.getincrementaldecoder(reading.encoding)("strict")
    target = None if staged is None else staged.open("x", encoding="utf-8", newline="")
    line = 1
    try:
        while True:
            block = source.read(_BLOCK) or b""
            before = decoder.getstate()
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                decoder.setstate(before)
                line += decoder.decode(block[: max(0, error.start - len(before[0]))]).count("\n")
                raise _undecodable(path, reading, line) from None
            line += text.count("\n")
            if target is not None:
                target.write(text)
            if not block:
                return
    finally:
        if target is not None:
            target.close()


def _undecodable(path: Path, reading: Reading, line: int) -> UsageError:
    if reading.encoding == "utf-8":
        for encoding in ("utf-16", "gb18030", "big5"):
            if _decodes(path, reading, encoding):
                return UsageError(
                    "{path} is not UTF-8; it reads as {encoding}",
                    hint="add --encoding {encoding}, or save it as 'CSV UTF-8'",
                    path=path,
                    encoding=encoding,
                )
    return UsageError(
        "{path} is not {expected}, first in line {line}",
        hint="save it as 'CSV UTF-8', or name its encoding with --encoding (gb18030, big5, utf-16, latin-1)",
        path=path,
        expected=reading.encoding,
        line=line,
    )


def _decodes(path: Path, reading: Reading, encoding: str) -> bool:
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if reading.gzip else raw as source:
        head = source.read(2)
        if encoding == "utf-16" and head not in (b"\xff\xfe", b"\xfe\xff"):
            return False  # without its mark, almost any bytes decode as UTF-16
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        try:
            decoder.decode(head)
            while block := source.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _encoding(name: str) -> str:
    try:
        return ENCODINGS[codecs.lookup(name).name]
    except LookupError:
        raise UsageError(
            "the encoding {name} is not known",
            hint="use utf-8, gb18030 (also for GBK and GB 2312), big5, utf-16 or latin-1",
            name=name,
        ) from None


def _open_text(path: Path, reading: Reading) -> io.TextIOWrapper:
    raw = gzip.open(path, "rb") if reading.gzip else path.open("rb")  # noqa: SIM115  # closed with the wrapper
    encoding = "utf-8-sig" if reading.encoding == "utf-8" else reading.encoding
    return io.TextIOWrapper(cast(BinaryIO, raw), encoding=encoding, newline="")


def _delimiter(path: Path, reading: Reading) -> str:
    with _open_text(path, reading) as text:
        try:
            line = text.readline(_BLOCK)
        except (UnicodeError, OSError, EOFError):
            return ","  # `scan` says what is wrong
    return "," if "," in line else next((mark for mark in ";\t" if mark in line), ",")


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
