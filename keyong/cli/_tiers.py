"""What commands say of a tier of isolation, and how they ask for the weaker one."""

from __future__ import annotations

from typing import Annotated

import click
import typer

from federation.errors import DeniedError
from keyong.cli._output import ask, interactive, narrate

TIERS = click.Choice(["T0", "T1", "T2"])
AcceptOption = Annotated[
    str | None,
    typer.Option(
        "--accept-tier",
        metavar="T0|T1|T2",
        click_type=TIERS,
        help="The weakest isolation you accept for jobs on this machine. Without it: T2.",
    ),
]
_NEEDS_SANDBOX = {"member", "coordinator"}


class TierNotAcceptedError(DeniedError):
    """This machine isolates at a weaker tier than its owner accepted."""

    code = "tier-not-accepted"


def floor_to_enter(accepted: str | None, roles: tuple[str, ...]) -> str:
    """Return the floor for the roster entry: as given, or as the person at the terminal accepts; empty for T2.

    A machine that has T2 is asked nothing. One that has no tier at all enters, too: doctor tells how to repair it.

    Raises:
        TierNotAcceptedError: only T1 can be had here, and nobody accepted it.
    """
    if accepted is not None:
        tell_of(accepted)
        return accepted
    if not _NEEDS_SANDBOX.intersection(roles):
        return ""
    from sandbox import Tier, probe

    tiers = probe().tiers
    if Tier.T2 in tiers or Tier.T1 not in tiers:
        return ""
    tell_what_is_weaker()
    if interactive() and ask("accept T1 as the floor of isolation on this machine?"):
        return "T1"
    raise TierNotAcceptedError(
        "only T1 can be had on this machine, and nobody accepted it",
        hint="have T2 (`keyong doctor` prints the options of a container), or accept the weaker floor: --accept-tier T1",
    )


def tell_of(tier: str) -> None:
    """Say in words what a tier below T2 does not give."""
    if tier == "T1":
        tell_what_is_weaker()
    elif tier == "T0":
        tell_what_is_missing()


def tell_what_is_missing() -> None:
    """Say in words what T0 is."""
    narrate("T0 isolates nothing: job code runs as a plain process of this user and sees its files, keys and network")
    narrate(
        "it is for development: with --development alone, on data marked --simulated, under agreements that name T0"
    )
    narrate("plans, results and receipts say so, and the others see it in the roster")


def tell_what_is_weaker() -> None:
    """Say in words what T1 does not give."""
    narrate(
        "T1 isolates jobs without namespaces: by Landlock, a system call filter, limits, and a user id of their own."
    )
    narrate("what is weaker than T2: a job can see which processes run here, and whether a path exists")
    narrate("it sees this machine's host name, and its temporary files lie in this machine's /run until it ends")
    narrate("it has no local sockets, so code with worker processes (DataLoader) does not run")
    narrate("what stays as at T2: no network, no file but its own, no privilege, no signal to anyone else")
    narrate("the others see the tier in the roster and in each receipt; agreements that demand T2 refuse this node")
