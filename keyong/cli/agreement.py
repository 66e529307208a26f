"""``keyong agreement``: from an offer to its end."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from keyong.cli import _clauses as clauses
from keyong.cli import agreement_check, agreement_course, agreement_reading
from keyong.cli._commands import Commands
from keyong.cli._interview import interview
from keyong.cli._output import as_json, emit, interactive, narrate

app = Commands("Offer, request, sign, read and end agreements.")
app.command()(agreement_check.check)
app.command()(agreement_check.diff)
app.command()(agreement_course.suspend)
app.command()(agreement_course.resume)
app.command()(agreement_course.duties)
app.command()(agreement_course.fulfil)
IdArgument = agreement_reading.IdArgument
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
    protection: clauses.ProtectionOption = None,
    min_tier: clauses.TierOption = None,
    min_participants: clauses.ParticipantsOption = None,
    column: clauses.ColumnOption = None,
    approval: clauses.ApprovalOption = False,
    review: clauses.ReviewOption = False,
    max_leak_bits: clauses.LeakOption = None,
    release_slot: clauses.SlotOption = None,
    rho: clauses.RhoOption = None,
    cost: clauses.CostOption = None,
    tariff: clauses.TariffOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
    pin_rules: clauses.PinRulesOption = False,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="The clauses as ODRL in JSON, instead of options."),
    ] = None,
) -> None:
    """Sign an offer for one of our datasets and send it; it becomes an agreement when the other side signs the same
    bytes.

    What the clauses do not permit is denied. Each use is one job, whatever its rounds.

    $ keyong agreement offer --to institute --dataset passes --purpose fed:RollingForceModel --count 3 --expires 90d \\
        --app ./rolling-force --min-participants 3
    """
    given = clauses.Given(
        title=title, action=action, purpose=purpose, count=count, expires=expires, code=code, app=app,
        protection=protection, min_tier=min_tier, min_participants=min_participants, column=column, approval=approval,
        review=review, max_leak_bits=max_leak_bits, release_slot=release_slot, rho=rho, cost=cost, tariff=tariff,
    )  # fmt: skip
    if policy is not None:
        _offer_policy(to, dataset, given, policy)
        return
    _offer(to, dataset, given.over(clauses.terms_of(template, set_)), pin_rules)


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
    protection: clauses.ProtectionOption = None,
    min_tier: clauses.TierOption = None,
    min_participants: clauses.ParticipantsOption = None,
    column: clauses.ColumnOption = None,
    approval: clauses.ApprovalOption = False,
    review: clauses.ReviewOption = False,
    max_leak_bits: clauses.LeakOption = None,
    release_slot: clauses.SlotOption = None,
    rho: clauses.RhoOption = None,
    cost: clauses.CostOption = None,
    tariff: clauses.TariffOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
    pin_rules: clauses.PinRulesOption = False,
) -> None:
    """Make an offer, asking for what the options leave out; shows it before anything is signed.

    $ keyong agreement new
    """
    given = clauses.Given(
        title=title, action=action, purpose=purpose, count=count, expires=expires, code=code, app=app,
        protection=protection, min_tier=min_tier, min_participants=min_participants, column=column, approval=approval,
        review=review, max_leak_bits=max_leak_bits, release_slot=release_slot, rho=rho, cost=cost, tariff=tariff,
    )  # fmt: skip
    if interactive():
        to, dataset, given = interview(to, dataset, given, template, set_)
    else:
        given = given.over(clauses.terms_of(template, set_))
    _offer(to, dataset, given, pin_rules, ask_first=interactive())


def _offer(
    to: str | None, dataset: str | None, given: clauses.Given, pin_rules: bool, *, ask_first: bool = False
) -> None:
    from federation.errors import UsageError
    from keyong import agreeing
    from keyong.cli._context import check_member, open_client
    from keyong.registering import node_store

    if not to:
        raise UsageError("it is not said to whom the offer goes", hint="give --to MEMBER")
    if not dataset:
        raise UsageError(
            "it is not said which dataset is offered",
            hint="give --dataset NAME, as `keyong node dataset list` shows it",
        )
    wanted = clauses.gather(dataset, given)
    with open_client() as client:
        row = node_store(client.home).dataset(dataset)
        check_member(client.home, to)
        _check_columns(row, wanted.columns)
        if pin_rules:
            wanted = replace(wanted, rules=_rules_of(row))
        if ask_first:
            _confirm_offer(client, to, dataset, wanted)
        agreement, _ = agreeing.offer(
            client, to=to, dataset=dataset, title=wanted.title, cost=wanted.cost, tariff=wanted.tariff, **wanted.policy
        )
        _tell(client, agreement.id, "offered to {member}; it waits for their signature", member=to)


def _offer_policy(to: str | None, dataset: str | None, given: clauses.Given, path: Path) -> None:
    from federation.errors import UsageError
    from federation.home import now
    from keyong import agreeing
    from keyong.cli._context import check_member, moment, open_client
    from keyong.cli._policy_file import completed, read_policy_file
    from keyong.registering import node_store

    others = clauses.Given(title=given.title, expires=given.expires, cost=given.cost, tariff=given.tariff)
    if not (to and dataset and given.expires) or given != others:
        raise UsageError(
            "an offer by --policy takes --to, --dataset and --expires, and no other clause",
            hint="title, cost and tariff may stand beside it; everything else stands in the file",
        )
    raw = read_policy_file(path)
    with open_client() as client:
        node_store(client.home).dataset(dataset)
        check_member(client.home, to)
        identity = f"urn:uuid:{uuid.uuid4()}"
        provider = client.home.identity.member
        whole = completed(raw, provider=provider, consumer=to, dataset=dataset, identity=identity)
        agreement, _ = agreeing.offer_policy(
            client, to=to, dataset=dataset, title=given.title or dataset, expires=moment(given.expires, now()),
            policy=whole, cost=given.cost or "0", tariff=given.tariff or "",
        )  # fmt: skip
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
    from keyong.cli._agreements import tariff_text
    from keyong.cli._context import policy_language
    from keyong.cli._output import ask, line

    policy = agreement_policy(
        provider=client.home.identity.member, consumer=to, dataset=dataset, now=now(),
        agreement_id=f"urn:uuid:{uuid.uuid4()}", **wanted.policy,
    )  # fmt: skip
    for sentence in describe(parse_policy(policy), policy_language()):
        line(f"  - {sentence}")
    if wanted.tariff:
        line(f"  - {tariff_text(wanted.cost, wanted.tariff)}")
    if not ask("sign and send this offer?"):
        raise click.Abort()


app.command()(agreement_reading.explain)
app.command("templates")(agreement_reading.templates_)


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
    protection: clauses.ProtectionOption = None,
    min_tier: clauses.TierOption = None,
    min_participants: clauses.ParticipantsOption = None,
    column: clauses.ColumnOption = None,
    approval: clauses.ApprovalOption = False,
    review: clauses.ReviewOption = False,
    max_leak_bits: clauses.LeakOption = None,
    release_slot: clauses.SlotOption = None,
    rho: clauses.RhoOption = None,
    template: clauses.TemplateOption = None,
    set_: clauses.SetOption = None,
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
    given = clauses.Given(
        title=title, action=action, purpose=purpose, count=count, expires=expires, code=code, app=app,
        protection=protection, min_tier=min_tier, min_participants=min_participants, column=column, approval=approval,
        review=review, max_leak_bits=max_leak_bits, release_slot=release_slot, rho=rho,
    )  # fmt: skip
    wanted = clauses.gather(name, given.over(clauses.terms_of(template, set_)))
    with open_client() as client:
        client.dataset(provider, name)
        policy = agreement_policy(
            provider=provider, consumer=client.home.identity.member, dataset=name, now=now(),
            agreement_id=f"urn:uuid:{uuid.uuid4()}", **wanted.policy,
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


app.command("list")(agreement_reading.list_)
app.command()(agreement_reading.show)


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
