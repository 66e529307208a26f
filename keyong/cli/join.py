"""``keyong join``: entering a consortium."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli import _state
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, narrate
from keyong.cli._tiers import AcceptOption, floor_to_enter
from keyong.cli._words import ROLES, listed

app = Commands()


@app.command()
def join(
    invitation: Annotated[
        str, typer.Argument(metavar="INVITATION", help="The invitation's text, or the file that holds it.")
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256", help="The root fingerprint you were told over another channel; refuse any other."
        ),
    ] = None,
    accept_tier: AcceptOption = None,
) -> None:
    """Enter a consortium with an invitation: make keys here, enrol, and pin the root.

    The coordinator must be running. Private keys are made on this machine and never leave it.

    Jobs are isolated at T2. Where a machine has only T1 (a container without user namespaces), its owner must accept
    that floor: asked on a terminal, refused without one unless --accept-tier T1 is given. It is entered in the roster.

    $ keyong --home ~/mill-a join mill-a.invitation --fingerprint sha256:9f86…
    $ keyong join mill-a.invitation --accept-tier T1
    """
    from keyong.cli._context import quiet_logs
    from keyong.founding import join as enter
    from keyong.founding import read_invitation

    quiet_logs()
    ticket = read_invitation(invitation)
    floor = floor_to_enter(accept_tier, ticket.roles)
    home = enter(_state.get().home, ticket, fingerprint=fingerprint, tier=floor)
    identity = home.identity
    if as_json():
        emit(
            {
                "consortium": identity.consortium,
                "name": identity.name,
                "member": identity.member,
                "entity": identity.entity,
                "roles": list(identity.roles),
                "tier": home.tier_floor,
                "fingerprint": identity.fingerprint,
                "home": str(home.path),
            }
        )
        return
    narrate("entered {name} as {member}", name=identity.name, member=identity.member)
    facts(
        (
            ("member", identity.member),
            ("legal entity", identity.entity),
            ("roles", listed(ROLES, identity.roles)),
            ("floor of isolation", home.tier_floor),
            ("root fingerprint", identity.fingerprint),
        )
    )
    if fingerprint is None:
        narrate("compare the root fingerprint with the founder over another channel before you rely on it")
