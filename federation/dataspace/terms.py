"""Names and bounds of the Dataspace Protocol 2025-1 as it is spoken here.

Ours stand under :data:`KEYONG` as whole IRIs, which JSON-LD takes without a further context.
"""

from __future__ import annotations

from datetime import timedelta

VERSION = "2025-1"
CONTEXT = "https://w3id.org/dspace/2025/1/context.jsonld"
WELL_KNOWN = "/.well-known/dspace-version"
IDENTIFIERS = "urn:keyong:member"
COMPUTE = "fed:Compute"
"""The one format of a transfer: the right to run jobs under the agreement. No data moves."""

KEYONG = "https://w3id.org/keyong/fed/1/"
STATEMENT = KEYONG + "statement"
"""Beside a message: the signed statement (a DSSE envelope in base64) that the message is about."""
TITLE = KEYONG + "title"
COST = KEYONG + "cost"
TARIFF = KEYONG + "tariff"
EXPIRES = KEYONG + "expires"
"""In an offer: what the agreement's own fields will say."""

BODY_BYTES = 1024 * 1024
"""Of one message: what a signed agreement in base64 takes, and no more."""
DEPTH = 32
"""How deep JSON of a message may nest; the deepest policy that registers takes 20."""
PID = r"^[A-Za-z0-9:._~-]{1,200}$"
"""Of a process's id: what stands in an address as it is, for the other side's is part of those that we call."""
OPEN_PER_MEMBER = 100
"""Negotiations, and transfers, of one member that may be open here at once."""
CALL_VALIDITY = timedelta(minutes=5)


def base_path(member: str) -> str:
    """Where a member's endpoints lie below the gateway's address."""
    return f"/members/{member}/{VERSION}"
