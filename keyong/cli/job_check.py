"""``keyong job check``: the app tried here, in the sandbox, on made-up rows."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._output import as_json, clean, emit, line, narrate, say
from keyong.cli.job_run import ConfigOption, OutputsOption, PathArgument
from keyong.text import mark

if TYPE_CHECKING:
    from federation.statements import Column
    from federation.statements.code import CodeBundle
    from keyong.checking import CheckReport
    from keyong.cli._app import App
    from keyong.client import Client
    from sandbox import Runtime

ROWS = 256
_PAINT = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Colours that the app's libraries write even into a pipe."""


def check(
    path: PathArgument,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="MEMBER/DATASET", help="Make up rows from this dataset's published schema."),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", metavar="FILE", help="Make up rows from a TOML or JSON file of columns: name, type."),
    ] = None,
    config: ConfigOption = None,
    outputs: OutputsOption = None,
    rows: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="How many rows to make up.", show_default=True)
    ] = ROWS,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="The runtime to try it in.")] = None,
    development: Annotated[
        bool,
        typer.Option("--development", help="Isolate nothing (T0): for a machine that has no tier, and code you trust."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the app prints also when all is well.")
    ] = False,
) -> None:
    """Try a Flower app on this machine, in the same sandbox as at the nodes, on rows made up from a schema.

    Nobody is asked for data, no agreement is used. Its isolation is the strongest that this machine has, and never
    less than agreements in force about the dataset demand; with --development it has none, and the app sees what you
    see. Shows the app's own output and full tracebacks where it fails, then what its replies hold: the output schema
    that a plan would need, as the app can declare it.

    $ keyong job check ./rolling-force --dataset mill-a/passes
    """
    from keyong.cli._app import load_app
    from keyong.cli._context import load_runtime, quiet_logs

    quiet_logs()
    app = load_app(path, config or (), outputs)
    tree = load_runtime(runtime)
    # An agreement that names no tier is content with whatever floor its node keeps, which is never none unless it says so.
    columns, demanded = _columns(dataset, schema, silent="T2" if development else "")
    report = run_check(app.bundle, columns, app.config, tree, rows, demanded, development=development)
    _show(report, app, tree.digest, verbose)
    if dataset is not None and not as_json():
        _tell_dropouts()


def _tell_dropouts() -> None:
    """Say what a masked round over all who have an agreement with us in force would survive."""
    from federation.secagg.cohorts import MINIMUM_ENTITIES
    from keyong.cli._context import open_client
    from keyong.cli._plans import tell_dropouts

    with open_client() as client:
        me = client.home.identity.member
        count = len({one.provider for one in client.holdings.list("in-force") if one.consumer == me})
    if count >= MINIMUM_ENTITIES:
        narrate("over all nodes whose agreements with you are in force:")
        tell_dropouts(count)


def run_check(
    bundle: CodeBundle,
    columns: Sequence[Column],
    config: Mapping[str, Any],
    tree: Runtime,
    rows: int,
    demanded: str,
    *,
    development: bool = False,
) -> CheckReport:
    """Try the app in isolation of at least the tier that is demanded; returns the report, good or not.

    Args:
        development: isolate nothing.
    """
    from federation.errors import DeniedError
    from keyong.checking import check_app, tier_here
    from sandbox import Tier

    if development and demanded not in ("", Tier.T0):
        raise DeniedError(
            "--development isolates nothing (T0), and an agreement in force about this dataset demands {tier}",
            hint="leave it out; or describe the rows with --schema",
            code="tier-unavailable",
            tier=demanded,
        )
    tier = Tier.T0 if development else tier_here(demanded)
    if development:
        narrate("DEVELOPMENT: the app runs without isolation (T0) and sees what you see on this machine")
    if tier == "T1":
        narrate("isolated at T1: this machine gives no more, and no agreement that is in force here demands more")
    return check_app(bundle, columns, config, tree, rows=rows, tier=tier)


def trial(
    bundle: CodeBundle, columns: Sequence[Column], config: Mapping[str, Any], tree: Runtime, demanded: str
) -> CheckReport:
    """What a trial shows; raises where the app does not run, so that no plan is made from it."""
    from keyong.cli._app import AppError

    report = run_check(bundle, columns, config, tree, ROWS, demanded)
    if not report.ok or report.outputs is None:
        raise AppError(
            "the app does not run on made-up rows ({reason_code}): {reason}",
            hint="see the traceback with `keyong job check`, or declare its outputs in [tool.keyong.outputs]",
            code="app-check",
            reason_code=report.code,
            reason=report.reason[:400],
        )
    return report


def _columns(dataset: str | None, schema: Path | None, silent: str) -> tuple[Sequence[Column], str]:
    """The columns to make up, and the isolation that agreements about them demand; ``silent`` where one names none."""
    from federation.errors import UsageError
    from keyong.cli._context import open_client, split_dataset

    if (dataset is None) == (schema is None):
        raise UsageError(
            "it is not said what rows should look like", hint="give either --dataset MEMBER/DATASET or --schema FILE"
        )
    if dataset is not None:
        member, name = split_dataset(dataset)
        with open_client() as client:
            client.read_mail()  # what was revoked demands nothing any more
            return client.dataset(member, name).description.columns, _demanded(client, member, name, silent)
    assert schema is not None
    return read_schema(schema.expanduser()), ""


def _demanded(client: Client, provider: str, dataset: str, silent: str) -> str:
    from federation.policy import demanded_tier, parse_policy
    from federation.statements import Agreement, Envelope

    me = client.home.identity.member
    held = [one for one in client.holdings.list("in-force") if (one.provider, one.dataset) == (provider, dataset)]
    agreements = [Agreement.read(Envelope.from_bytes(one.envelope)) for one in held if one.consumer == me]
    return max((demanded_tier(parse_policy(agreement.policy)) or silent for agreement in agreements), default="")


def read_schema(path: Path) -> tuple[Column, ...]:
    """Columns from a file: JSON as ``keyong catalog show --format json`` prints it, or TOML with ``[[columns]]``."""
    import json

    from pydantic import ValidationError

    from federation.errors import UsageError
    from federation.statements import Column

    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        columns = document["columns"] if isinstance(document, dict) else document
        return tuple(Column.model_validate(one) for one in columns)
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        raise UsageError(
            "{path} holds no columns",
            hint="write [[columns]] tables with name and type, "
            'or use the output of "keyong catalog show --format json"',
            path=path,
        ) from None


def _show(report: CheckReport, app: App, runtime: str, verbose: bool) -> None:
    from keyong.checking import as_toml
    from keyong.cli._app import AppError
    from keyong.cli._plans import describe_stage, outputs_document

    if as_json():
        emit(
            {
                "ok": report.ok,
                "code": report.code,
                "reason": report.reason,
                "app": app.bundle.digest,
                "runtime": runtime,
                "tier": str(report.tier),
                "config": app.config,
                "outputs": outputs_document(report.outputs) if report.outputs is not None else None,
                "undeclared": list(report.undeclared),
                "leak_bits": _leak(report, app) if report.outputs is not None else None,
                "client": {"stdout": report.client_output[0], "stderr": report.client_output[1]},
                "server": {"stdout": report.server_output[0], "stderr": report.server_output[1]},
                "files": [{"path": path, "size": size} for path, size in report.files],
                "seconds": round(report.seconds, 3),
            }
        )
    elif verbose or not report.ok:
        _show_output(report)
    if not report.ok:
        raise AppError(
            "the app does not run ({reason_code}): {reason}",
            hint="the lines above are its own output",
            code="app-check",
            reason_code=report.code,
            reason=report.reason[:2000],
        )
    if as_json() or report.outputs is None:
        return
    say("code     {digest}", digest=app.bundle.digest)
    say("runtime  {digest}", digest=runtime)
    say("tier     {tier}", tier=report.tier)
    for stage in ("train", "evaluate"):
        say("{stage} may return {what}", stage=stage, what=describe_stage(report.outputs.of(stage)))
    leak = _leak(report, app)
    say("a round of training carries {round} bits out of each node at most", round=leak["round"])
    if leak["job"]:
        say("a job of {rounds} rounds carries {bits} bits at most", rounds=leak["rounds"], bits=leak["job"])
    for path, size in report.files:
        say("result file {path}, {size} bytes", path=path, size=size)
    for text in report.undeclared:
        narrate("to be declared in [tool.keyong.outputs]: {what}", what=text)
    narrate(
        "the app runs here; a plan would hold what stands above. To declare it, so that no trial is needed before a run:"
    )
    line()
    line(as_toml(report.outputs).rstrip())


def _leak(report: CheckReport, app: App) -> dict[str, int]:
    """Bits that leave: of one round, and of a job of the app's own number of rounds, as the widest encoding has them."""
    from federation.secagg import Layout
    from federation.secagg.leak import bits_of_rounds, widest_reply
    from keyong.planning import ROUNDS_KEY

    outputs = app.outputs or report.outputs
    assert outputs is not None
    train = widest_reply(Layout.derive(report.sent.get("train", {}), outputs.train))
    evaluate = widest_reply(Layout.derive(report.sent.get("evaluate", {}), outputs.evaluate))
    rounds = app.config.get(ROUNDS_KEY)
    known = rounds if isinstance(rounds, int) and not isinstance(rounds, bool) else 0
    return {
        "round": bits_of_rounds(1, train, 0, evaluates=False),
        "rounds": known,
        "job": bits_of_rounds(known, train, evaluate) if known else 0,
    }


def _show_output(report: CheckReport) -> None:
    streams = (
        (mark("client part, stdout:"), report.client_output[0]),
        (mark("client part, stderr:"), report.client_output[1]),
        (mark("server part, stdout:"), report.server_output[0]),
        (mark("server part, stderr:"), report.server_output[1]),
    )
    for title, text in streams:
        if text.strip():
            narrate(title)
            for row in _PAINT.sub("", text.rstrip()).expandtabs(4).split("\n"):
                print(clean(row), file=sys.stderr)
