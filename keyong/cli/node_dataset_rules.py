"""``keyong node dataset rules``: what the owner does to columns before any job sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, line, narrate, say

app = Commands("Say what happens to a dataset's columns before any job sees them.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The dataset's name.")]


@app.command()
def show(name: NameArgument) -> None:
    """Show a dataset's rules in words, and the digest that agreements, intents and receipts name them by.

    $ keyong node dataset rules show passes
    """
    from enterprise_node.rules import read_rules
    from keyong.cli._context import open_home
    from keyong.registering import node_store

    rules = read_rules(node_store(open_home()).dataset(name).rules)
    if as_json():
        emit({"dataset": name, "rules": rules.digest, **rules.document()})
    elif not rules:
        narrate("{name} has no rules: jobs see the granted columns as they are", name=name)
    else:
        print_rules(rules)


@app.command("set")
def set_(
    name: NameArgument,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The rules, as TOML: a table [columns.NAME] for each column.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Take all rules away.")] = False,
) -> None:
    """Put a dataset under other rules; nothing is read, the catalog gets the schema that they leave.

    It is a new version of the dataset: jobs that were planned on the old one are refused, running ones end with their next
    step. Codes and pseudonyms that were made before stay the same.

    $ keyong node dataset rules set passes rules.toml
    $ keyong node dataset rules set passes --none
    """
    from enterprise_node.rules import Rules
    from federation.errors import UsageError
    from keyong.cli._context import open_home
    from keyong.registering import read_description, set_rules

    if (file is None) != none:
        raise UsageError("either name a file of rules, or take all away with --none")
    rules = Rules({}) if file is None else read_file(file)
    row = set_rules(open_home(), name, rules)
    if as_json():
        emit({"dataset": name, "rules": rules.digest, "data_version": row.data_version})
        return
    print_rules(rules)
    from keyong.cli.node_dataset import show_description

    line()
    show_description(read_description(row))
    narrate("set; this is what the catalog shows from now on")


@app.command()
def export(
    name: NameArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where it goes: a new file, for this account alone.")
    ],
) -> None:
    """Write down what the rules keep: which value has which code, and by how many days dates are moved.

    Whoever has this file can read the codes; it is never sent anywhere, and that it was written is on record. Pseudonyms
    cannot be read back: to find one, make it again from the value.

    $ keyong node dataset rules export passes -o codes.json
    """
    import json

    from federation.crypto import write_private
    from keyong.cli._context import open_home
    from keyong.previewing import kept_of_rules

    kept = kept_of_rules(open_home(), name)
    write_private(output, json.dumps(kept, ensure_ascii=False, indent=1).encode() + b"\n")
    if as_json():
        emit({"dataset": name, "codes": len(kept["codes"]), "file": str(output)})
    else:
        narrate(
            "{count} codes written to {path}; keep it where the data is kept", count=len(kept["codes"]), path=output
        )


def read_file(path: Path) -> Any:
    """The rules in a file."""
    from enterprise_node.rules import parse_rules
    from enterprise_node.rules.reading import MAX_BYTES
    from federation.errors import UsageError

    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode()
    except OSError as error:
        raise UsageError("{path} cannot be read: {reason}", path=path, reason=error.strerror or "") from None
    except UnicodeDecodeError:
        raise UsageError("{path} is not {expected}", path=path, expected="utf-8") from None
    return parse_rules(text)


def print_rules(rules: Any) -> None:
    """Print rules in words, with their digest."""
    from enterprise_node.rules import describe_rules
    from keyong.cli._context import policy_language

    for sentence in describe_rules(rules, policy_language()):
        line(f"  - {sentence}")
    if rules:
        say("digest of the rules: {digest}", digest=rules.digest)
