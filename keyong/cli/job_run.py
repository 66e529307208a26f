"""``keyong job run``: from an app to its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import click
import typer

from keyong.cli._output import as_json, confirmed, emit_line, narrate
from keyong.text import mark

if TYPE_CHECKING:
    from federation.ledger import Appended
    from federation.statements import Anchoring, JobPlan
    from federation.statements.plan import Action, Aggregation
    from keyong.checking import CheckReport
    from keyong.choosing import Choice
    from keyong.cli._app import App
    from keyong.client import Client
    from sandbox import Runtime

PathArgument = Annotated[
    Path, typer.Argument(metavar="PATH", help="The app's folder, the one that holds pyproject.toml.")
]
PurposeOption = Annotated[str, typer.Option(metavar="PURPOSE", help="For what, as the agreements name it.")]
DatasetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset", metavar="MEMBER/DATASET", help="A dataset to use; repeat it. Default: all that agreements permit."
    ),
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="Replace a value of the app's config; repeat it."),
]
OutputsOption = Annotated[
    Path | None,
    typer.Option(
        "--outputs", metavar="FILE", help="TOML with what replies may hold, instead of what the app declares."
    ),
]


def run(
    path: PathArgument,
    purpose: PurposeOption,
    dataset: DatasetsOption = None,
    config: ConfigOption = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rounds; by default the app's num-server-rounds.")
    ] = None,
    outputs: OutputsOption = None,
    action: Annotated[
        list[str] | None,
        typer.Option(
            "--action", metavar="ACTION", help="What the job does: train, evaluate; repeat it. Default: both."
        ),
    ] = None,
    aggregation: Annotated[
        str,
        typer.Option(
            metavar="sum|each",
            click_type=click.Choice(["sum", "each"]),
            help="each shows single replies to the app, where agreements permit it.",
            show_default=True,
        ),
    ] = "sum",
    min_participants: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many nodes must take part. Default: all; under masks as many as open a sum, and never fewer.",
        ),
    ] = None,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime that the plan names.")] = None,
    round_seconds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Longest a node may compute on one step.", show_default=True)
    ] = 3600,
    rho: Annotated[
        str | None,
        typer.Option(
            metavar="RHO",
            help="Add noise: the privacy budget that the whole job takes of each dataset, such as 0.05.",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(metavar="NORM", help="Shrink each node's change of the model to this L2 norm at most."),
    ] = None,
    code_rho: Annotated[
        str | None,
        typer.Option(
            metavar="RHO", help="What the owners approved this code for, which adds noise by itself (Opacus)."
        ),
    ] = None,
    review_wait: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long a step may wait for owners who look at outputs; 1d by default."),
    ] = None,
    anchoring: Annotated[
        str | None,
        typer.Option(
            metavar="committed|witnessed|final",
            click_type=click.Choice(["committed", "witnessed", "final"]),
            help="Who vouches for the receipts before the result is used: the nodes alone, another company, or a quorum."
            " Default: witnessed, where there is another company.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before signing. Needed where there is no terminal.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, print the job's id, and leave.")] = False,
) -> None:
    """Run a Flower app under the agreements in force: show them and the plan, sign it, submit it, follow it to its end.

    The plan fixes code, datasets, rounds, and what replies may hold; nobody can change it afterwards. Exit code 3 means
    that nodes refused, naming the clause; 5 that nodes could not be reached.

    $ keyong job run ./rolling-force --purpose fed:RollingForceModel --config lr=0.01 --rounds 20
    $ keyong job run ./rolling-force --purpose fed:RollingForceModel --dataset mill-a/passes --dataset mill-b/passes \\
        --yes
    """
    from keyong.choosing import choose
    from keyong.cli._app import load_app
    from keyong.cli._clauses import qualified
    from keyong.cli._context import load_runtime, open_client
    from keyong.planning import rounds_of

    app = load_app(path, config or (), outputs, rounds)
    actions = [cast("Action", qualified(one, ("fed:train", "fed:evaluate"))) for one in action or ("train", "evaluate")]
    wanted_rounds = rounds_of(app.config, rounds)
    tree = load_runtime(runtime)
    with open_client() as client:
        client.read_mail()
        chosen = choose(
            client.home,
            client.holdings,
            client.catalog(),
            purpose=purpose,
            actions=actions,
            code=app.bundle.digest,
            datasets=dataset or (),
        )
        _warn_of_purpose(client, chosen, purpose, actions)
        plan = _plan(
            client,
            chosen,
            app,
            tree,
            purpose,
            actions,
            wanted_rounds,
            cast("Aggregation", aggregation),
            min_participants,
            round_seconds,
            _seconds(review_wait),
            cast("Anchoring | None", anchoring),
            rho,
            clip,
            code_rho,
        )
        _present(chosen, plan)
        confirmed("sign and run this?", yes=yes)
        _carry_out(client, plan, app, detach)


def _plan(
    client: Client, chosen: Sequence[Choice], app: App, tree: Runtime, purpose: str, actions: Sequence[Action],
    rounds: int, aggregation: Aggregation, min_participants: int | None, round_seconds: int, review_seconds: int | None,
    anchoring: Anchoring | None,
    rho: str | None, clip: str | None, code_rho: str | None,
) -> JobPlan:  # fmt: skip
    from keyong.planning import demanded, make_plan

    wanted = demanded(chosen, actions)
    bounded = wanted.approval or wanted.leak_bounded
    report = None
    if app.outputs is None:
        report = _trial(chosen, app, tree, mark("the app declares no outputs: trying it here, on made-up rows"))
    elif bounded:
        report = _trial(
            chosen, app, tree, mark("agreements bound what leaves: trying the app here, to say how much it is")
        )
    outputs = app.outputs or (report.outputs if report is not None else None)
    assert outputs is not None  # trial() raises where it finds none

    return make_plan(
        client.home,
        chosen,
        bundle=app.bundle,
        runtime=tree.digest,
        purpose=purpose,
        actions=actions,
        run_config=app.config,
        rounds=rounds,
        outputs=outputs,
        aggregation=aggregation,
        minimal_participants=min_participants,
        round_seconds=round_seconds,
        sent=report.sent if report is not None and bounded else None,
        review_seconds=review_seconds,
        anchoring=anchoring,
        rho=rho,
        clip=clip,
        code_rho=code_rho,
    )


def _warn_of_purpose(client: Client, chosen: Sequence[Choice], purpose: str, actions: Sequence[Action]) -> None:
    """Say which agreements do not permit the purpose, before anything that follows from it alone is complained of."""
    from keyong.choosing import failing_clauses

    for choice in chosen:
        if "purpose" in failing_clauses(choice, client.home, purpose, actions):
            described = choice.published.description
            narrate(
                "the agreement over {dataset} does not permit the purpose {purpose}: its node will refuse",
                dataset=f"{described.provider}/{described.dataset}",
                purpose=purpose,
            )


def _trial(chosen: Sequence[Choice], app: App, tree: Runtime, why: str) -> CheckReport:
    """What a trial run here shows, on rows made up from the first dataset's schema."""
    from federation.policy import demanded_tier, parse_policy
    from keyong.cli.job_check import trial

    narrate(why)
    demanded = max(demanded_tier(parse_policy(choice.agreement.policy)) for choice in chosen)
    return trial(app.bundle, chosen[0].published.description.columns, app.config, tree, demanded)


def _seconds(text: str | None) -> int | None:
    """A duration such as ``2d`` in seconds."""
    from datetime import UTC, datetime

    from keyong.cli._context import moment

    if text is None:
        return None
    at = datetime.now(UTC)
    return int((moment(text, at) - at).total_seconds())


def _present(chosen: Sequence[Choice], plan: JobPlan) -> None:
    from keyong.cli._plans import narrate_agreements, narrate_plan

    narrate_agreements(chosen)
    narrate_plan(plan)
    if as_json():
        emit_line({"event": "plan", "job": plan.id, "plan": plan.model_dump(mode="json")})


def _carry_out(client: Client, plan: JobPlan, app: App, detach: bool) -> None:
    from federation.errors import KeyongError

    envelope = plan.seal(client.home.key("statement"))
    recorded = client.ledger.append(
        "plan", {"plan": envelope.to_bytes(), "digest": envelope.digest, "purpose": plan.purpose}
    )
    try:
        job = client.submit(envelope, app.bundle.to_bytes())
    except KeyongError as error:
        _record_end(client, recorded, plan.id, envelope.digest, "not-submitted", error.code)
        raise
    if detach:
        submitted(job)
        return
    narrate("submitted as job {job}", job=job.removeprefix("urn:uuid:"))
    follow_and_record(client, job, plan.rounds, plan.protection, recorded=recorded, digest=envelope.digest)


def submitted(job: str) -> None:
    """Print the id of a job that goes on without us."""
    from keyong.cli._output import line

    if as_json():
        emit_line({"event": "submitted", "job": job})
    else:
        line(job)
        narrate("follow it with: keyong job watch {job}", job=job.removeprefix("urn:uuid:")[:8])


def follow_and_record(
    client: Client,
    job: str,
    rounds: int,
    protection: str,
    *,
    recorded: Appended | None = None,
    digest: str = "",
    after: int = 0,
) -> None:
    """Follow a job to its end, from its events after a number on, put the end on record, and exit with its code."""
    from keyong.cli._following import conclude, follow

    try:
        course = follow(client, job, rounds, after)
    except KeyboardInterrupt:
        narrate("the job goes on; stop it with: keyong job cancel {job}", job=job.removeprefix("urn:uuid:")[:8])
        raise
    _record_end(client, recorded, job, digest, course.status, str(course.data.get("code", "")))
    if code := conclude(course, job, protection):
        raise typer.Exit(code)


def _record_end(client: Client, recorded: Appended | None, job: str, digest: str, status: str, code: str) -> None:
    fields: dict[str, Any] = {"job": job, "plan": digest, "status": status, "code": code}
    client.ledger.append("result", fields, ref=recorded.index if recorded is not None else None)
