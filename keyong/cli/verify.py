"""``keyong verify``: what a history proves, with a file, a fingerprint and no network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, line, narrate, print_error, progress_bar
from keyong.text import explain, mark, translate

if TYPE_CHECKING:
    from federation.errors import VerificationError
    from federation.ledger import Fork, ForkError, Verdict
    from federation.statements import Envelope
    from keyong.evidence import Evidence

PROCESSES = 2
"""That verify a long ledger at once; more would rarely be idle on an auditor's machine."""

app = Commands()


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A home, a ledger's folder, a file made by `keyong ledger export`, or the proof of a fork.",
        ),
    ],
    root: Annotated[
        str,
        typer.Option(metavar="FINGERPRINT", help="The consortium's root fingerprint, from a source that you trust."),
    ],
    receipts: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Receipts you hold of this ledger, as `keyong job result` fetched them."),
    ] = None,
    require: Annotated[
        str,
        typer.Option(
            metavar="integrity|anchored|complete",
            click_type=click.Choice(["integrity", "anchored", "complete"]),
            help="What exit code 0 demands.",
            show_default=True,
        ),
    ] = "integrity",
    fork_proof: Annotated[
        Path | None,
        typer.Option(
            "--fork-proof",
            metavar="FILE",
            help="Where to write the proof, should the ledger have signed another history than a receipt or its own file says.",
        ),
    ] = None,
    hashes_only: Annotated[
        bool,
        typer.Option(
            "--hashes-only",
            help="Recompute the tree and check the newest signature alone; statements, fields and times are not read.",
        ),
    ] = False,
) -> None:
    """Verify a ledger offline: recompute every hash and check every signature, from the root fingerprint on.

    Prints three lines. Integrity: entries, signatures and statements hold. Anchoring: whether others hold this history
    too; without that, whoever holds the ledger's key could have rewritten it. Completeness: what was begun was ended.

    Exit code 4 names the entry at which it fails. A fork (two histories that one ledger signed) can be written to a file,
    which anybody verifies with this command: exit code 0 then says that the fork is proved.

    $ keyong verify ~/mill-a --root sha256:9f86…
    $ keyong verify mill-a.export --root sha256:9f86… --receipts ./result/receipts --require anchored
    """
    from federation.errors import UsageError, VerificationError
    from federation.ledger import ForkError, verify_ledger
    from keyong.embedded import StatementCheck, read_proofs
    from keyong.evidence import fingerprint_of, open_evidence, read_fork

    fingerprint = fingerprint_of(root)
    try:
        if (fork := read_fork(path)) is not None:
            _show_fork(fork, fingerprint)
            return
        with open_evidence(path, fingerprint) as evidence:
            if hashes_only and not evidence.ledger.is_dir():
                raise UsageError(
                    "--hashes-only reads a ledger's folder, and {path} is an export",
                    hint="leave --hashes-only away: an export is always read as a whole",
                    path=path,
                )
            check = StatementCheck(evidence.rosters, evidence.continues)
            proofs = read_proofs(receipts, evidence.vkey, check) if receipts is not None else []
            with progress_bar(mark("verifying")) as progress:
                try:
                    verdict = verify_ledger(
                        evidence.ledger,
                        evidence.vkey,
                        witnesses=evidence.quorum.keys,
                        receipts=proofs,
                        checkpoints=evidence.checkpoints,
                        hash_only=hashes_only,
                        on_entry=check.on_entry,
                        progress=progress,
                        processes=min(PROCESSES, len(os.sched_getaffinity(0))),
                    )
                except ForkError as error:
                    if fork_proof is not None and error.evidence:
                        _write_fork(error, evidence, fork_proof.expanduser())
                    raise
    except VerificationError as error:
        _fail(error)
    _show(evidence, verdict, None if hashes_only else verdict.checked, len(proofs))
    _demand(require, verdict, _state(evidence, verdict))


def _write_fork(error: ForkError, evidence: Evidence, file: Path) -> None:
    from federation.ledger import prove_fork
    from keyong.evidence import write_fork

    write_fork(file, prove_fork(evidence.ledger, *error.evidence), evidence.history.envelopes)
    narrate("the proof of a fork is in {path}; hand it on: keyong verify FILE --root FINGERPRINT", path=file)


def _show_fork(fork: tuple[Fork, list[Envelope]], fingerprint: str) -> None:
    from keyong.evidence import verify_fork_file

    proved = verify_fork_file(*fork, fingerprint)
    old, new = proved.held.checkpoint, proved.shown.checkpoint
    if as_json():
        emit(
            {
                "fork": {
                    "proved": True,
                    "member": proved.member.id,
                    "entity": proved.member.entity,
                    "origin": old.origin,
                    "consortium": proved.consortium,
                    "held": {"entries": old.size, "root": old.root.hex()},
                    "shown": {"entries": new.size, "root": new.root.hex()},
                }
            }
        )
        return
    line(
        translate(
            "PROVED: the ledger of {member} ({entity}) signed two histories",
            member=proved.member.id,
            entity=proved.member.entity,
        )
    )
    facts(
        (
            ("one has", translate("{entries} entries, root {root}", entries=old.size, root=old.root.hex())),
            ("the other", translate("{entries} entries, root {root}", entries=new.size, root=new.root.hex())),
        )
    )
    narrate("its first {size} entries are others in the second: no honest ledger signs both", size=old.size)


def _fail(error: VerificationError) -> None:
    """Say that it fails and at which entry, then exit with code 4."""
    index = getattr(error, "index", None)
    message, hint = explain(error)
    english = error.message
    if index is not None and "{index}" not in error.template:
        message = translate("at entry {index}: {message}", index=index, message=message)
        english = f"at entry {index}: {english}"
    if as_json():
        emit({"integrity": {"holds": False, "entry": index, "code": error.code, "message": english}})
    else:
        facts((("integrity", translate("FAILED ({code})", code=error.code)),))
    print_error(error.code, message, hint, error.exit_code, english=(english, error.hint))
    raise typer.Exit(error.exit_code)


def _show(evidence: Evidence, verdict: Verdict, statements: int | None, receipts: int) -> None:
    if as_json():
        emit(
            {
                "member": evidence.member.id,
                "entity": evidence.member.entity,
                "origin": verdict.origin,
                "consortium": evidence.history.latest.name,
                "integrity": {
                    "holds": True,
                    "entries": verdict.entries,
                    "root": verdict.root.hex(),
                    "last_time": verdict.last_time,
                    "statements": statements,
                    "hashes_only": statements is None,
                    "receipts": receipts,
                    "erased": verdict.erased,
                    "withheld": verdict.withheld,
                },
                "anchoring": {
                    "state": _state(evidence, verdict),
                    "size": verdict.anchored_size,
                    "witnesses": list(evidence.quorum.members(verdict.witnesses)),
                    "quorum": evidence.quorum.needed,
                },
                "completeness": {
                    "state": verdict.completeness,
                    "open_intents": list(verdict.open_intents),
                    "stray_outcomes": list(verdict.stray_outcomes),
                },
            }
        )
        return
    narrate(
        "the ledger of {member} ({entity}) in {consortium}",
        member=evidence.member.id,
        entity=evidence.member.entity,
        consortium=evidence.history.latest.name,
    )
    facts(
        (
            ("integrity", _integrity(verdict, statements, receipts)),
            ("anchoring", _anchoring(evidence, verdict)),
            ("completeness", _completeness(verdict)),
        )
    )


def _integrity(verdict: Verdict, statements: int | None, receipts: int) -> str:
    if statements is None:
        return translate(
            "hashes intact: {entries} entries, newest {time}; what they say was not read",
            entries=verdict.entries,
            time=verdict.last_time or "-",
        )
    text = translate(
        "intact: {entries} entries, {statements} statements, newest {time}",
        entries=verdict.entries,
        statements=statements,
        time=verdict.last_time or "-",
    )
    if receipts:
        text += translate("; {count} receipts held are in it", count=receipts)
    if verdict.withheld:
        text += translate("; {count} fields were not disclosed", count=verdict.withheld)
    if verdict.erased:
        text += translate("; {count} fields were erased on record", count=verdict.erased)
    return text


def _state(evidence: Evidence, verdict: Verdict) -> str:
    """``unanchored``, ``partly witnessed``, ``witnessed``, or ``final``: to its end, by a quorum."""
    final = verdict.anchoring == "witnessed" and evidence.quorum.final(verdict.checkpoint, evidence.vkey)
    return "final" if final else verdict.anchoring


def _anchoring(evidence: Evidence, verdict: Verdict) -> str:
    state = _state(evidence, verdict)
    if state == "unanchored":
        return translate("unanchored: nobody else vouches for this history yet")
    names = ", ".join(evidence.quorum.members(verdict.witnesses))
    if state == "final":
        return translate("final: a quorum of other companies cosigned it to its end: {names}", names=names)
    if state == "witnessed":
        return translate(
            "witnessed to its end by {names}; it takes {needed} companies to make it final",
            names=names,
            needed=evidence.quorum.needed,
        )
    return translate("witnessed up to entry {size} by {names}", size=verdict.anchored_size, names=names)


def _completeness(verdict: Verdict) -> str:
    if verdict.completeness == "complete":
        return translate("complete: every intent has its outcome")
    if verdict.completeness == "open":
        entries = ", ".join(str(index) for index in (*verdict.open_intents, *verdict.stray_outcomes)[:20])
        return translate(
            "open: {count} steps without their counterpart (entries {entries})",
            count=len(verdict.open_intents) + len(verdict.stray_outcomes),
            entries=entries,
        )
    return translate("not judged")


def _demand(require: str, verdict: Verdict, anchoring: str) -> None:
    from federation.errors import VerificationError

    if require == "anchored" and anchoring != "final":
        raise VerificationError(
            "the history is {state}, and anchoring was required",
            hint="let its node run, connected, until a quorum of the other companies' nodes cosigned its newest entry",
            code="unanchored",
            state=anchoring,
        )
    if require == "complete" and verdict.completeness != "complete":
        raise VerificationError(
            "the history is {state}, and completeness was required",
            hint="a node closes open steps at its next start",
            code="incomplete",
            state=verdict.completeness,
        )
