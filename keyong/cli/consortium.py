"""``keyong consortium``: founding, inviting, removing, looking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import click
import typer

from keyong.cli import _state, _words, consortium_root
from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts, line, narrate, table
from keyong.cli._tiers import AcceptOption, floor_to_enter

if TYPE_CHECKING:
    from federation.statements import Invitation
    from federation.statements.roster import Role

ROLES = click.Choice(["member", "coordinator", "analyst", "auditor"])
MemberArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="Short name: a-z, 0-9 and hyphens.")]

app = Commands("Found a consortium, invite and remove members, show its roster.")


@app.command()
def init(
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the consortium.")],
    member: Annotated[str, typer.Option(metavar="ID", help="The founder's short name: a-z, 0-9 and hyphens.")],
    entity: Annotated[str, typer.Option(metavar="NAME", help="The founder's legal entity, as registered.")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where members will reach the coordinator.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            "--roles",
            metavar="ROLE",
            click_type=ROLES,
            help="A role of the founder; repeat it. Default: member, coordinator, analyst.",
        ),
    ] = None,
    accept_tier: AcceptOption = None,
) -> None:
    """Found a consortium: make its root key, the founder's keys, and the first roster.

    The root key in this home signs every change of the membership. The fingerprint it prints is what others compare
    over another channel.

    $ keyong --home ~/institute consortium init --name "Plate mills" --member institute \\
        --entity "Rolling Institute" --address 10.0.0.5:7443
    """
    from keyong.founding import found

    _check_address(address)
    roles = _roles(role, ("member", "coordinator", "analyst"))
    tier = floor_to_enter(accept_tier, roles)
    home = found(_state.get().home, name=name, member=member, entity=entity, address=address, roles=roles, tier=tier)
    identity = home.identity
    if as_json():
        emit(
            {
                "consortium": identity.consortium,
                "name": identity.name,
                "member": identity.member,
                "fingerprint": identity.fingerprint,
                "home": str(home.path),
            }
        )
        return
    narrate(
        "founded {name}; its root key is in {path} and nowhere else", name=name, path=home.path / "keys" / "root.key"
    )
    facts((("consortium", identity.name), ("member", identity.member), ("root fingerprint", identity.fingerprint)))


def _roles(given: list[str] | None, default: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(cast("Role", role) for role in dict.fromkeys(given)) if given else default


def _check_address(address: str) -> None:
    from federation.errors import UsageError

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            "{address} is not an address", hint="write HOST:PORT, for example 10.0.0.5:7443", address=address[:80]
        )


@app.command()
def invite(
    member: MemberArgument,
    entity: Annotated[str, typer.Option(metavar="NAME", help="Its legal entity, as registered.")],
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", click_type=ROLES, help="A role; repeat it. Default: member."),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=365, metavar="N", help="Days until the invitation expires.", show_default=True)
    ] = 7,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it to a file for the owner alone, not to stdout."),
    ] = None,
) -> None:
    """Make a one-time invitation for a new member.

    Whoever holds it can enter as this member, once: send it over a private channel. It carries no key of anybody's
    identity; those are made where `keyong join` runs.

    $ keyong consortium invite mill-a --entity "Mill A Ltd" -o mill-a.invitation
    """
    from datetime import timedelta

    from coordinator.enrolment import invite as make
    from coordinator.migrations import COORDINATOR_STORE
    from coordinator.store import CoordinatorStore
    from federation.home import now
    from federation.statements import instant_text
    from federation.stores import open_engine
    from keyong.cli._context import open_home

    home = open_home()
    _refuse_without_root(home.identity.founded)
    store = CoordinatorStore(open_engine(home.path / "coordinator.db", COORDINATOR_STORE))
    roles = _roles(role, ("member",))
    earlier = [row for row in store.outstanding(instant_text(now())) if row.member == member]

    def deliver(made: Invitation) -> None:
        if output is not None:
            _write_private(output, made.to_text() + "\n")

    invitation = make(
        home, store, member=member, entity=entity, roles=roles, at=now(), validity=timedelta(days=days), deliver=deliver
    )
    text, expires = invitation.to_text(), instant_text(invitation.expires)
    if earlier:
        narrate("the earlier invitation for {member}, which nobody used, is void", member=member)
    if output is not None:
        narrate(
            "the invitation for {member} is in {path}; it works once, until {expires}",
            member=member,
            path=output,
            expires=expires,
        )
    if as_json():
        emit(
            {
                "member": member,
                "expires": expires,
                "invitation": text if output is None else "",
                "file": str(output or ""),
            }
        )
    elif output is None:
        line(text)


def _refuse_without_root(founded: bool) -> None:
    if not founded:
        from coordinator.enrolment import RootAbsentError

        raise RootAbsentError("this home holds no root key", hint="do this where the consortium was founded")


def _write_private(path: Path, text: str) -> None:
    from federation.crypto import write_private

    path = path.expanduser()
    write_private(path, text.encode())


@app.command()
def remove(member: MemberArgument) -> None:
    """Take a member out of the roster; its links are cut at once and its signatures no longer count.

    $ keyong consortium remove mill-a
    """
    from coordinator.enrolment import remove as sign_removal
    from federation.home import now
    from keyong.cli._context import check_member, open_home

    home = open_home()
    _refuse_without_root(home.identity.founded)
    check_member(home, member)
    sign_removal(home, member, now())
    if as_json():
        emit({"removed": member, "roster_version": home.history.latest.version})
        return
    narrate(
        "{member} is out of the roster, from version {version} on", member=member, version=home.history.latest.version
    )


@app.command()
def roster() -> None:
    """Show the newest roster this home has seen: members, legal entities, roles, and each one's floor of isolation.

    $ keyong consortium roster --format json
    """
    from federation.statements import instant_text
    from keyong.cli._context import open_home

    latest = open_home().history.latest
    if as_json():
        emit(
            {
                "consortium": latest.consortium,
                "name": latest.name,
                "version": latest.version,
                "expires": instant_text(latest.expires),
                "root": {
                    "threshold": latest.root.threshold,
                    "keys": list(latest.root.keys),
                    "fingerprint": latest.fingerprint,
                },
                "members": [
                    {
                        "id": one.id,
                        "entity": one.entity,
                        "roles": list(one.roles),
                        "statement_key": one.statement_key,
                        "ledger_key": one.ledger_key,
                        "witness_key": one.witness_key,
                        "address": one.address,
                        "tier": one.floor,
                    }
                    for one in latest.members
                ],
            }
        )
        return
    narrate(
        "{name}, roster version {version}, valid until {expires}",
        name=latest.name,
        version=latest.version,
        expires=instant_text(latest.expires),
    )
    rows = ((one.id, one.entity, _words.listed(_words.ROLES, one.roles), one.floor) for one in latest.members)
    table(("member", "legal entity", "roles", "tier"), rows)


app.command("root-key")(consortium_root.root_key)
app.command("propose")(consortium_root.propose)
app.command("approve")(consortium_root.approve)
app.command("adopt")(consortium_root.adopt)
