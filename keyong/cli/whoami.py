"""``keyong whoami``: who this home is."""

from __future__ import annotations

from keyong.cli._commands import Commands
from keyong.cli._output import as_json, emit, facts
from keyong.cli._words import ROLES, listed

app = Commands()


@app.command()
def whoami() -> None:
    """Show this identity: member, legal entity, roles, public keys, the pinned root and the newest roster.

    $ keyong whoami --format json
    """
    from federation.crypto import certificate_fingerprint
    from federation.statements import UnknownMemberError, instant_text
    from keyong.cli._context import open_home

    home = open_home()
    identity, latest = home.identity, home.history.latest
    keys = {role: home.key(role).public.text for role in ("statement", "ledger", "witness")}
    certificate = certificate_fingerprint(home.tls.certificate_pem)
    try:
        latest.member(identity.member)
        enrolled = True
    except UnknownMemberError:
        enrolled = False
    if as_json():
        emit(
            {
                "home": str(home.path),
                "member": identity.member,
                "entity": identity.entity,
                "roles": list(identity.roles),
                "enrolled": enrolled,
                "consortium": {"id": identity.consortium, "name": identity.name, "fingerprint": identity.fingerprint},
                "keys": {**keys, "tls": certificate},
                "coordinator": {
                    "member": latest.coordinator.id,
                    "address": latest.coordinator.address or identity.address,
                },
                "roster": {
                    "version": latest.version,
                    "expires": instant_text(latest.expires),
                    "digest": home.history.digest,
                },
                "root_key_here": identity.founded,
            }
        )
        return
    facts(
        (
            ("member", identity.member),
            ("legal entity", identity.entity),
            ("roles", listed(ROLES, identity.roles)),
            ("consortium", identity.name),
            ("root fingerprint", identity.fingerprint),
            ("statement key", keys["statement"]),
            ("ledger key", keys["ledger"]),
            ("witness key", keys["witness"]),
            ("TLS certificate", certificate),
            ("coordinator", f"{latest.coordinator.id} {latest.coordinator.address or identity.address}"),
            ("roster version", latest.version),
            ("roster expires", instant_text(latest.expires)),
            ("home", home.path),
        )
    )
    if not enrolled:
        from federation.errors import UnavailableError

        raise UnavailableError(
            "{member} is no longer in the roster", hint="ask the founder", code="not-enrolled", member=identity.member
        )
