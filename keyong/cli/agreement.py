"""``keyong agreement``: from an offer to its end."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated, Any

import typer

from keyong.cli import _clauses as clauses
from keyong.cli import agreement_check
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, interactive, narrate, table
from keyong.text import translate_data

app = Commands("Offer, request, sign, read and end agreements.")
app.command()(agreement_check.check)
app.command()(agreement_check.diff)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its id or digest, or how it begins.")]
ToOption = Annotated[str | None, typer.Option("--to", metavar="MEMBER", help="Who may use the dataset.")]
DatasetOption = Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="One of our datasets.")]


@app.command()
def offer(
    to: ToOption = None,
    dataset: DatasetOption = None,
    title: clauses.TitleOption = None,
    action: clauses.ActionOption = None,
    purpose: clauses.PurposeOption = None,
    count: clauses.CountOption = None,
    expires: clauses.ExpiresOption = None,
    code: clauses.CodeOption = None,
    app: clauses.AppOption = None,
    protection: clauses.ProtectionOption = "masked",
    min_tier: clauses.TierOption = None,
    min_participants: clauses.ParticipantsOption = None,
    column: clauses.ColumnOption = None,
    approval: clauses.ApprovalOption = False,
    review: clauses.ReviewOption = False,
    max_leak_bits: clauses.LeakOption = None,
    release_slot: clauses.SlotOption = None,
    pin_rules: clauses.PinRulesOption = False,
) -> None:
    """Sign an offer for one of our datasets and send it; it becomes an agreement when the other side signs the same
    bytes.

    What the clauses do not permit is denied. Each use is one job, whatever its rounds.

    $ keyong agreement offer --to institute --dataset passes --purpose fed:RollingForceModel --count 3 --expires 90d \\
        --app ./rolling-force --min-participants 3
    """
    _offer(
        to, dataset, title, action, purpose, count, expires, code, app, protection, min_tier, min_participants, column,
        approval, review, max_leak_bits, release_slot,
        pin_rules,
    )  # fmt: skip


@app.command()
def new(
    to: ToOption = None,
    dataset: DatasetOption = None,
    title: clauses.TitleOption = None,
    action: clauses.ActionOption = None,
    purpose: clauses.PurposeOption = None,
    count: clauses.CountOption = None,
    expires: clauses.ExpiresOption = None,
    code: clauses.CodeOption = None,
    app: clauses.AppOption = None,
    protection: clauses.ProtectionOption = "masked",
    min_tier: clauses.TierOption = None,
    min_participants: clauses.ParticipantsOption = None,
    column: clauses.ColumnOption = None,
    approval: clauses.ApprovalOption = False,
    review: clauses.ReviewOption = False,
    max_leak_bits: clauses.LeakOption = None,
    release_slot: clauses.SlotOption = None,
    pin_rules: clauses.PinRulesOption = False,
) -> None:
    """Make an offer, asking for what the options leave out; shows it before anything is signed.

    $ keyong agreement new
    """
    if interactive():
        from federation.home import now
        from keyong.cli._context import moment

        ask = clauses.question
        to = ask("to which member", to)
        dataset = ask("which of our datasets", dataset)
        purpose = purpose or [one for one in [ask("for which purpose", None, "fed:ProcessOptimization")] if one]
        uses = ask("how many jobs in all (empty: any number)", None if count is None else str(count), check=int)
        count = int(uses) if uses else None
        expires = ask("until when (a date, or 90d)", expires, "90d", check=lambda text: moment(text, now()))
    _offer(
        to,
        dataset,
        title,
        action,
        purpose,
        count,
        expires,
        code,
        app,
        protection,
        min_tier,
        min_participants,
        column,
        approval,
        review,
        max_leak_bits,
        release_slot,
        pin_rules,
        ask_first=interactive(),
    )


def _offer(
    to: str | None, dataset: str | None, title: Any, action: Any, purpose: Any, count: Any, expires: Any, code: Any,
    app: Any, protection: str, min_tier: Any, min_participants: Any, column: Any, approval: bool, review: bool,
    max_leak_bits: int | None, release_slot: int | None,
    pin_rules: bool, *, ask_first: bool = False,
) -> None:  # fmt: skip
    from federation.errors import UsageError
    from keyong import agreeing
    from keyong.cli._context import open_client
    from keyong.registering import node_store

    if not to:
        raise UsageError("it is not said to whom the offer goes", hint="give --to MEMBER")
    if not dataset:
        raise UsageError(
            "it is not said which dataset is offered",
            hint="give --dataset NAME, as `keyong node dataset list` shows it",
        )
    wanted = clauses.gather(
        dataset, title=title, action=action, purpose=purpose, count=count, expires=expires, code=code, app=app,
        protection=protection, min_tier=min_tier, min_participants=min_participants, column=column,
        approval=approval, review=review, max_leak_bits=max_leak_bits, release_slot=release_slot,
    )  # fmt: skip
    with open_client() as client:
        row = node_store(client.home).dataset(dataset)
        _check_columns(row, wanted.columns)
        if pin_rules:
            wanted = replace(wanted, rules=_rules_of(row))
        if ask_first:
            _confirm_offer(client, to, dataset, wanted)
        agreement, _ = agreeing.offer(client, to=to, dataset=dataset, **vars(wanted))
        _tell(client, agreement.id, "offered to {member}; it waits for their signature", member=to)


def _rules_of(row: Any) -> str:
    from enterprise_node.rules import read_rules
    from federation.errors import UsageError

    digest = read_rules(row.rules).digest
    if not digest:
        raise UsageError(
            "the dataset {dataset} has no rules that the offer could name",
            hint="set them first: `keyong node dataset rules set`",
            dataset=row.id,
        )
    return digest


def _check_columns(row: Any, columns: list[str] | None) -> None:
    from federation.errors import UsageError

    known = row.shown_names
    for name in columns or ():
        if name not in known:
            raise UsageError(
                "the dataset {dataset} has no column {name}",
                hint="it has: {known}",
                dataset=row.id,
                name=name[:128],
                known=", ".join(known),
            )


def _confirm_offer(client: Any, to: str, dataset: str, wanted: clauses.Clauses) -> None:
    import click

    from federation.home import now
    from federation.policy import agreement_policy, describe, parse_policy
    from keyong.cli._context import policy_language
    from keyong.cli._output import ask, line

    fields = {name: value for name, value in vars(wanted).items() if name != "title"}
    policy = agreement_policy(
        provider=client.home.identity.member, consumer=to, dataset=dataset, now=now(),
        agreement_id=f"urn:uuid:{uuid.uuid4()}", **{**fields, "code": wanted.code or None},
    )  # fmt: skip
    for sentence in describe(parse_policy(policy), policy_language()):
        line(f"  - {sentence}")
    if not ask("sign and send this offer?"):
        raise click.Abort()


@app.command()
def request(
    dataset: Annotated[
        str, typer.Argument(metavar="MEMBER/DATASET", help="The dataset, as `keyong catalog list` shows it.")
    ],
    title: clauses.TitleOption = None,
    action: clauses.ActionOption = None,
    purpose: clauses.PurposeOption = None,
    count: clauses.CountOption = None,
    expires: clauses.ExpiresOption = None,
    code: clauses.CodeOption = None,
    app: clauses.AppOption = None,
    protection: clauses.ProtectionOption = "masked",
    min_tier: clauses.TierOption = None,
    min_participants: clauses.ParticipantsOption = None,
    column: clauses.ColumnOption = None,
    approval: clauses.ApprovalOption = False,
    review: clauses.ReviewOption = False,
    max_leak_bits: clauses.LeakOption = None,
    release_slot: clauses.SlotOption = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="A word to the owner.")] = "",
) -> None:
    """Ask the owner of a dataset for an agreement of this shape; it grants nothing until they offer and we sign.

    $ keyong agreement request mill-a/passes --purpose fed:RollingForceModel --count 3 --expires 90d --app \\
        ./rolling-force
    """
    from federation.home import now
    from federation.policy import agreement_policy
    from keyong import agreeing
    from keyong.cli._context import open_client, split_dataset

    provider, name = split_dataset(dataset)
    wanted = clauses.gather(
        name, title=title, action=action, purpose=purpose, count=count, expires=expires, code=code, app=app,
        protection=protection, min_tier=min_tier, min_participants=min_participants, column=column,
        approval=approval, review=review, max_leak_bits=max_leak_bits, release_slot=release_slot,
    )  # fmt: skip
    with open_client() as client:
        client.dataset(provider, name)
        fields = {key: value for key, value in vars(wanted).items() if key != "title"}
        policy = agreement_policy(
            provider=provider, consumer=client.home.identity.member, dataset=name, now=now(),
            agreement_id=f"urn:uuid:{uuid.uuid4()}", **{**fields, "code": wanted.code or None},
        )  # fmt: skip
        statement = agreeing.request(
            client, provider=provider, dataset=name, title=wanted.title, policy=policy, note=note
        )
        _tell(client, statement.id, "asked {member}; their answer comes as an offer in `keyong inbox`", member=provider)


@app.command()
def sign(identifier: IdArgument) -> None:
    """Sign an offer made to us: from now on it is an agreement. Read it first with `keyong agreement show`.

    $ keyong agreement sign 5f0c
    """
    from keyong import agreeing
    from keyong.cli._context import open_client

    with open_client() as client:
        client.read_mail()
        agreement, _ = agreeing.sign(client, identifier)
        _tell(client, agreement.id, "in force; {member} gets the signed agreement now", member=agreement.provider)


def _tell(client: Any, identifier: str, sentence: str, **places: object) -> None:
    from keyong.cli._agreements import document, show_clauses

    held = client.holdings.find(identifier)
    if as_json():
        emit(document(held))
        return
    show_clauses(client.home, held)
    narrate(sentence, **places)


@app.command("list")
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
    rows = [held for held in holdings.list() if everything or state_of(held) in ("in-force", "offered")]
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


@app.command()
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


@app.command()
def revoke(
    identifier: IdArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; the other side reads it.")] = "",
) -> None:
    """End an agreement or withdraw an offer: here at once, at the other side when the notice arrives.

    A job that runs under it is ended.

    $ keyong agreement revoke 5f0c --reason "the contract ended"
    """
    from keyong import agreeing
    from keyong.cli._agreements import document
    from keyong.cli._context import open_client

    with open_client() as client:
        held = agreeing.revoke(client, identifier, reason)
        found = client.holdings.find(held.id)
    if as_json():
        emit(document(found))
        return
    narrate(
        "revoked; {member} is told",
        member=held.consumer if held.provider == client.home.identity.member else held.provider,
    )
