"""``keyong ledger page``: one agreement as a file that opens from a disk and verifies itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.errors import UsageError
from keyong.cli._output import as_json, emit, facts, narrate, progress_bar
from keyong.cli._reading import PathArgument, RootOption, chosen_ledger
from keyong.text import mark

if TYPE_CHECKING:
    from keyong.pages.judging import Judgement
    from keyong.pages.source import Source


def page(
    agreement: Annotated[
        str, typer.Option("--agreement", metavar="ID", help="Which agreement, by the beginning of its id or digest.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.")],
    path: PathArgument = None,
    root: RootOption = None,
) -> None:
    """Write one agreement as an HTML file: its clauses, what is used of it, the way of each invocation, every entry.

    It opens from a disk without a server or a network. The browser that opens it verifies every entry in it: its bytes, its
    fields, its place in the tree that the ledger signed. The whole ledger is verified before it is written; where that does not
    hold, the page says so and the exit code is 4.

    $ keyong ledger page --agreement 5f0c -o rolling.html
    $ keyong ledger page mill-a.export --root sha256:9f86… --agreement 5f0c -o rolling.html
    """
    from keyong.cli._packages import demand_packages

    demand_packages("jinja2")
    from federation.ledger import LedgerError
    from keyong.pages.judging import judge
    from keyong.pages.source import open_source
    from keyong.pages.still import agreement_page

    place, fingerprint, home = chosen_ledger(path, root)
    with open_source(place, fingerprint, home) as source:
        with progress_bar(mark("reading")) as progress:
            source.index.bring_up(progress)
        with progress_bar(mark("verifying")) as progress:
            found = judge(place, fingerprint, progress)
        digest = _named(source, agreement)
        try:
            written = agreement_page(source, digest, found)
        except LedgerError as error:
            error.hint_template = error.hint_template or "keyong verify names what was changed"
            raise
        output.expanduser().write_text(written, encoding="utf-8")
    _tell(output, digest, found)


def _named(source: Source, name: str) -> str:
    """The digest of the agreement that a person named."""
    bare = name.removeprefix("urn:uuid:").removeprefix("sha256:").lower()
    with source.index.reader() as index:
        rows = index.execute("SELECT digest, id FROM agreement").fetchall()
    found = [digest for digest, id in rows if bare and (digest[7:].startswith(bare) or id[9:].startswith(bare))]
    if len(found) != 1:
        raise UsageError(
            "{count} agreements of this ledger begin with {name}",
            hint="`keyong ledger show --kind agreement` lists them",
            count=len(found),
            name=name[:90],
        )
    return str(found[0])


def _tell(output: Path, digest: str, found: Judgement) -> None:
    from federation.errors import VerificationError

    if as_json():
        emit(
            {"file": str(output), "agreement": digest, "holds": found.holds, "entry": found.entry, "code": found.fault}
        )
    else:
        facts((("file", output), ("agreement", digest)))
        narrate("wrote {path}", path=output)
    if not found.holds:
        raise VerificationError(
            "the ledger does not hold ({fault}), and the page says so", code="page-of-damaged", fault=found.fault
        )
