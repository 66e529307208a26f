"""``keyong ledger``: this party's own record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli import ledger_erase, ledger_page, ledger_serve, ledger_statement, ledger_succession
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, clean, emit, facts, line, narrate, table
from keyong.cli._reading import PathArgument, RootOption, verified_reading

if TYPE_CHECKING:
    from federation.home import Home
    from federation.ledger import Entry, Ledger
    from keyong.disclosing import AgreementEntries
    from keyong.replaying import DecisionReplay

app = Commands("Read this party's ledger, and export it for an auditor.")
app.command("erase")(ledger_erase.erase)
app.command()(ledger_serve.serve)
app.command()(ledger_page.page)
app.command()(ledger_statement.statement)
app.command()(ledger_succession.succeed)
app.command()(ledger_succession.begin)
SHORTENED = 160


@app.command()
def show(
    entry: Annotated[int | None, typer.Argument(metavar="[ENTRY]", help="One entry, in full.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only entries of this kind, such as intent, outcome, denied, agreement."),
    ] = None,
    last: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="How many of the newest entries.", show_default=True)
    ] = 20,
) -> None:
    """Show the newest entries of this party's ledger, or one entry with everything it holds.

    $ keyong ledger show --kind denied
    $ keyong ledger show 17
    """
    from keyong.cli._context import open_home

    with open_home().open_ledger() as ledger:
        if entry is not None:
            _show_one(ledger, entry)
            return
        entries = _newest(ledger, kind, last)
        rows = [(one, _readable(ledger.fields(one.index))) for one in entries]
    if as_json():
        emit([_document(one, fields) for one, fields in rows])
        return
    table(
        ("entry", "time", "kind", "settles", "contents"),
        ((one.index, one.time, one.kind, "" if one.ref is None else one.ref, _summary(fields)) for one, fields in rows),
    )


def _newest(ledger: Ledger, kind: str | None, last: int) -> list[Entry]:
    from collections import deque

    if kind is None:
        size = ledger.size
        return list(ledger.entries(max(0, size - last), size))
    return list(deque(ledger.find(kind=kind), maxlen=last))


def _show_one(ledger: Ledger, index: int) -> None:
    one = ledger.entry(index)
    fields = _readable(ledger.fields(index))
    if as_json():
        emit(_document(one, fields))
        return
    facts(
        (
            ("entry", one.index),
            ("kind", one.kind),
            ("time", one.time),
            ("settles", "" if one.ref is None else str(one.ref)),
            ("previous", one.prev),
        )
    )
    for name, value in fields.items():
        line()
        line(f"{clean(name)}:")
        for row in _pretty(value).splitlines():
            line(f"  {clean(row)}")
    erased = sorted(set(one.fields) - set(fields))
    if erased:
        narrate("erased: {names}", names=", ".join(erased))


def _document(one: Entry, fields: dict[str, Any]) -> dict[str, Any]:
    return {"index": one.index, "time": one.time, "kind": one.kind, "ref": one.ref, "prev": one.prev, "fields": fields}


def _readable(fields: dict[str, Any]) -> dict[str, Any]:
    """Signed statements as what they say; other values as they are."""
    return {name: _statement(value) if isinstance(value, bytes) else value for name, value in fields.items()}


def _statement(data: bytes) -> Any:
    import base64
    import json

    from federation.errors import KeyongError
    from federation.statements import Envelope

    try:
        envelope = Envelope.from_bytes(data)
        return {"type": envelope.payload_type, "digest": envelope.digest, "statement": json.loads(envelope.payload)}
    except (KeyongError, ValueError):
        return {"base64": base64.b64encode(data).decode()}


def _pretty(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _summary(fields: dict[str, Any]) -> str:
    from keyong.pages.words import short

    parts = [f"{name}={short(value)}" for name, value in fields.items() if isinstance(value, str | int) and value != ""]
    text = "  ".join(clean(part) for part in parts)
    return text if len(text) <= SHORTENED else text[: SHORTENED - 1] + "…"


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; for the owner alone, mode 0600.")],
    withhold: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="A field to leave sealed as a commitment; repeat it.")
    ] = None,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Leave every field sealed: envelopes and proofs alone.")
    ] = False,
    agreement: Annotated[
        str | None,
        typer.Option(metavar="AGREEMENT", help="Open only what is of this agreement; all else stays sealed."),
    ] = None,
) -> None:
    """Write the whole history and the rosters to one file that anybody can verify offline.

    What is sealed stays a commitment: the auditor sees that it is there and unchanged, not what it says.

    $ keyong ledger export mill-a.export && keyong verify mill-a.export --root sha256:9f86…
    $ keyong ledger export for-lab.export --agreement 125a3335
    """
    import tempfile

    from keyong.cli._context import open_home
    from keyong.evidence import write_export

    home = open_home()
    kept = frozenset(withhold or ())
    target = file.expanduser().absolute()

    with home.open_ledger() as ledger, tempfile.TemporaryDirectory(dir=home.folder("spool")) as folder:
        opened = _of_agreement(ledger, _agreement(home, agreement)).disclose if agreement is not None else None

        def disclose(entry: Entry) -> list[str]:
            names = opened(entry) if opened is not None else entry.fields
            return [] if sealed else [name for name in names if name not in kept]

        part = Path(folder) / "ledger"
        ledger.export(part, disclose=disclose)
        write_export(target, part, home.history.envelopes)
        size = ledger.size
    if as_json():
        emit({"file": str(target), "entries": size, "fingerprint": home.identity.fingerprint})
        return
    narrate("wrote {path}; the auditor needs it and the root fingerprint, the latter over another channel", path=target)
    facts((("file", target), ("root fingerprint", home.identity.fingerprint)))


def _agreement(home: Home, name: str) -> str:
    """The digest of an agreement that a person named."""
    from federation.holdings import Holdings, open_engine

    return Holdings(open_engine(home.path / "store.db")).find(name).digest


def _of_agreement(ledger: Ledger, digest: str) -> AgreementEntries:
    from keyong.disclosing import AgreementEntries

    return AgreementEntries.of(ledger, digest)


@app.command()
def tiles(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write them; what is there already is kept.")
    ],
) -> None:
    """Write the history as the static files of a transparency log (C2SP tlog-tiles), for other people's tools.

    Anybody may have them, and any web server can publish them: they hold kinds, times and commitments, and no field.
    Run it again to add what is new.

    $ keyong ledger tiles ./public && keyong whoami
    """
    from keyong.cli._context import open_home

    home = open_home()
    target = folder.expanduser().absolute()
    with home.open_ledger() as ledger:
        written = ledger.write_tiles(target)
        size, vkey = ledger.size, str(ledger.vkey)
    if as_json():
        emit({"folder": str(target), "entries": size, "files": written, "vkey": vkey})
        return
    narrate("wrote {count} files", count=written)
    facts((("folder", target), ("entries", size), ("verifier key", vkey)))


@app.command()
def replay(
    path: PathArgument = None,
    root: RootOption = None,
) -> None:
    """Judge every decision of a ledger again, from its entries alone, and report any that comes out otherwise.

    Each permit and each denial holds the values it was judged by. They are judged by the clauses of the agreement on
    record, with uses counted anew; a permit under an agreement that had ended is reported too. What was erased or not
    disclosed is listed, not guessed. Exit code 4 where anything differs.

    $ keyong ledger replay
    $ keyong ledger replay mill-a.export --root sha256:9f86…
    """
    from keyong.replaying import DecisionReplay

    again = DecisionReplay()
    with verified_reading(path, root, again.on_entry):
        pass
    _tell_replay(again)


def _tell_replay(again: DecisionReplay) -> None:
    from federation.errors import VerificationError

    if as_json():
        emit(
            {
                "same": again.same,
                "findings": [
                    {
                        "entry": one.index,
                        "agreement": one.agreement,
                        "differences": [vars(difference) for difference in one.differences],
                    }
                    for one in again.findings
                ],
                "erased": again.erased,
                "refused": dict(sorted(again.refused.items())),
            }
        )
    else:
        if again.findings:
            table(
                ("entry", "what", "as recorded", "judged again"),
                (
                    (one.index, difference.what, difference.recorded, difference.again)
                    for one in again.findings
                    for difference in one.differences
                ),
            )
        facts(
            (
                ("decisions as recorded", again.same),
                ("that come out otherwise", len(again.findings)),
                ("erased or not disclosed", len(again.erased)),
                ("refused before any clause was judged", again.refused.total()),
            )
        )
    if again.findings:
        raise VerificationError(
            "{count} decisions come out otherwise when they are judged again, the first at entry {index}",
            hint="ask the ledger's owner about these entries (`keyong ledger show ENTRY`)",
            code="replay-differs",
            count=len(again.findings),
            index=again.findings[0].index,
        )
