"""A policy that permits, and a request that it permits; tests change one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from federation.policy import Request, agreement_policy

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CODE = "sha256:" + "c" * 64


@pytest.fixture(scope="session")
def policy_json() -> Callable[..., dict[str, Any]]:
    """Build the JSON of a full policy; keyword arguments replace those of ``agreement_policy``."""

    def build(**changes: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "provider": "mill-a",
            "consumer": "mill-b",
            "dataset": "plates",
            "actions": ["fed:train"],
            "purposes": ["fed:ProcessOptimization"],
            "count": 3,
            "expires": datetime(2026, 12, 31, tzinfo=UTC),
            "code": CODE,
            "min_tier": "T2",
            "min_participants": 3,
            "columns": ["entry_temperature", "roll_force"],
            "agreement_id": "urn:uuid:00000000-0000-4000-8000-000000000001",
            "now": datetime(2026, 1, 1, tzinfo=UTC),
        }
        return agreement_policy(**(arguments | changes))

    return build


@pytest.fixture(scope="session")
def bare_json() -> Callable[..., dict[str, Any]]:
    """Build the JSON of a policy with one permission of ``fed:train`` under exactly these constraints."""

    def build(*constraints: dict[str, Any], **changes: Any) -> dict[str, Any]:
        policy: dict[str, Any] = {
            "@type": "Agreement",
            "@id": "urn:uuid:00000000-0000-4000-8000-000000000001",
            "profile": "https://w3id.org/keyong/fed/1",
            "target": "urn:keyong:dataset:mill-a:plates",
            "assigner": "urn:keyong:member:mill-a",
            "assignee": "urn:keyong:member:mill-b",
            "timestamp": "2026-01-01T00:00:00Z",
            "permission": [{"action": "fed:train", "constraint": list(constraints)}],
        }
        return policy | changes

    return build


@pytest.fixture(scope="session")
def ask() -> Callable[..., Request]:
    """Build a request that the policy of ``policy_json`` permits; keyword arguments replace what it brings."""

    def build(**changes: Any) -> Request:
        arguments: dict[str, Any] = {
            "action": "fed:train",
            "purpose": "fed:RollingForceModel",
            "requester": "mill-b",
            "entity": "Mill B Ltd",
            "code": CODE,
            "tier": "T2",
            "participants": 3,
            "columns": ("entry_temperature", "roll_force"),
            "protection": "fed:masked",
            "now": NOW,
            "uses_taken": 0,
            "recipients": ("mill-b",),
            "output_kinds": ("fed:ModelUpdate", "fed:Metrics"),
            "max_output_bytes": 1_000_000,
            "leak_bits": 1000,
            "slot_seconds": 60,
        }
        return Request(**(arguments | changes))

    return build
