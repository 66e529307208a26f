"""``keyong node attribute``: what only the owner can say, and agreements are judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, narrate, table

if TYPE_CHECKING:
    from enterprise_node.attributes import Name

app = Commands("State where this node stands, consumers' industries, and what has happened.")
NameArgument = Annotated[str, typer.Argument(metavar="place|industry|event", help="What is stated.")]
ValueArgument = Annotated[
    str,
    typer.Argument(
        metavar="VALUE",
        help="A region (ISO 3166, such as CN-31), an industry (GB/T 4754, such as C31), or an event's name.",
    ),
]
OfOption = Annotated[
    str, typer.Option("--of", metavar="MEMBER", help="Of whom; an event without it holds for everybody.")
]


@app.command("set")
def set_(name: NameArgument, value: ValueArgument, of: OfOption = "") -> None:
    """State something that clauses on region, industry and events are judged by; it is on record, and takes effect at once.

    $ keyong node attribute set place CN-31
    $ keyong node attribute set industry C31 --of mill-b
    $ keyong node attribute set event acceptance-test-passed --of mill-b
    """
    from enterprise_node import attributes
    from keyong.cli._context import open_home

    known, text = _kind(name), _value(name, value)
    with open_home().open_ledger() as ledger:
        attributes.state(ledger, known, text, of)
    narrate("stated: {name} {value}", name=name, value=text)


@app.command()
def unset(name: NameArgument, value: ValueArgument, of: OfOption = "") -> None:
    """Take a statement back; clauses on it deny from now on.

    $ keyong node attribute unset event acceptance-test-passed --of mill-b
    """
    from enterprise_node import attributes
    from keyong.cli._context import open_home

    known, text = _kind(name), _value(name, value)
    with open_home().open_ledger() as ledger:
        attributes.withdraw(ledger, known, text, of)
    narrate("taken back: {name} {value}", name=name, value=text)


@app.command("list")
def list_() -> None:
    """List what is stated now, in the order in which it was.

    $ keyong node attribute list
    """
    from enterprise_node import attributes
    from keyong.cli._context import open_home

    with open_home().open_ledger() as ledger:
        found = attributes.attributes(ledger)
    if as_json():
        emit([vars(one) for one in found])
        return
    table(("name", "value", "of", "entry"), ((one.name, one.value, one.subject or "-", one.entry) for one in found))


def _kind(name: str) -> Name:
    from enterprise_node.attributes import KINDS
    from federation.errors import UsageError

    for known in KINDS:
        if known == name:
            return known
    raise UsageError("{text} is not known here", hint="one of: {terms}", text=name[:60], terms=", ".join(KINDS))


def _value(name: str, value: str) -> str:
    return f"event:{value.removeprefix('event:')}" if name == "event" else value
