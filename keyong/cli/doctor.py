"""``keyong doctor``: what this machine has, what it lacks, and how to repair it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keyong.cli import _state
from keyong.cli._commands import Commands
from keyong.cli._containers import OPTIONS
from keyong.cli._output import as_json, emit, narrate, table
from keyong.text import explain, joined, translate, translate_data

if TYPE_CHECKING:
    from sandbox import ContainerKind, Layer, Report, Tier

app = Commands()
UNAVAILABLE = 5


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``detail`` and ``fix`` are in the language spoken."""

    name: str
    ok: bool
    detail: str = ""
    fix: str = ""


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the coordinator.")] = False,
) -> None:
    """Check what this machine needs to run jobs: each layer of the sandbox, the runtime, the clock, the home, the
    coordinator.

    The sandbox is proved by opening a session. Exit code 5 where something is missing; each line says how to repair it.
    In a container, it prints the options that T2 needs.

    $ keyong doctor
    $ keyong --home ~/mill-a doctor --format json
    """
    from keyong.cli._context import quiet_logs
    from sandbox import Tier, find_container

    quiet_logs()
    report = _sandbox()
    floor = _floor()
    tiers = [tier.name for tier in report.tiers]
    isolated = any(tier >= floor for tier in tiers) or floor == "T0"
    layers = [
        Finding(layer.name, layer.present, translate_data(layer.version), "" if layer.present else _lack(layer))
        for layer in report.layers
    ]
    others = [_tier(report, floor), _runtime(), *_home(offline)]
    findings = [*layers, *others]
    # A layer that T2 alone needs is missing, but not amiss, where the owner accepted T1.
    sound = isolated and all(finding.ok for finding in others)
    container = find_container()
    if as_json():
        emit(
            {
                "ok": sound,
                "tiers": tiers,
                "not": {tier.name: _why_not(report, tier) for tier, missing in report.lacking.items() if missing},
                "floor": floor,
                "container": container or "",
                "container_options": list(OPTIONS[container]) if container and "T2" not in tiers else [],
                "findings": [
                    {"name": one.name, "ok": one.ok, "detail": one.detail, "fix": one.fix} for one in findings
                ],
            }
        )
    else:
        table(
            ("what", "state", "details"),
            (
                (
                    translate_data(one.name),
                    translate("ok") if one.ok else translate("MISSING"),
                    one.detail if one.ok else one.fix,
                )
                for one in findings
            ),
        )
        _tell_of_container(container, tiers)
        if sound:
            narrate("jobs can run here, isolated at {tiers}", tiers=", ".join(tiers) or floor)
            if report.lacking[Tier.T3]:
                narrate("stronger isolation can be had: {reason}", reason=joined(map(_lack, report.lacking[Tier.T3])))
        else:
            narrate("jobs cannot run here until what is missing is repaired")
    if not sound:
        raise typer.Exit(UNAVAILABLE)


def _sandbox() -> Report:
    from sandbox import probe

    python = _job_python()
    return probe(python) if python is not None else probe()


def _floor() -> str:
    """The weakest tier that this home's owner accepted; T2 where there is no home yet."""
    from federation.errors import KeyongError
    from keyong.cli._context import open_home

    try:
        return open_home().tier_floor
    except KeyongError:
        return "T2"


def _tier(report: Report, floor: str) -> Finding:
    """The strongest tier here, against the floor; where that is less than T2, why not more."""
    from sandbox import Tier

    best = report.tiers[0].name if report.tiers else ""
    if best >= "T2":
        return Finding("isolation", True, best)
    why = _why_not(report, Tier.T2)
    if best and best >= floor:
        return Finding(
            "isolation", True, translate("{tier}, accepted by the owner; not more, for {why}", tier=best, why=why)
        )
    if not best and floor == "T0":
        return Finding("isolation", True, translate("T0: none, for development on made-up data (serve --development)"))
    if best:
        return Finding(
            "isolation",
            False,
            fix=translate(
                "only {tier} holds here, for {why}; have T2, or accept the floor: keyong node tier {tier}",
                tier=best,
                why=why,
            ),
        )
    return Finding("isolation", False, fix=joined((why, _why_not(report, Tier.T1))))


def _why_not(report: Report, tier: Tier) -> str:
    """What this machine lacks for a tier, and the fix."""
    reasons = joined(map(_lack, report.lacking[tier]))
    return translate("{tier}: {reason}", tier=tier.name, reason=reasons)


def _lack(layer: Layer) -> str:
    """What is wrong with a layer, and the fix."""
    if layer.cause is None:
        return translate_data(layer.fix)
    message, hint = explain(layer.cause)
    fix = hint if layer.fix == layer.cause.hint else translate_data(layer.fix)
    return translate("{message}: {fix}", message=message, fix=fix) if fix else message


def _tell_of_container(container: ContainerKind | None, tiers: list[str]) -> None:
    if container is None:
        return
    narrate("this is a container ({kind})", kind=container)
    if "T2" not in tiers:
        narrate(
            "start it as an ordinary user with these options, and its jobs are isolated at T2 (docs/containers.md):"
        )
        for option in OPTIONS[container]:
            narrate("    {option}", option=option)


def _job_python() -> Path | None:
    from federation.errors import KeyongError

    try:
        from keyong import runtime

        return runtime.load(_runtime_name()).python
    except (KeyongError, ModuleNotFoundError):
        return None


def _runtime_name() -> str:
    from keyong.cli.settings import load

    return load().runtime


def _runtime() -> Finding:
    from federation.errors import KeyongError

    try:
        from keyong import runtime

        found = runtime.load(_runtime_name())
    except ModuleNotFoundError:
        return Finding(
            "runtime", False, fix=translate("pip install 'keyong[node]' (this installation can verify, not run jobs)")
        )
    except KeyongError as error:
        message, fix = explain(error)
        return Finding("runtime", False, fix=translate("{message}: {fix}", message=message, fix=fix))
    return Finding("runtime", True, f"{found.path.name} {found.digest[:19]}")


def _home(offline: bool) -> list[Finding]:
    from federation.errors import KeyongError
    from keyong.cli._context import open_home

    if not (_state.get().home / "identity.json").exists():
        return []  # nothing to check yet: a machine can be looked at before it joins
    try:
        home = open_home()
        findings = [_modes(home.path), _clock(home.history.latest.issued)]
    except KeyongError as error:
        message, hint = explain(error)
        return [Finding("home", False, fix=f"{message}: {hint}" if hint else message)]
    if not offline:
        findings.append(_coordinator())
    return findings


def _modes(home: Path) -> Finding:
    """The home and everything below it belongs to its owner alone."""
    for path in [home, *sorted(home.rglob("*"))]:
        relative = path.relative_to(home).parts
        if relative and relative[0] in ("sessions", "jobs", "logs", "spool"):
            continue  # below a private folder; a session's own user must be able to read its part
        if path.lstat().st_mode & 0o077 and (
            path.is_dir() or path.suffix in (".key", ".json") or path.parent.name == "keys"
        ):
            return Finding("home", False, fix=f"chmod {'700' if path.is_dir() else '600'} {path}")
    return Finding("home", True, str(home))


def _clock(issued: object) -> Finding:
    from datetime import datetime

    from federation.home import now
    from federation.statements import CLOCK_SKEW

    assert isinstance(issued, datetime)
    if now() + CLOCK_SKEW < issued:
        return Finding(
            "clock",
            False,
            fix=translate(
                "the newest roster is dated after this machine's time: set the clock (timedatectl set-ntp true)"
            ),
        )
    return Finding("clock", True, now().strftime("%Y-%m-%dT%H:%M:%SZ"))


def _coordinator() -> Finding:
    from federation.errors import KeyongError
    from keyong.cli._context import open_client

    try:
        with open_client() as client:
            status = client.status()
    except ModuleNotFoundError:
        return Finding(
            "coordinator",
            False,
            fix=translate("pip install 'keyong[node]' (this installation can verify, not run jobs)"),
        )
    except KeyongError as error:
        message, hint = explain(error)
        return Finding("coordinator", False, fix=f"{message}: {hint}" if hint else message)
    return Finding("coordinator", True, translate("reached; {count} nodes connected", count=len(status.online)))
