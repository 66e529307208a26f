"""The snapshot a job reads: the granted columns of one dataset, as the owner's rules leave them, in read-only files.

What the job may not see is not hidden in the snapshot, it is absent. The folder holds ``data.parquet`` and
``schema.json``, and for a folder of files those files; none of them says whose data it is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from enterprise_node.extraction import DATA_FILE, Extracted, Order, extract
from enterprise_node.reading import Reading
from enterprise_node.rules import Codes, Kept, Rules, after
from enterprise_node.rules.model import rule_document
from enterprise_node.snapshot_process import extract_apart
from enterprise_node.sources import FILES_FOLDER, read_credential
from federation.crypto import canonical_json, digest, keyed_digest
from federation.errors import UsageError
from federation.statements import Column

SCHEMA_FILE: Final = "schema.json"


@dataclass(frozen=True)
class Snapshot:
    """A folder made for one job.

    Attributes:
        folder: holds the files; nobody can write to any of them.
        digest: over all files; what receipts name.
        rows: the weight of this node in sums.
        rules: digest of the rules it was made by; empty where there are none.
        changed: how many values each rule changed; empty unless asked for.
        values: of a live source, what tells one reading from another (`Extracted.values`).
        subjects: privacy units, or rows where each is one; -1 unless asked for (`Grant.units`).
    """

    folder: Path
    digest: str
    rows: int
    rules: str = ""
    changed: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    subjects: int = -1

    def discard(self) -> None:
        """Remove the folder; without complaint if it is gone."""
        if self.folder.exists():
            for path in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
                path.chmod(0o700)  # an ordinary user cannot empty a folder without write permission
            shutil.rmtree(self.folder)


@dataclass(frozen=True)
class Grant:
    """What of a source goes into a snapshot.

    Attributes:
        place, reading, fingerprint: the source as it is registered.
        columns: those that are granted, as they are in the source.
        rules: the owner's, of all columns.
        kept: key and code maps; needed where a rule rests on them.
        unit, unit_rows: the dataset's privacy unit, see `Order`.
        agreement: digest of the agreement, which pseudonyms and shifts hang on; empty for the owner alone.
        units: how many privacy units there are is to be counted.
        secret: of the owner: what the snapshot's digest is keyed with, for receipts show it to others.
    """

    place: str
    reading: Reading
    fingerprint: str
    columns: Sequence[Column]
    rules: Rules = field(default_factory=lambda: Rules({}))
    kept: Kept | None = None
    agreement: str = ""
    unit: str = ""
    unit_rows: int = 0
    secret: bytes = field(default=b"", repr=False)
    units: bool = False

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns as the job sees them."""
        return after(self.columns, self.rules)

    def order(self, folder: Path, work: Path, *, counting: bool = False) -> Order:
        """What is to be made of it; the password is read here, by the process that has the owner's environment.

        Raises:
            SourceCredentialsError: there is no password where it should be.
            RulesKeyError: the rules' key is gone.
        """
        names = {column.name for column in self.columns}
        mine = {name: rule for name, rule in self.rules.columns.items() if name in names}
        kept = self.kept
        secrets = {n: kept.secret(r, self.agreement) for n, r in mine.items() if Rules({n: r}).keyed} if kept else {}
        coded = {n: self.agreement if r.scope == "agreement" else "" for n, r in mine.items() if isinstance(r, Codes)}
        return Order(
            place=self.place,
            reading=self.reading.document(),
            fingerprint=self.fingerprint,
            columns=[(column.name, column.type) for column in self.columns],
            folder=str(folder),
            work=str(work),
            rules={name: rule_document(rule) for name, rule in mine.items()},
            secrets={name: secret.hex() for name, secret in secrets.items()},
            scopes=coded,
            maps=str(kept.maps.path) if kept else "",
            password=read_credential(self.reading.credential),
            counting=counting,
            unit=self.unit,
            unit_rows=self.unit_rows,
            units=self.units,
        )


def materialise(
    source: Path | str, columns: Sequence[Column], fingerprint: str, folder: Path, *, reading: Reading
) -> Snapshot:
    """Write the columns of a registered source, without rules, into ``folder``; see `materialise_here`."""
    return materialise_here(Grant(str(source), reading, fingerprint, columns), folder)


def materialise_here(grant: Grant, folder: Path, *, counting: bool = False) -> Snapshot:
    """Make a snapshot in this process, rows in the source's order.

    Args:
        folder: must not exist yet. It is removed again if anything fails.
        counting: also count the values that rules change.

    Raises:
        DatasetChangedError: the source is another, gone, or lacks a granted column.
        UsageError: no column is granted, or ``folder`` exists.
        UnavailableError: the source is down or refuses us, or memory or disk do not suffice.
    """
    with _prepared(grant, folder) as work:
        return _finish(grant, folder, extract(grant.order(folder, work, counting=counting)))


async def materialise_apart(grant: Grant, folder: Path, *, seconds: float, log: Any) -> Snapshot:
    """Make a snapshot in a process of its own, which ends where the caller is cancelled; see `materialise_here`.

    Args:
        seconds: longest it may take.
        log: hears how far it is.
    """
    with _prepared(grant, folder) as work:
        return _finish(grant, folder, await extract_apart(grant.order(folder, work), seconds=seconds, log=log))


@contextmanager
def _prepared(grant: Grant, folder: Path) -> Iterator[Path]:
    if not grant.columns or not grant.shown:
        raise UsageError("no column is granted, so there is nothing a job could read")
    with fresh_folder(folder), tempfile.TemporaryDirectory(prefix=".keyong-work-", dir=folder.parent) as work:
        yield Path(work)


def _finish(grant: Grant, folder: Path, made: Extracted) -> Snapshot:
    rules = grant.rules.digest
    return seal(
        folder,
        grant.shown,
        made.rows,
        {name: f"sha256:{one}" for name, one in made.files.items()},
        rules,
        made,
        grant.secret,
    )


def seal(
    folder: Path,
    columns: Sequence[Column],
    rows: int,
    files: Mapping[str, str],
    rules: str = "",
    made: Extracted | None = None,
    secret: bytes = b"",
) -> Snapshot:
    """Write the schema beside the data, make everything read-only and take the digest.

    Args:
        files: each file's digest, by its path below the folder.
        rules: digest of the rules, where there are any.
        secret: that the digest is keyed with: of few or mostly known values a plain one would tell the rest by trying.
    """
    schema = canonical_json(
        {
            "format": 1,
            "columns": [{"name": c.name, "type": c.type, "nullable": c.nullable, "unit": c.unit} for c in columns],
            "rows": rows,
        }
    )
    (folder / SCHEMA_FILE).write_bytes(schema)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)
    parts = {DATA_FILE: files[DATA_FILE], SCHEMA_FILE: digest(schema)}
    beside = {name: one for name, one in files.items() if name.startswith(f"{FILES_FOLDER}/")}
    if beside:
        parts[FILES_FOLDER] = digest(canonical_json(beside))
    changed, values, units = (made.changed, made.values, made.units) if made else ({}, {}, -1)
    return Snapshot(folder, keyed_digest(secret, canonical_json(parts)), rows, rules, changed, values, units)


@contextmanager
def fresh_folder(folder: Path) -> Iterator[None]:
    """Make the folder, private until it is sealed, and remove it if the block fails.

    Raises:
        UsageError: it exists already.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise UsageError("the snapshot folder {folder} exists already", folder=folder) from None
    try:
        yield
    except BaseException:
        Snapshot(folder, "", 0).discard()
        raise
