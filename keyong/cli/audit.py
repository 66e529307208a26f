"""``keyong audit``: several parties' exports held against one another, offline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, line, narrate, progress_bar, table
from keyong.text import explain, mark, translate, translate_data

if TYPE_CHECKING:
    from keyong.auditing import Audit, Audited, ForkFound
    from keyong.reconciling import Discrepancy

app = Commands()
SHOWN_ENTRIES = 6


@app.command()
def audit(
    exports: Annotated[
        list[Path],
        typer.Argument(
            metavar="EXPORT...",
            help="Files made by `keyong ledger export`, or homes: nodes', coordinator's, requesters'.",
        ),
    ],
    root: Annotated[
        str,
        typer.Option(metavar="FINGERPRINT", help="The consortium's root fingerprint, from a source that you trust."),
    ],
    evidence: Annotated[
        Path | None,
        typer.Option("--evidence", metavar="DIR", help="Where to write the proof of each fork that is found."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Also write the audit as an HTML page.")
    ] = None,
    require: Annotated[
        str,
        typer.Option(
            metavar="consistent|anchored",
            click_type=click.Choice(["consistent", "anchored"]),
            help="What exit code 0 demands.",
            show_default=True,
        ),
    ] = "consistent",
) -> None:
    """Audit several parties' ledgers together, offline, from the root fingerprint on.

    Three verdicts. Integrity and anchoring of each ledger, as `keyong verify` judges them. Completeness of all together: every
    request, INTENT, OUTCOME and acknowledgement that one party has on record must stand in the others' records too; what is
    missing, and against whom that speaks, is listed with the entries that show it. Fields that were erased or not disclosed
    are listed as not judged.

    Exit code 4 where a ledger does not hold, two histories of one ledger were signed, or anything does not add up.

    $ keyong audit mill-a.export mill-b.export institute.export lab.export --root sha256:9f86…
    $ keyong audit *.export --root sha256:9f86… --evidence ./forks --require anchored
    """
    from keyong.auditing import audit as judge
    from keyong.evidence import fingerprint_of

    fingerprint = fingerprint_of(root)
    with ExitStack() as bars:

        def progress(path: Path) -> Callable[[int, int], None]:
            bars.close()
            told: Callable[[int, int], None] = bars.enter_context(progress_bar(mark("verifying")))
            return told

        found = judge(exports, fingerprint, progress)
    written = _write_forks(found, exports, fingerprint, evidence)
    if page is not None:
        _write_page(found, fingerprint, page.expanduser())
    if as_json():
        emit(_document(found, written))
    else:
        _show(found)
        for path in written:
            narrate("the proof of a fork is in {path}; hand it on: keyong verify FILE --root FINGERPRINT", path=path)
    _demand(found, require)


def _write_forks(found: Audit, exports: list[Path], fingerprint: str, folder: Path | None) -> list[Path]:
    from keyong.evidence import open_evidence, write_fork

    if not found.forks or folder is None:
        return []
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with open_evidence(exports[0], fingerprint) as evidence:
        envelopes = evidence.history.envelopes
    written = []
    for number, one in enumerate(found.forks, start=1):
        path = folder / f"fork-{one.member}-{number}.json"
        write_fork(path, one.fork, envelopes)
        written.append(path)
    return written


def _show(found: Audit) -> None:
    table(
        ("member", "legal entity", "integrity", "anchoring", "entries"),
        (
            (
                one.member.id,
                one.member.entity,
                _integrity(one),
                translate_data(one.state) if one.state else "-",
                one.verdict.entries if one.verdict else "-",
            )
            for one in found.ledgers
        ),
    )
    for failed in found.ledgers:
        if failed.error is not None:
            line(f"{failed.member.id}: {explain(failed.error)[0]}")
    for fork in found.forks:
        line(_fork_text(fork))
    if found.reconciliation.findings:
        table(
            ("finding", "against", "what", "entries"),
            _findings(found),
        )
    for member, kind in found.reconciliation.unjudged:
        narrate(
            "not judged: entries of the kind {kind} in the ledger of {member} were erased or not disclosed",
            kind=kind,
            member=member,
        )
    ledgers = len(found.origins)
    facts(
        (
            ("integrity", translate("{held} of {all} ledgers hold", held=len(found.intact), all=ledgers)),
            ("anchoring", translate("{held} of {all} ledgers are final", held=len(found.final), all=ledgers)),
            ("completeness", _completeness(found)),
        )
    )


def _findings(found: Audit) -> list[tuple[str, str, str, str]]:
    return [
        (one.code, ", ".join(one.parties), translate(MEANINGS[one.code], node=one.node or "-"), _entries(one))
        for one in found.reconciliation.findings
    ]


def _write_page(found: Audit, fingerprint: str, path: Path) -> None:
    from keyong.cli._packages import demand_packages

    demand_packages("jinja2")
    from keyong.pages.audited import audit_page

    path.write_text(
        audit_page(found, fingerprint, [_fork_text(one) for one in found.forks], _findings(found)), encoding="utf-8"
    )
    narrate("wrote {path}", path=path)


def _integrity(one: Audited) -> str:
    return translate("intact") if one.error is None else translate("FAILED ({code})", code=one.error.code)


def _completeness(found: Audit) -> str:
    plans, findings = found.reconciliation.plans, len(found.reconciliation.findings) + len(found.forks)
    if findings:
        return translate("findings: {findings}; jobs reconciled: {plans}", findings=findings, plans=plans)
    if found.reconciliation.unjudged:
        return translate("nothing found, as far as it can be judged; jobs reconciled: {plans}", plans=plans)
    return translate("all ledgers tell one story; jobs reconciled: {plans}", plans=plans)


def _fork_text(one: ForkFound) -> str:
    return translate(
        "{member} signed two histories: {holder} holds, at its entry {entry}, a state that the export does not have",
        member=one.member,
        holder=one.held_by.member,
        entry=one.held_by.entry,
    )


def _entries(one: Discrepancy) -> str:
    shown = [f"{place.member}#{place.entry}" for place in one.evidence[:SHOWN_ENTRIES]]
    return " ".join(shown) + (" …" if len(one.evidence) > SHOWN_ENTRIES else "")


def _document(found: Audit, written: list[Path]) -> dict[str, Any]:
    return {
        "ledgers": [
            {
                "path": str(one.path),
                "member": one.member.id,
                "entity": one.member.entity,
                "integrity": {
                    "holds": one.verdict is not None,
                    "entries": one.verdict.entries if one.verdict is not None else None,
                    "code": one.error.code if one.error is not None else "",
                    "entry": getattr(one.error, "index", None),
                },
                "anchoring": {
                    "state": one.state,
                    "size": one.verdict.anchored_size if one.verdict is not None else 0,
                    "witnesses": list(one.quorum.members(one.verdict.witnesses)) if one.verdict is not None else [],
                },
            }
            for one in found.ledgers
        ],
        "forks": [
            {"member": one.member, "held_by": one.held_by.member, "entry": one.held_by.entry} for one in found.forks
        ],
        "proofs": [str(path) for path in written],
        "completeness": {
            "jobs": found.reconciliation.plans,
            "findings": [
                {
                    "code": one.code,
                    "plan": one.plan,
                    "against": list(one.parties),
                    "node": one.node,
                    "statement": one.detail,
                    "evidence": [{"member": place.member, "entry": place.entry} for place in one.evidence],
                }
                for one in found.reconciliation.findings
            ],
            "not_judged": [{"member": member, "kind": kind} for member, kind in found.reconciliation.unjudged],
        },
        "holds": found.holds,
    }


def _demand(found: Audit, require: str) -> None:
    from federation.errors import VerificationError

    if not found.holds:
        count = len(found.reconciliation.findings) + len(found.forks)
        count += sum(one.verdict is None for one in found.ledgers)
        raise VerificationError(
            "findings of the audit: {count}",
            hint="where exports were made before and after a job, make all anew and audit again; else ask the parties that "
            "findings speak against about the entries named, and keep the exports",
            code="audit-findings",
            count=count,
        )
    short = [one for one in found.ledgers if one.state != "final"]
    if require == "anchored" and short:
        raise VerificationError(
            "the ledgers of {members} are not final, and anchoring was required",
            hint="let their nodes run, connected, until a quorum of the other companies' nodes cosigned their newest entries",
            code="unanchored",
            members=", ".join(one.member.id for one in short),
        )


MEANINGS = {
    "cut-short": mark("the export ends before what its owner had signed: export it again, or ask for the rest"),
    "request-missing": mark("others worked on a plan that its requester has no record of"),
    "job-missing": mark("nodes worked on a job that the coordinator has no record of"),
    "outcome-missing": mark("{node} began a step of a job that is over, and its outcome is missing"),
    "receipt-missing": mark("the requester holds a receipt that {node} signed, and {node} has no record of it"),
    "receipt-moved": mark("{node} has a receipt at another entry than its proof said"),
    "receipts-differ": mark("the receipts of {node} are counted differently"),
    "step-repeated": mark("{node} began one signed step twice"),
    "acknowledgement-missing": mark("a result was given out, and the requester's record neither takes nor refuses it"),
    "acknowledgement-omitted": mark(
        "another party holds an acknowledgement that the requester signed and does not record"
    ),
    "acknowledgement-false": mark("an acknowledgement says something else of {node} than the requester's own record"),
}
