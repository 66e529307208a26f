"""``keyong budget``: the privacy budgets of the company's own datasets, what was spent on them, and where they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, line, narrate, say, table
from keyong.text import translate

if TYPE_CHECKING:
    from enterprise_node.budgets import Gauge, Spent

app = Commands("See what of our datasets' privacy budgets is spent, and set where they end.")
DatasetArgument = Annotated[
    str | None, typer.Argument(metavar="DATASET", help="One of our datasets; without it, all of them.")
]
CELLS = 20
"""Width of a gauge."""


@app.command()
def show(
    dataset: DatasetArgument = None,
    history: Annotated[bool, typer.Option("--history", help="Also every plan that spent anything.")] = False,
) -> None:
    """Show each budget: what is spent or reserved, what is left, and what that means as epsilon.

    Every job with noise draws on the same budgets: one of the dataset, for everybody together, in a calendar quarter (UTC);
    one of each company that asks, over all time. What a plan states is reserved when it begins and settled step by step; after
    a crash it stays reserved.

    $ keyong budget show
    $ keyong budget show passes --history
    """
    from enterprise_node.record import Record
    from federation.home import now
    from keyong.cli._context import open_home
    from keyong.registering import node_store

    home = open_home()
    store = node_store(home)
    names = [store.dataset(dataset).id] if dataset is not None else [one.id for one in store.datasets()]
    with home.open_ledger() as ledger:
        record = Record(ledger)
        gauges = record.gauges(tuple(names), now())
        spent = [one for one in record.spent() if one.dataset in names]
    if as_json():
        emit(
            {
                "budgets": [_gauge_document(one) for one in gauges],
                "history": [_spent_document(one) for one in spent],
            }
        )
        return
    table(
        ("dataset", "for", "spent", "limit", "left", "epsilon", ""),
        (
            (
                one.dataset,
                one.requester or translate("everybody, {quarter}", quarter=one.quarter),
                _rho(one.taken),
                _rho(one.limit),
                _rho(one.left),
                _epsilon(one.taken),
                bar(one.taken, one.limit),
            )
            for one in gauges
        ),
    )
    if history:
        line()
        say("plans:")
        table(
            ("time", "dataset", "company", "plan", "spent", "still reserved"),
            (
                (
                    one.at,
                    one.dataset,
                    one.requester,
                    one.plan.removeprefix("sha256:")[:8],
                    _rho(one.drawn),
                    _rho(one.reserved),
                )
                for one in spent
            ),
        )
    narrate("amounts are rho (zCDP); epsilon holds at delta {delta}", delta=_delta())


@app.command("set")
def set_(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="One of our datasets.")],
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Begin with a named set: standard, strict, test-only.")
    ] = None,
    quarterly: Annotated[
        str | None, typer.Option(metavar="RHO", help="What everybody together may spend in a calendar quarter.")
    ] = None,
    requester: Annotated[
        str | None, typer.Option(metavar="RHO", help="What one company may spend, over all time.")
    ] = None,
) -> None:
    """Set where a dataset's privacy budgets end. It is on record; what was spent stays spent.

    $ keyong budget set passes --profile strict
    $ keyong budget set passes --requester 0.2
    """
    from enterprise_node.budgets import Limits
    from enterprise_node.record import Record
    from federation.errors import UsageError
    from federation.privacy import PROFILES
    from keyong.cli._context import open_home
    from keyong.registering import node_store

    if profile is not None and profile not in PROFILES:
        raise UsageError(
            "{name} is not a named set of limits", hint="one of: {known}", name=profile[:40], known=", ".join(PROFILES)
        )
    if profile is None and quarterly is None and requester is None:
        raise UsageError("nothing is to be set", hint="give --profile, --quarterly or --requester")
    home = open_home()
    name = node_store(home).dataset(dataset).id
    with home.open_ledger() as ledger:
        record = Record(ledger)
        before = record.limits(name)
        if profile is not None:
            before = Limits(PROFILES[profile].dataset, PROFILES[profile].requester)
        limits = Limits(_micro(quarterly, before.quarterly), _micro(requester, before.requester))
        record.set_limits(name, limits)
    if as_json():
        emit({"dataset": name, "quarterly": _rho(limits.quarterly), "requester": _rho(limits.requester)})
        return
    narrate(
        "{dataset}: rho {quarterly} a quarter for everybody together, rho {requester} for each company",
        dataset=name,
        quarterly=_rho(limits.quarterly),
        requester=_rho(limits.requester),
    )


def bar(taken: int, limit: int) -> str:
    """A gauge: full where nothing is left; one cell as soon as anything is spent."""
    full = CELLS if taken >= limit else min(CELLS - 1, -(-taken * CELLS // limit))
    return "█" * full + "░" * (CELLS - full)


def _micro(text: str | None, default: int) -> int:
    from federation.errors import UsageError
    from federation.privacy import MICRO, exact

    if text is None:
        return default
    found = exact(text) * MICRO
    if not 0 <= found <= 2**52:
        raise UsageError("a budget of rho {text} cannot be set", text=text[:40])
    return int(found)


def _rho(amount: int) -> str:
    from federation.privacy import rho_text

    return rho_text(amount)


def _epsilon(amount: int) -> str:
    from federation.privacy import epsilon

    return f"{epsilon(amount, _delta()):.2f}"


def _delta() -> str:
    from federation.privacy import STANDARD

    return STANDARD.delta


def _gauge_document(one: Gauge) -> dict[str, Any]:
    return {
        "dataset": one.dataset,
        "requester": one.requester,
        "quarter": one.quarter,
        "rho_taken": _rho(one.taken),
        "rho_limit": _rho(one.limit),
        "rho_left": _rho(one.left),
        "epsilon": _epsilon(one.taken),
        "delta": _delta(),
    }


def _spent_document(one: Spent) -> dict[str, Any]:
    return {
        "plan": one.plan,
        "dataset": one.dataset,
        "requester": one.requester,
        "quarter": one.quarter,
        "rho_spent": _rho(one.drawn),
        "rho_reserved": _rho(one.reserved),
        "time": one.at,
    }
