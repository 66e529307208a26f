"""``keyong node review``: outputs that wait for our release, where an agreement has each of them looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, line, narrate, say, table
from keyong.text import mark, translate_data

if TYPE_CHECKING:
    from enterprise_node.held import Decision, HeldHead, HeldRow
    from enterprise_node.output_summary import ArraySummary

app = Commands("Look at outputs that wait for our release, and release or refuse them.")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.")]
NoteOption = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it goes on record.")]

STATES = {None: mark("waits for us"), "released": mark("released"), "refused": mark("refused")}
COLUMNS = 12
"""Of a small table, so many values stand in one line."""


@app.command("list")
def list_() -> None:
    """List the outputs that wait.

    $ keyong --home ~/mill-a node review list
    """
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        found = [(row, owner.outputs.head(row)) for row in owner.outputs.rows()]
    if as_json():
        emit([_document(row, head) for row, head in found])
        return
    table(
        ("id", "state", "requester", "dataset", "purpose", "round", "stage", "bits", "until"),
        (
            (row.name, translate_data(STATES[row.decision]), head.requester, head.dataset, head.purpose,
             f"{head.round}", head.stage, head.summary.leak_bits, head.deadline)
            for row, head in found
        ),
    )  # fmt: skip


def _document(row: HeldRow, head: HeldHead) -> dict[str, Any]:
    return {
        "id": row.invocation,
        "state": row.decision or "waiting",
        "entry": row.entry,
        **head.model_dump(mode="json", exclude={"header", "padding", "isolation"}),
    }


@app.command()
def show(identifier: IdArgument) -> None:
    """Show an output that waits: what it holds, how large it is, how far it lies from what was sent; small tables whole.

    $ keyong --home ~/mill-a node review show 9c40
    """
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        row = owner.outputs.find(identifier)
        head = owner.outputs.head(row)
    if as_json():
        emit(_document(row, head))
        return
    summary = head.summary
    facts(
        (
            ("id", row.name),
            ("state", translate_data(STATES[row.decision])),
            ("job", head.job),
            ("requester", head.requester),
            ("purpose", head.purpose),
            ("dataset", head.dataset),
            ("code", head.code),
            ("round", f"{head.round}"),
            ("stage", head.stage),
            ("held since", head.held),
            ("until", head.deadline),
            ("rows", summary.rows),
            ("bytes", summary.bytes),
            ("bits at most", summary.leak_bits),
            ("L2 norm", f"{summary.l2:.6g}"),
            ("set to zero", summary.normalised),
            ("cut to a bound", summary.saturated),
            ("digest", head.digest),
        )
    )
    if summary.arrays:
        line()
        table(
            ("array", "type", "shape", "L2 norm", "largest", "against"),
            (
                (f"{one.record}/{one.name}", one.dtype, list(one.shape), f"{one.l2:.6g}", f"{one.largest:.6g}",
                 translate_data(mark("what was sent")) if one.sent else translate_data(mark("zero")))
                for one in summary.arrays
            ),
        )  # fmt: skip
    if summary.metrics:
        line()
        table(("metric", "value"), ((name, f"{value:.9g}") for name, value in summary.metrics.items()))
    for one in summary.arrays:
        if one.values:
            _show_values(one)


def _show_values(one: ArraySummary) -> None:
    line()
    say("all values of {array}:", array=f"{one.record}/{one.name} {list(one.shape)}")
    wide = one.shape[-1] if one.shape and 0 < one.shape[-1] <= COLUMNS else COLUMNS
    for start in range(0, len(one.values), wide):
        line("  " + "  ".join(f"{value:.6g}" for value in one.values[start : start + wide]))


@app.command()
def release(identifier: IdArgument, note: NoteOption = "") -> None:
    """Let an output leave; the round goes on with it.

    $ keyong --home ~/mill-a node review release 9c40
    """
    _decide(identifier, "released", note)


@app.command()
def refuse(identifier: IdArgument, note: NoteOption = "") -> None:
    """Keep an output here for good; the job ends at this node, and the others go on where the plan permits it.

    $ keyong --home ~/mill-a node review refuse 9c40 --note "too few rows"
    """
    _decide(identifier, "refused", note)


def _decide(identifier: str, decision: Decision, note: str) -> None:
    from federation.home import now
    from keyong.cli._context import open_home
    from keyong.owning import as_owner

    with as_owner(open_home()) as owner:
        row = owner.outputs.find(identifier)
        entry = owner.outputs.decide(row, decision, note[:500], now())
    if as_json():
        emit({"id": row.invocation, "state": decision, "entry": entry.index})
    elif decision == "released":
        narrate("released, entry {entry}; it leaves with the next answer of the node", entry=entry.index)
    else:
        narrate("refused, entry {entry}; nothing of it leaves", entry=entry.index)
