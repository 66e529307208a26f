"""Bringing any source to one file that DuckDB reads, consistent in itself, in a private folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enterprise_node._duckdb import link
from enterprise_node.reading import Reading
from enterprise_node.source_file import read_header, scan
from enterprise_node.sources import duckdb_file, folder, postgresql, sqlite_file
from enterprise_node.sources.folder import FileMark


@dataclass(frozen=True)
class Staged:
    """A source as a file.

    Attributes:
        file: what DuckDB opens.
        reading: how: CSV or Parquet.
        names: the columns of a CSV file, in order; empty for Parquet.
        fingerprint: digest of the source's bytes; empty where it is read live.
        types: what the source itself says of its columns: a type that holds, ``text-like`` where numbers are to stay
            text, None where a column has no use here.
        listing: of a folder, its files by name.
    """

    file: Path
    reading: Reading
    names: tuple[str, ...]
    fingerprint: str = ""
    types: Mapping[str, str | None] = field(default_factory=dict)
    listing: Mapping[str, FileMark] = field(default_factory=dict)


def stage(place: str, reading: Reading, private: Path, password: str = "") -> Staged:
    """Write the source into ``private``, or link it there where DuckDB reads it as it is.

    Args:
        place: as `locate` gave it.
        private: a folder of nobody else's.
        password: of a PostgreSQL source.

    Raises:
        UsageError: the source is not what it should be.
        SourceUnavailableError, SourceCredentialsError, SourceQueryError: see there.
    """
    target = private / "source"
    exact = Reading(kind="csv", exact=True)
    match reading.kind:
        case "postgresql":
            names, types = postgresql.copy_rows(place, reading, password, target)
            return Staged(target, exact, names, types=types)
        case "sqlite":
            names, types = sqlite_file.copy_rows(Path(place), reading, target)
            return Staged(target, exact, names, types=types)
        case "duckdb":
            duckdb_file.copy_rows(Path(place), reading, target)
            return Staged(target, Reading(kind="parquet"), ())
        case "files":
            found = folder.list_files(Path(place))
            index, plain = folder.write_index(Path(place), found, target)
            names = read_header(index, plain, Path(place) / folder.INDEX)
            listing = folder.check_index(Path(place), index, plain, names, found)
            return Staged(index, plain, names, folder.fingerprint(found), listing=listing)
    path = Path(place)
    if reading.direct:
        fingerprint, file, plain = scan(path, reading), link(path, private), reading
    else:
        fingerprint, file, plain = scan(path, reading, target), target, reading.decoded()
    return Staged(file, plain, read_header(file, plain, path) if plain.kind == "csv" else (), fingerprint)
