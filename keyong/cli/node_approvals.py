"""``keyong node approvals``: which code may run on our data, where agreements leave that to us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, clean, emit, facts, line, narrate, say, table
from keyong.text import mark, translate, translate_data

if TYPE_CHECKING:
    from enterprise_node.approvals import Approval
    from enterprise_node.code_review import ShownFile

app = Commands("Read, approve and refuse the code of others, where an agreement asks for it.")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.")]
NoteOption = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it goes on record.")]

STATES = {
    "waiting": mark("waits for us"),
    "granted": mark("granted"),
    "refused": mark("refused"),
    "withdrawn": mark("withdrawn"),
}
ODD = {
    "control-characters": mark("holds characters that a terminal would act on or hide; they are shown as <U+...>"),
    "long-lines": mark("holds lines longer than 200 characters: look at their ends"),
    "encoding": mark("says that it is written in another encoding than UTF-8: Python may read something else"),
    "non-ascii-names": mark("holds names with letters beyond ASCII: what looks alike need not be the same"),
    "binary": mark("is not text; its bytes cannot be read here"),
}


@app.command("list")
def list_() -> None:
    """List the code that waits for our word, and what we decided before.

    $ keyong --home ~/mill-a node approvals list
    """
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        found = owner.approvals.known()
    if as_json():
        emit([_document(one) for one in found])
        return
    table(
        ("id", "state", "requester", "app", "code", "bits at most", "time"),
        (
            (one.name, translate_data(STATES[one.state]), one.requester, one.app, one.code[:19], one.leak_bits, one.at)
            for one in found
        ),
    )


def _document(one: Approval) -> dict[str, Any]:
    return {
        "id": one.id,
        "state": one.state,
        "requester": one.requester,
        "app": one.app,
        "code": one.code,
        "agreement": one.agreement,
        "purpose": one.plan.purpose if one.plan else "",
        "leak_bits": one.leak_bits,
        "entry": one.entry,
        "time": one.at,
    }


@app.command()
def show(
    identifier: IdArgument,
    file: Annotated[
        list[str] | None, typer.Option("--file", metavar="PATH", help="Only this file; repeat it. Default: all.")
    ] = None,
) -> None:
    """Show what waits: who asks, for what, what may leave, how many bits, and the code, line by line.

    $ keyong --home ~/mill-a node approvals show 3f9a
    """
    from enterprise_node.code_review import shown
    from keyong.cli._context import open_home
    from keyong.cli._plans import outputs_document
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        found = owner.approvals.find(identifier)
        files = [one for one in shown(owner.approvals.bundle(found)) if not file or one.path in file]
    if as_json():
        plan = found.plan
        more = {"outputs": outputs_document(plan.outputs), "rounds": plan.rounds} if plan else {}
        emit({**_document(found), **more, "files": [_file_document(one) for one in files]})
        return
    _show_request(found)
    for one in files:
        _show_file(one)
    line()
    _say_meaning()


def _file_document(one: ShownFile) -> dict[str, Any]:
    return {"path": one.path, "size": one.size, "sha256": one.sha256, "odd": list(one.odd), "lines": one.lines}


def _show_request(found: Approval) -> None:
    from keyong.cli._plans import describe_stage

    plan = found.plan
    stages = ("train", "evaluate")
    may = [
        (translate("{stage} may return", stage=stage), describe_stage(plan.outputs.of(stage)))  # type: ignore[arg-type]
        for stage in stages
        if plan and f"fed:{stage}" in plan.actions
    ]
    facts(
        (
            ("id", found.id),
            ("state", translate_data(STATES[found.state])),
            ("requester", found.requester),
            ("app", found.app),
            ("code", found.code),
            ("agreement", found.agreement),
            ("purpose", plan.purpose if plan else ""),
            ("rounds", plan.rounds if plan else ""),
            ("config", " ".join(f"{key}={value}" for key, value in sorted(plan.run_config.items())) if plan else ""),
            *may,
            ("bits at most", found.leak_bits),
        )
    )
    if plan and not plan.leak_bits:
        narrate("the plan does not say how much leaves; the bits are the most that its largest reply could hold")


def _show_file(one: ShownFile) -> None:
    line()
    line(f"==> {clean(one.path)}  {one.size}  sha256:{one.sha256}")
    for code in one.odd:
        say("!!! this file {what}", what=translate_data(ODD[code]))
    for number, text in enumerate(one.lines or (), start=1):
        line(f"{number:5}  {text}")


def _say_meaning() -> None:
    say(
        "To approve means: you trust this code not to single out a member, and not to hide rows in what it returns. The "
        "sandbox keeps it from everything else; what it puts into its declared outputs, nothing can. At most the bits "
        "above leave."
    )


@app.command()
def diff(identifier: IdArgument) -> None:
    """Show what changed since the version of this app that we approved last, as a unified diff.

    $ keyong --home ~/mill-a node approvals diff 3f9a
    """
    from enterprise_node.code_review import differences
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        found = owner.approvals.find(identifier)
        before = owner.approvals.before(found)
        after = owner.approvals.bundle(found)
        lines = list(differences(owner.approvals.bundle(before), after)) if before is not None else []
    if as_json():
        emit({"id": found.id, "code": found.code, "before": before.code if before else None, "diff": lines})
        return
    if before is None:
        narrate("no version of {app} by {requester} was approved before", app=found.app, requester=found.requester)
        return
    narrate("since {code}, approved {time}:", code=before.code, time=before.at)
    for text in lines:
        line(text)


@app.command()
def grant(
    identifier: IdArgument,
    note: NoteOption = "",
    dp: Annotated[
        str | None,
        typer.Option(
            metavar="RHO",
            help="Take it to be differentially private by itself: what one job of it, with this config, costs.",
        ),
    ] = None,
) -> None:
    """Approve this code, under its agreement, with its outputs, up to its bits. Anything else is asked for anew.

    With --dp it is your word that the code adds noise (Opacus, say) and that all it returns is private: no node can check
    that. It holds for this code with the config and the rounds of the plan that asked, and for no other.

    $ keyong --home ~/mill-a node approvals grant 3f9a --note "read by the process engineers"
    """
    from federation.home import now
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        found = owner.approvals.find(identifier)
        entry = owner.approvals.grant(found, note[:500], now(), _micro(dp))
    if as_json():
        emit({**_document(found), "state": "granted", "entry": entry.index})
        return
    _say_meaning()
    narrate("granted, entry {entry}; the requester has to run the job again", entry=entry.index)


def _micro(dp: str | None) -> int:
    from federation.errors import UsageError
    from federation.privacy import MICRO, exact

    found = int(exact(dp or "0") * MICRO)
    if dp is not None and not 1 <= found < 2**52:
        raise UsageError("a privacy budget is at least rho 0.000001", hint="write it as a decimal, such as --rho 0.05")
    return found


@app.command()
def refuse(identifier: IdArgument, note: NoteOption = "") -> None:
    """Refuse this code; what was granted is withdrawn, and no further step of it runs.

    $ keyong --home ~/mill-a node approvals refuse 3f9a --note "line 40 returns single rows"
    """
    from federation.home import now
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        found = owner.approvals.find(identifier)
        entry = owner.approvals.refuse(found, note[:500], now())
    state = "withdrawn" if found.state == "granted" else "refused"
    if as_json():
        emit({**_document(found), "state": state, "entry": entry.index})
    elif state == "withdrawn":
        narrate("withdrawn, entry {entry}; no further step of it runs", entry=entry.index)
    else:
        narrate("refused, entry {entry}", entry=entry.index)
