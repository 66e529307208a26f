"""``keyong node openings``: the sums that this node helped to open, and the owner's word on those that stand against others."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import translate


def openings(
    allow: Annotated[
        str | None,
        typer.Option(
            "--allow",
            metavar="DATASET",
            help="Let sums that were opened on this dataset no longer stand against others.",
        ),
    ] = None,
) -> None:
    """Show between which companies sums were opened with this node's help, or let other sums be opened beside them.

    Sums over different companies can be added and taken away until one company is left, so without noise the node helps to
    open sums over one set of companies, with the same data, for each version of its own. It knows no better than that: if you
    do (the models are long apart, say), allow another; that is on record.

    $ keyong node openings
    $ keyong node openings --allow passes
    """
    from enterprise_node.record import Record
    from keyong.cli._context import open_home
    from keyong.registering import node_store

    home = open_home()
    store = node_store(home)
    names = {one.data_version: one.id for one in store.datasets()}
    ledger = home.open_ledger()
    try:
        record = Record(ledger)
        if allow is not None:
            dataset = store.dataset(allow)
            count = record.forgive(dataset.data_version, dataset.id)
            narrate("{count} sums no longer stand against others", count=count)
        found = record.openings()
    finally:
        ledger.close()
    if as_json():
        emit(
            [
                {
                    "dataset": names.get(one.data_version, ""),
                    "data_version": one.data_version,
                    "plan": one.plan,
                    "members": one.members,
                    "allowed": one.forgiven,
                }
                for one in found
            ]
        )
        return
    table(
        ("dataset", "plan", "companies", "allowed"),
        (
            (
                names.get(one.data_version, "-"),
                one.plan.removeprefix("sha256:")[:8],
                ", ".join(sorted(set(one.members.values()))) or translate("not known"),
                translate("yes") if one.forgiven else "",
            )
            for one in found
        ),
    )
