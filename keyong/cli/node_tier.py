"""``keyong node tier``: the floor of isolation on this machine."""

from __future__ import annotations

from typing import Annotated

import click
import typer

from keyong.cli._output import as_json, emit, facts, narrate
from keyong.cli._tiers import tell_of


def tier(
    floor: Annotated[
        str | None,
        typer.Argument(
            metavar="[T0|T1|T2|T3]",
            click_type=click.Choice(["T0", "T1", "T2", "T3"]),
            help="The weakest isolation you accept.",
        ),
    ] = None,
) -> None:
    """Show the weakest isolation accepted for jobs on this machine, or accept another.

    What you accept is entered in the roster, where the others see it, and in your ledger. A node uses the strongest tier
    that its machine has, and refuses to serve where that is below the floor. T3 (gVisor) is several times slower, so it is
    used only where it is the floor. T0 is no isolation: it is used only with `serve --development`, on made-up data.

    $ keyong node tier
    $ keyong node tier T1
    """
    from keyong.cli._context import open_home, quiet_logs
    from sandbox import probe

    quiet_logs()
    home = open_home()
    if floor is not None:
        from keyong.tiers import change_tier

        tell_of(floor)
        change_tier(home, floor)
    tiers = [str(one) for one in probe().tiers]
    if as_json():
        emit({"floor": home.tier_floor, "tiers": tiers})
        return
    facts((("floor of isolation", home.tier_floor), ("tiers of this machine", ", ".join(tiers) or "-")))
    if floor is not None:
        narrate("a running node keeps the tier it started with: restart it")
