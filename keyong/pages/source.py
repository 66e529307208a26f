"""The ledger that pages are of: our own, another's folder, or an export; whose it is, and where it is read from.

Everything is opened read-only. An export is laid out as a database in a temporary folder, to be searched; it is verified as
the file it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from federation.errors import KeyongError
from federation.ledger.store import DATABASE
from keyong.evidence import Evidence, open_evidence
from keyong.pages.index import FOLDER, Index


@dataclass(frozen=True)
class Source:
    """A ledger to be shown.

    Attributes:
        path: what the person named: a home, a ledger's folder or an export.
        folder: holds the database that is read.
        evidence: whose it is and by which keys it is verified, from the root fingerprint on.
        damage: why an export could not be read to its end; None where it could.
    """

    path: Path
    folder: Path
    evidence: Evidence
    index: Index
    damage: KeyongError | None = None

    @property
    def database(self) -> Path:
        """The file that entries are read from."""
        return self.folder / DATABASE

    @property
    def is_export(self) -> bool:
        """Whether it is a file that never grows."""
        return self.evidence.ledger.is_file()

    @property
    def entities(self) -> dict[str, str]:
        """Of each member that ever was in a roster, its legal entity."""
        return {member.id: member.entity for roster in self.evidence.rosters.chain for member in roster.members}


@contextmanager
def open_source(path: Path, fingerprint: str, home: Path | None = None) -> Iterator[Source]:
    """Open the ledger at ``path``, its rosters checked from this root.

    Args:
        home: our own, where it is that ledger's: the index is kept there, and is not made anew each time.

    Raises:
        UsageError: there is no ledger.
        VerificationError: the rosters do not begin at this root, or the file is no export.
    """
    with open_evidence(path, fingerprint) as evidence, tempfile.TemporaryDirectory(prefix="keyong-pages-") as name:
        scratch, damage = Path(name), None
        folder = evidence.ledger
        if not folder.is_dir():
            from federation.ledger.unpack import unpack_export

            folder = scratch / "ledger"
            folder.mkdir(0o700)
            damage = unpack_export(evidence.ledger, folder / DATABASE)
        beside = scratch / FOLDER if home is None else home / FOLDER
        yield Source(path, folder, evidence, Index(folder, beside), damage)
