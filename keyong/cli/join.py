"""``keyong join``: entering a consortium."""

from __future__ import annotations

from typing import Annotated

import typer

from keyong.cli import _state
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, narrate

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
) -> None:
    """Enter a consortium with an invitation: make keys here, enrol, and pin the root.

    The coordinator must be running. Private keys are made on this machine and never leave it.

    $ keyong --home ~/mill-a join mill-a.invitation --fingerprint sha256:9f86…
    """
    from keyong.cli._context import quiet_logs
    from keyong.founding import join as enter
    from keyong.founding import read_invitation

    quiet_logs()
    home = enter(_state.get().home, read_invitation(invitation), fingerprint=fingerprint)
    identity = home.identity
    if as_json():
        emit(
            {
                "consortium": identity.consortium,
                "name": identity.name,
                "member": identity.member,
                "entity": identity.entity,
                "roles": list(identity.roles),
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
            ("roles", ", ".join(identity.roles)),
            ("root fingerprint", identity.fingerprint),
        )
    )
    if fingerprint is None:
        narrate("compare the root fingerprint with the founder over another channel before you rely on it")
