"""Which ledger a command reads, and its reading while it is verified: nothing is derived from entries that do not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._output import progress_bar
from keyong.text import mark

if TYPE_CHECKING:
    from federation.ledger import Entry
    from keyong.embedded import StatementCheck

PathArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[PATH]", help="Another's home, ledger or export; without it, our own ledger."),
]
RootOption = Annotated[
    str | None,
    typer.Option("--root", metavar="FINGERPRINT", help="The consortium's root fingerprint; needed with PATH."),
]


def chosen_ledger(path: Path | None, root: str | None) -> tuple[Path, str, Path | None]:
    """Where the ledger lies, the root fingerprint it is trusted by, and our home's folder where it is our own.

    Raises:
        UsageError: another's ledger, and no ``root`` to trust it by.
    """
    from federation.errors import UsageError
    from keyong.cli._context import open_home
    from keyong.evidence import fingerprint_of

    if path is None:
        home = open_home()
        return home.path, fingerprint_of(home.identity.fingerprint), home.path
    if root is None:
        raise UsageError(
            "it is not said which root this ledger is to be trusted by",
            hint="give --root FINGERPRINT, from a source that you trust",
        )
    return path, fingerprint_of(root), None


@contextmanager
def verified_reading(
    path: Path | None, root: str | None, take: Callable[[Entry, Mapping[str, Any]], object]
) -> Iterator[StatementCheck]:
    """Verify the ledger at ``path`` (our own where it is None) and hand each entry to ``take``; yields who checked it.

    Raises:
        UsageError: another's ledger, and no ``root`` to trust it by.
        VerificationError: it does not hold.
    """
    from federation.ledger import verify_ledger
    from keyong.embedded import StatementCheck
    from keyong.evidence import open_evidence

    place, fingerprint, _ = chosen_ledger(path, root)
    with open_evidence(place, fingerprint) as evidence:
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
