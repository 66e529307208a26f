"""A folder of files (images, signals): each row of its index stands for one file.

The index is the owner's ``index.csv`` with a column ``file`` and whatever is known of each, or else made here with the
columns ``file`` and ``bytes``. No link is followed, nothing but regular files is taken, and there are hard limits.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enterprise_node.reading import Reading
from enterprise_node.source_file import DatasetChangedError, scan
from federation.errors import UnavailableError, UsageError

INDEX: Final = "index.csv"
FILE_COLUMN: Final = "file"
FILES_FOLDER: Final = "files"
"""Where a job finds them, beside the index."""
MAX_FILES: Final = 100_000
MAX_FILE_BYTES: Final = 1 << 30
MAX_FOLDER_BYTES: Final = 16 << 30
_MAX_DEPTH: Final = 8
_MAX_NAME: Final = 200
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class FileMark:
    """What a file was when it was listed."""

    size: int
    sha256: str


def list_files(folder: Path) -> dict[str, FileMark]:
    """Every file below a folder by its name, read and hashed, the index among them; hidden ones are left out.

    Raises:
        UsageError: a link, a device, a name no job could use, or more than the limits allow; errors name places in the
            listing, never a file, whose name may say what nobody should read.
    """
    found: dict[str, FileMark] = {}
    total = 0
    for name in _names(folder):
        if len(found) >= MAX_FILES:
            raise UsageError("{path} holds more than {limit} files", path=folder, limit=MAX_FILES)
        mark = _read(folder, name, None)
        total += mark.size
        if total > MAX_FOLDER_BYTES:
            raise UsageError(
                "the files below {path} hold more than {limit} GiB together", path=folder, limit=MAX_FOLDER_BYTES >> 30
            )
        found[name] = mark
    if not set(found) - {INDEX}:
        raise UsageError("the folder {path} holds no file", hint="hidden files do not count", path=folder)
    return found


def fingerprint(found: Mapping[str, FileMark]) -> str:
    """The digest of a folder: of each file's name, size and bytes."""
    lines = (f"{mark.sha256} {mark.size} {name}\n" for name, mark in sorted(found.items()))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def write_index(folder: Path, found: Mapping[str, FileMark], target: Path) -> tuple[Path, Reading]:
    """The index as a file to be read, and how: the owner's own, copied, or one made of the listing."""
    if INDEX in found:
        reading = Reading(kind="csv")
        scan(folder / INDEX, reading, target)
        return target, reading
    with target.open("x", encoding="utf-8", newline="") as file:
        file.write(f"{FILE_COLUMN},bytes\n")
        quoted = ((name.replace('"', '""'), mark.size) for name, mark in sorted(found.items()))
        file.writelines(f'"{name}",{size}\n' for name, size in quoted)
    return target, Reading(kind="csv", exact=True)


def check_index(
    folder: Path, index: Path, reading: Reading, names: tuple[str, ...], found: Mapping[str, FileMark]
) -> dict[str, FileMark]:
    """The files that the index names, and no other.

    Raises:
        UsageError: it has no column ``file``, or a row names a file that is not there or was named before.
    """
    if FILE_COLUMN not in names:
        raise UsageError(
            "the index of {path} has no column {name}",
            hint="each row names one file, as it lies below the folder",
            path=folder,
            name=FILE_COLUMN,
        )
    place = names.index(FILE_COLUMN)
    listing: dict[str, FileMark] = {}
    for number, row in _rows(index, reading, folder):
        if number == 0:
            continue
        name = row[place] if len(row) > place else ""
        if name not in found or name == INDEX or name in listing:
            raise UsageError(
                "row {row} of the index of {path} names no file that is there, or one that was named before",
                hint="name each file once, with / between folders",
                row=number,
                path=folder,
            )
        listing[name] = found[name]
    return listing


def _rows(index: Path, reading: Reading, folder: Path) -> Iterator[tuple[int, list[str]]]:
    """The index's rows with their numbers, the header being 0."""
    number = 0
    try:
        with index.open(encoding="utf-8-sig", newline="") as text:
            for number, row in enumerate(csv.reader(text, delimiter=reading.delimiter, strict=True)):
                yield number, row
    except csv.Error:  # a field beyond its limit, or a quote that is not closed
        raise UsageError(
            "the index of {path} cannot be read after its row {row}",
            hint="check quotes, and leave columns with very long texts out",
            row=number,
            path=folder,
        ) from None


def copy_files(folder: Path, listing: Mapping[str, FileMark], named: Mapping[str, str], target: Path) -> None:
    """Copy each file to its new name below ``target``; what is copied is what was listed.

    Args:
        named: name in the folder -> name in the snapshot.

    Raises:
        DatasetChangedError: a file is another one now.
    """
    for name, given in named.items():
        place = target / given
        place.parent.mkdir(parents=True, exist_ok=True)
        if _read(folder, name, place) != listing[name]:
            raise DatasetChangedError(
                "a file changed while the dataset was read", hint="wait until it is written, then retry"
            )
        place.chmod(0o444)


def _names(folder: Path) -> Iterator[str]:
    """Names of all files below, in order, ``/`` between folders."""

    def below(path: Path, prefix: str, depth: int) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(folder, error) from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise UsageError(
                    "{path} holds a link or something that is neither file nor folder",
                    hint="copy what it points to; links are not followed",
                    path=folder,
                )
            name = prefix + entry.name
            if not name.isprintable() or '"' in name or len(name.encode(errors="replace")) > _MAX_NAME:
                raise UsageError(
                    "{path} holds a file whose name is too long or not printable", hint="rename it", path=folder
                )
            if entry.is_file():
                yield name
            elif depth >= _MAX_DEPTH:
                raise UsageError("the folders below {path} lie deeper than {limit}", path=folder, limit=_MAX_DEPTH)
            else:
                yield from below(Path(entry.path), name + "/", depth + 1)

    yield from below(folder, "", 1)


def _read(folder: Path, name: str, copy: Path | None) -> FileMark:
    """Read one file whole, without following a link, and copy it where that is asked for."""
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError("{path} holds something that is no file", path=folder)
            target = copy.open("xb") if copy is not None else None
            try:
                while block := file.read(_CHUNK):
                    digest.update(block)
                    size += len(block)
                    if size > MAX_FILE_BYTES:
                        raise UsageError(
                            "a file below {path} is larger than {limit} MiB", path=folder, limit=MAX_FILE_BYTES >> 20
                        )
                    if target is not None:
                        target.write(block)
            finally:
                if target is not None:
                    target.close()
    except OSError as error:
        if copy is not None and error.filename in (None, str(copy)):
            raise UnavailableError(
                "reading the dataset takes more memory or disk than there is", code="resources"
            ) from None
        raise _unreadable(folder, error) from None
    return FileMark(size, digest.hexdigest())


def _unreadable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        "{path} cannot be read: {reason}",
        hint="check that this account may read it",
        path=folder,
        reason=error.strerror or type(error).__name__,
    )
