"""``keyong consortium root-key|propose|approve|adopt``: rosters that several holders of root keys sign together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli._output import as_json, confirmed, emit, facts, line, narrate

if TYPE_CHECKING:
    from keyong.rooting import Proposal

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The proposal's file, which travels among the holders.")
]


def root_key() -> None:
    """Show this home's root key, and make one where there is none: its public half, for others to propose.

    A root key signs rosters and nothing else. Keep it where it was made, and a sealed backup of it (`keyong backup --keys`).

    $ keyong --home ~/plant-1 consortium root-key
    """
    from keyong.cli._context import open_home
    from keyong.rooting import root_key as held

    home = open_home()
    text = held(home, make=True).public.text
    in_force = text in home.history.latest.root.keys
    if as_json():
        emit({"root_key": text, "in_force": in_force})
        return
    line(text)
    if not in_force:
        narrate("it is not one of the root's keys yet: a holder of one proposes it, with --add-root")


def propose(
    file: FileArgument,
    add_root: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A root key to add, as `root-key` printed it; repeat it.")
    ] = None,
    remove_root: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A root key to take away; repeat it.")
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option(min=1, max=16, metavar="N", help="How many root keys have to sign a roster from then on."),
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="MEMBER", help="A member to remove; repeat it.")] = None,
    new_ledger: Annotated[
        Path | None,
        typer.Option(
            "--new-ledger", metavar="FILE", help="A member's request for a new ledger (`keyong ledger succeed`)."
        ),
    ] = None,
) -> None:
    """Propose the next roster, signed by the root key held here, as a file for the other holders.

    Without a change, it is the same members anew, for another 90 days. A change of the root needs the signatures of the old and
    of the new quorum.

    $ keyong consortium propose quorum.json --add-root ed25519:… --add-root ed25519:… --threshold 2
    $ keyong consortium propose out.json --remove mill-c
    """
    from keyong.cli._context import open_home
    from keyong.rooting import propose as make
    from keyong.rooting import read_proposal, save
    from keyong.succeeding import read_request

    home = open_home()
    envelope = make(
        home,
        add=add_root or (),
        drop=remove_root or (),
        threshold=threshold,
        remove=remove or (),
        new_ledger=read_request(new_ledger) if new_ledger is not None else None,
    )
    save(file, envelope)
    _show(read_proposal(home, file), file)


def approve(
    file: FileArgument,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before signing. Needed where there is no terminal.")
    ] = False,
) -> None:
    """Show what a proposal changes, and sign it with the root key held here.

    $ keyong --home ~/plant-1 consortium approve quorum.json
    """
    from keyong.cli._context import open_home
    from keyong.rooting import approve as sign
    from keyong.rooting import read_proposal, save

    home = open_home()
    proposal = read_proposal(home, file)
    if not as_json():
        _tell(proposal)
    confirmed("sign it?", yes=yes)
    save(file, sign(home, proposal))
    _show(read_proposal(home, file), file)


def adopt(file: FileArgument) -> None:
    """Take a proposal as the newest roster, at the coordinator, once enough root keys signed it; everybody connected is told.

    $ keyong --home ~/institute consortium adopt quorum.json
    """
    from keyong.cli._context import open_home
    from keyong.rooting import adopt as take

    roster = take(open_home(), file)
    if as_json():
        emit({"roster_version": roster.version, "threshold": roster.root.threshold, "keys": list(roster.root.keys)})
        return
    narrate(
        "roster version {version} is in force; {threshold} of {count} root keys sign the next one",
        version=roster.version,
        threshold=roster.root.threshold,
        count=len(roster.root.keys),
    )


def _tell(proposal: Proposal) -> None:
    old, new = proposal.before.root, proposal.roster.root
    narrate("roster version {version} would change:", version=proposal.roster.version)
    for key in sorted(set(new.keys) - set(old.keys)):
        narrate("  root key added    {key}", key=key)
    for key in sorted(set(old.keys) - set(new.keys)):
        narrate("  root key removed  {key}", key=key)
    if new.threshold != old.threshold:
        narrate("  signatures needed {new} instead of {old}", new=new.threshold, old=old.threshold)
    for member in proposal.removed:
        narrate("  member removed    {member}", member=member)
    for member, size in proposal.new_ledgers:
        narrate(
            "  new ledger        {member}, after {size} entries of the lost one that others vouch for",
            member=member,
            size=size,
        )
    for member in proposal.changed:
        narrate("  entry changed     {member}", member=member)
    if new == old and not (proposal.removed or proposal.new_ledgers or proposal.changed):
        narrate("  nothing but its dates")


def _show(proposal: Proposal, file: Path) -> None:
    old, new = proposal.old_missing, proposal.new_missing
    if as_json():
        emit(
            {
                "file": str(file),
                "roster_version": proposal.roster.version,
                "signed": list(proposal.signed),
                "missing_of_old_root": old,
                "missing_of_new_root": new,
            }
        )
        return
    facts((("signatures", len(proposal.signed)), ("missing of the old root", old), ("missing of the new root", new)))
    if old or new:
        narrate("each further holder signs it: keyong consortium approve {file}", file=file)
    else:
        narrate("it can be adopted at the coordinator: keyong consortium adopt {file}", file=file)
