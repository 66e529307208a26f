"""inv8: ``keyong doctor`` names what is missing here, and the fix, in both languages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from keyong.cli import doctor
from sandbox import Layer, Report, SandboxError, Tier, probe
from tests.keyong.conftest import Run


def lacking(tier: Tier, *layers: Layer) -> Callable[..., Report]:
    """A machine like this one that lacks a tier for these layers."""
    found = probe()

    def report(*_: object) -> Report:
        tiers = tuple(one for one in found.tiers if one is not tier)
        named = {one.name: one for one in layers}
        return dataclasses.replace(
            found,
            layers=tuple(named.get(one.name, one) for one in found.layers),
            tiers=tiers,
            refusals={**found.refusals, tier: "; ".join(one.lack for one in layers)},
            lacking={**found.lacking, tier: layers},
        )

    return report


def test_a_missing_layer_is_named_with_its_fix(keyong: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = SandboxError(
        "bubblewrap is not installed",
        code="layer",
        hint="install bubblewrap 0.8 or newer: apt-get install bubblewrap, or dnf install bubblewrap",
    )
    missing = (
        Layer("bubblewrap", False, fix=refused.hint, cause=refused),
        Layer("session", False, fix="fix the above"),
    )
    monkeypatch.setattr("sandbox.probe", lacking(Tier.T2, *missing))
    ran = keyong("doctor", "--offline")
    assert ran.code == 5 and "jobs cannot run here" in ran.err
    (row,) = [row for row in ran.out.splitlines() if row.startswith("bubblewrap")]
    assert "MISSING" in row and "apt-get install bubblewrap" in row
    told = keyong("--format", "json", "doctor", "--offline").json
    assert not told["ok"] and "T2" not in told["tiers"] and "apt-get" in told["not"]["T2"]
    spoken = keyong("--lang", "zh", "doctor", "--offline")
    assert "安装 bubblewrap 0.8" in spoken.out and "先修复以上各项" in spoken.out
    assert "not installed" not in spoken.out + spoken.err


def test_what_stronger_isolation_would_need(keyong: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = SandboxError(
        "T3 needs gVisor: there is no runsc",
        code="layer",
        hint="install gVisor's runsc (apt-get install runsc, or gvisor.dev) and run the node as root",
    )
    monkeypatch.setattr("sandbox.probe", lacking(Tier.T3, Layer("session", False, fix=refused.hint, cause=refused)))
    monkeypatch.setattr(doctor, "_runtime", lambda: doctor.Finding("runtime", True))
    if "T2" not in keyong("--format", "json", "doctor", "--offline").json["tiers"]:
        pytest.skip("this machine has no T2")
    ran = keyong("doctor", "--offline")
    assert ran.code == 0 and "stronger isolation can be had: T3 needs gVisor" in ran.err
    assert "apt-get install runsc" in ran.err
    assert "apt-get install runsc" in keyong("--lang", "zh", "doctor", "--offline").err
    assert "还可获得更强的隔离" in keyong("--lang", "zh", "doctor", "--offline").err
