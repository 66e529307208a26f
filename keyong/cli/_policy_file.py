"""Policies written as ODRL by hand: read from a file, completed with the parties, described, refused where they are bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from federation.errors import UsageError

LARGEST_BYTES = 512 * 1024
"""More than any policy that fits an agreement."""


class PolicyFileError(UsageError):
    """A file holds no policy."""

    code = "policy-file"


def read_policy_file(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        PolicyFileError: it cannot be read, is too large, is no JSON, names a key twice, or holds something else.
    """
    import json

    try:
        with path.expanduser().open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise PolicyFileError(
            "{path} cannot be read: {reason}", path=str(path), reason=error.strerror or type(error).__name__
        ) from None
    if len(data) > LARGEST_BYTES:
        raise PolicyFileError("{path} is larger than any policy ({limit} bytes)", path=str(path), limit=LARGEST_BYTES)
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise PolicyFileError("{path} is not UTF-8 text", path=str(path)) from None
    except json.JSONDecodeError as error:
        raise PolicyFileError(
            "{path} is not JSON: line {line}, column {column}: {reason}",
            path=str(path),
            line=error.lineno,
            column=error.colno,
            reason=error.msg,
        ) from None
    except (_TwiceError, RecursionError) as error:
        raise PolicyFileError("{path} is not one policy: {reason}", path=str(path), reason=str(error)[:200]) from None
    if not isinstance(value, dict):
        raise PolicyFileError("{path} holds no policy, but a {kind}", path=str(path), kind=type(value).__name__)
    return value


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {twice[:60]} stands there twice")
    return found


def completed(policy: dict[str, Any], *, provider: str, consumer: str, dataset: str, identity: str) -> dict[str, Any]:
    """The policy with what the parties and the moment say; what it states itself has to agree with that.

    Raises:
        PolicyError: it is malformed, contradicts itself, or is about something else.
    """
    from federation.home import now
    from federation.policy import PROFILE, PolicyError, dataset_iri, member_iri, parse_policy
    from federation.statements import instant_text

    told = {
        "@type": "Agreement",
        "profile": PROFILE,
        "target": dataset_iri(provider, dataset),
        "assigner": member_iri(provider),
        "assignee": member_iri(consumer),
    }
    for place, wanted in told.items():
        got = policy.get(place, wanted)
        if got != wanted and not (place == "@type" and got == "Offer"):
            raise PolicyError(
                "{place} is {got}, but the agreement says {wanted}", place=place, got=str(got)[:200], wanted=wanted
            )
    whole = {**policy, **told, "@id": identity, "timestamp": instant_text(now())}
    parse_policy(whole)
    return whole
