"""Mutual TLS 1.3 over gRPC with our identities: who gets through, and how that changes while serving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from federation.crypto import GRPC_CIPHER_SUITES

pytest.importorskip("grpc", reason="gRPC comes with the node and coordinator extras")

ROOT = Path(__file__).parents[3]
REFUSED = "UNAVAILABLE"


def run(cipher_suites: str | None) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRPC_")}
    environment["PYTHONPATH"] = str(ROOT)
    if cipher_suites is not None:
        environment["GRPC_SSL_CIPHER_SUITES"] = cipher_suites
    script = Path(__file__).with_name("tls_links.py")
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    return run(GRPC_CIPHER_SUITES)


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("known", "steel"),
        ("unknown", REFUSED),
        ("no certificate", REFUSED),
        ("lent by known", REFUSED),
        ("another server trusted", REFUSED),
        ("another server named", REFUSED),
        ("TLS 1.3", "TLSv1.3"),
        ("TLS 1.2", "refused"),
        ("TLS 1.3 unknown", "refused"),
    ],
)
def test_who_gets_through(seen: dict[str, str], attempt: str, outcome: str) -> None:
    assert seen[attempt] == outcome


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("not yet added", REFUSED),
        ("added", "copper"),
        ("rollover, old", "steel"),
        ("rollover, new", "steel's next"),
        ("removed", REFUSED),
        ("beside removed", "steel's next"),
        ("server rollover, ahead", "copper"),
        ("server rollover, done", "copper"),
        ("server rollover, behind", REFUSED),
        ("nobody trusted", REFUSED),
    ],
)
def test_the_trusted_set_changes_without_a_new_server(seen: dict[str, str], attempt: str, outcome: str) -> None:
    assert seen[attempt] == outcome


def test_a_resumed_session_does_not_outlive_its_certificate(seen: dict[str, str]) -> None:
    """Resumption skips the check of the certificate; a changed set voids the tickets given before."""
    assert seen["first session"] == "TLSv1.3"
    assert seen["resumed session"] == "TLSv1.3+resumed"
    assert seen["removed, resumed"] == "refused"


def test_grpc_goes_on_with_the_old_set_when_the_new_one_cannot_be_had(seen: dict[str, str]) -> None:
    """Fails open, in gRPC: why a handler must look its peer up in the roster itself."""
    assert seen["fetch fails, known"] == "copper"


def test_without_the_cipher_suites_tls12_would_get_through() -> None:
    """Shows what the setting is for: take it away and the client that was refused is served."""
    seen = run(None)
    assert seen["TLS 1.2"] == "TLSv1.2"
    assert seen["known"] == "steel"
