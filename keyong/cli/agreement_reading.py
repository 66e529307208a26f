"""``keyong agreement explain``, ``templates``, ``list`` and ``show``: what agreements say, read and not changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keyong.cli import _clauses as clauses
from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import translate_data

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id or digest, or how it begins.")]


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy as ODRL in JSON.")],
) -> None:
    """Say in words what a policy says, clause by clause, and what is wrong with it; nothing is signed or sent.

    $ keyong agreement explain policy.json
    $ keyong --lang zh agreement explain policy.json
    """
    from federation.policy import describe, parse_policy
    from keyong.cli._context import policy_language
    from keyong.cli._output import line
    from keyong.cli._policy_file import read_policy_file

    said = describe(parse_policy(read_policy_file(file)), policy_language())
    if as_json():
        emit({"sentences": said})
        return
    for sentence in said:
        line(f"- {sentence}")


def templates_() -> None:
    """List the templates that `new`, `offer` and `request` start from, and every key that `--set` takes.

    $ keyong agreement templates
    $ keyong agreement offer --to institute --dataset passes --template limited --set column=speed,force --set count=5
    """
    from federation.policy import CLAUSE_KEYS
    from keyong.templates import TEMPLATES
    from keyong.text import translate

    if as_json():
        emit({"templates": {name: dict(one.clauses) for name, one in TEMPLATES.items()},
              "keys": [*clauses.BASIC, *CLAUSE_KEYS]})  # fmt: skip
        return
    table(
        ("template", "stands for", "sets"),
        (
            (name, translate(one.title), "; ".join(f"{key}={value}" for key, value in one.clauses.items()))
            for name, one in TEMPLATES.items()
        ),
    )
    narrate("keys of --set: {keys}", keys=", ".join((*clauses.BASIC, *CLAUSE_KEYS)))


def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Also requests, and what is revoked, declined or expired.")
    ] = False,
) -> None:
    """List agreements in force and offers, as far as they are known here (`keyong inbox` reads new mail).

    $ keyong agreement list --all
    """
    from federation.statements import instant_text
    from keyong.cli._agreements import STATES, bits_text, document, read, short, state_of, used
    from keyong.cli._context import open_home

    home = open_home()
    holdings = clauses.holdings(home)
    rows = [held for held in holdings.list() if everything or state_of(held) in ("in-force", "suspended", "offered")]
    if as_json():
        emit([{**document(held), **used(home, held)} for held in rows])
        return
    table(
        ("id", "state", "provider", "consumer", "dataset", "expires", "bits", "title"),
        (
            (short(held), translate_data(STATES[state_of(held)]), held.provider, held.consumer, held.dataset,
             instant_text(read(held).expires), bits_text(used(home, held)) or "-", held.title)
            for held in rows
        ),
    )  # fmt: skip


def show(identifier: IdArgument) -> None:
    """Show an agreement, offer or request: what it says, clause by clause, who signed it, and how it stands.

    $ keyong agreement show 5f0c
    """
    from keyong.cli._agreements import document, show_clauses, signatures, used
    from keyong.cli._context import open_home

    home = open_home()
    held = clauses.holdings(home).find(identifier)
    if as_json():
        emit({**document(held), **used(home, held), "signatures": signatures(home, held)})
        return
    show_clauses(home, held)
