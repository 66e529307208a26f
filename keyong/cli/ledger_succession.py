"""``keyong ledger succeed`` and ``begin``: a new ledger after one that was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keyong.cli._output import as_json, confirmed, emit, facts, narrate


def succeed(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the request, for holders of root keys.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What happened; it goes into the request.")],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A checkpoint of the lost ledger that another company cosigned; repeat it."),
    ] = None,
) -> None:
    """Ask for a new ledger, where the old one is lost beyond its last signed size and cannot go on.

    The request names the last state of the old ledger that another company cosigned: the witnesses are asked, and files can be
    given. It changes nothing until holders of root keys approve it (`keyong consortium propose OUT --new-ledger FILE`).

    $ keyong ledger succeed new-ledger.json --reason "disk lost on 3 May, newest backup of 2 May"
    """
    from keyong.cli._context import open_home, quiet_logs
    from keyong.succeeding import prepare, write_request

    quiet_logs()
    home = open_home()
    found = prepare(home, [path.expanduser().read_bytes() for path in checkpoint or ()], reason)
    write_request(file, found.envelope)
    if as_json():
        emit(
            {
                "file": str(file),
                "member": found.statement.member,
                "number": found.statement.number,
                "entries": found.checkpoint.size,
                "witnesses": list(found.witnesses),
            }
        )
        return
    facts(
        (
            ("entries vouched for", found.checkpoint.size),
            ("by", ", ".join(found.witnesses)),
            ("new ledger", found.statement.number),
        )
    )
    narrate("give it to the holders of root keys: keyong consortium propose OUT --new-ledger {file}", file=file)


def begin(
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before beginning. Needed where there is no terminal.")
    ] = False,
) -> None:
    """Begin the new ledger, once the roster names it; the old one is kept beside it as evidence.

    What agreements had used is not known to it: plans and agreements from before are refused, and each dataset's privacy budget
    is nothing until it is set anew (`keyong budget set`). Nor is it known which sums were opened on the data: none without noise
    is opened beside them until you allow it (`keyong node openings --allow`).

    $ keyong ledger begin
    """
    from keyong.cli._context import open_home, quiet_logs
    from keyong.succeeding import begin as carry_out

    quiet_logs()
    home = open_home()
    confirmed("begin a new ledger? agreements from before end here", yes=yes)
    with carry_out(home) as ledger:
        origin, entries = ledger.origin, ledger.size
    if as_json():
        emit({"origin": origin, "entries": entries})
        return
    facts((("origin", origin), ("entries", entries)))
    narrate("tell the other members, and sign agreements anew")
