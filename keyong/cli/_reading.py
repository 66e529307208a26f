"""A ledger read while it is verified: what a command derives from entries rests on none that does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyong.cli._output import progress_bar
from keyong.text import mark

if TYPE_CHECKING:
    from federation.ledger import Entry
    from keyong.embedded import StatementCheck


@contextmanager
def verified_reading(
    path: Path | None, root: str | None, take: Callable[[Entry, Mapping[str, Any]], object]
) -> Iterator[StatementCheck]:
    """Verify the ledger at ``path`` (our own where it is None) and hand each entry to ``take``; yields who checked it.

    Raises:
        UsageError: another's ledger, and no ``root`` to trust it by.
        VerificationError: it does not hold.
    """
    from federation.errors import UsageError
    from federation.ledger import verify_ledger
    from keyong.cli._context import open_home
    from keyong.embedded import StatementCheck
    from keyong.evidence import fingerprint_of, open_evidence

    if path is None:
        home = open_home()
        path, root = home.path, home.identity.fingerprint
    if root is None:
        raise UsageError(
            "it is not said which root this ledger is to be trusted by",
            hint="give --root FINGERPRINT, from a source that you trust",
        )
    with open_evidence(path, fingerprint_of(root)) as evidence:
        check = StatementCheck(evidence.rosters, evidence.continues)

        def on_entry(entry: Entry, fields: Mapping[str, Any]) -> int:
            checked = check.on_entry(entry, fields)
            take(entry, fields)
            return checked

        with progress_bar(mark("verifying")) as progress:
            verify_ledger(
                evidence.ledger,
                evidence.vkey,
                checkpoints=evidence.checkpoints,
                on_entry=on_entry,
                progress=progress,
            )
        yield check
