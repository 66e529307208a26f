"""What this machine can isolate: each layer, its version and its fix, and in the end a real session as the proof."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox import _bubblewrap, _kernel, _seccomp
from sandbox._identity import RANGES
from sandbox._kernel import LANDLOCK_ABI
from sandbox.canary import empty_runtime
from sandbox.errors import SandboxError
from sandbox.session import open_session
from sandbox.spec import Limits, SessionSpec, Tier


@dataclass(frozen=True)
class Layer:
    """One layer as found: ``version`` says what there is; where it is missing, ``fix`` what to do, and ``cause`` what was
    refused, if something was tried."""

    name: str
    present: bool
    version: str = ""
    fix: str = ""
    cause: SandboxError | None = None

    @property
    def lack(self) -> str:
        """What is wrong, and the fix."""
        return f"{self.cause.message} ({self.fix})" if self.cause else self.fix


@dataclass(frozen=True)
class Report:
    """All layers of this machine, the tiers it has, why it lacks the others, and by which layers."""

    layers: tuple[Layer, ...]
    tiers: tuple[Tier, ...]
    refusals: Mapping[Tier, str]
    lacking: Mapping[Tier, tuple[Layer, ...]]


def probe(python: Path = Path("/usr/bin/python3")) -> Report:
    """Look at every layer and open a session of each tier for proof; never raises for what is missing, reports it."""
    layers = [_system(), _program(), _user_namespaces(), _landlock(), _own_uid(), _python(python)]
    layers.append(
        _session(python, Tier.T2)
        if all(layer.present for layer in layers)
        else Layer("session", False, fix="fix the above")
    )
    lacking = {
        Tier.T3: (_session(python, Tier.T3),),
        Tier.T2: tuple(layers),
        Tier.T1: (_session(python, Tier.T1),),
    }
    lacking = {tier: tuple(layer for layer in all_of if not layer.present) for tier, all_of in lacking.items()}
    refusals = {Tier.T0: "is no isolation: for development on made-up data alone (serve --development)"}
    for tier, missing in lacking.items():
        if missing:
            named = tier is Tier.T2
            refusals[tier] = "; ".join(f"{one.name}: {one.lack}" if named else one.lack for one in missing)
    return Report(tuple(layers), tuple(tier for tier in lacking if tier not in refusals), refusals, lacking)


def _system() -> Layer:
    system = os.uname()
    known = system.sysname == "Linux" and system.machine in _seccomp.MACHINES
    return Layer(
        "seccomp", known, f"{system.sysname} {system.machine}", "" if known else "use Linux on x86_64 or aarch64"
    )


def _program() -> Layer:
    try:
        found = _bubblewrap.find_bubblewrap()
    except SandboxError as error:
        return Layer("bubblewrap", False, fix=error.hint)
    return Layer("bubblewrap", True, ".".join(str(part) for part in found.version))


def _user_namespaces() -> Layer:
    for name, least in (("user/max_user_namespaces", 16), ("kernel/unprivileged_userns_clone", 1)):
        switch = Path("/proc/sys", name)
        if switch.exists() and int(switch.read_text()) < least:
            wanted = 15000 if least > 1 else 1
            return Layer("user namespaces", False, fix=f"sysctl -w {name.replace('/', '.')}={wanted}")
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if (
        restricted.exists()
        and int(restricted.read_text())
        and not Path("/etc/apparmor.d/bwrap-userns-restrict").exists()
    ):
        # Not certain: a profile under another name may allow it, so the session below decides.
        return Layer("user namespaces", True, "restricted by AppArmor")
    return Layer("user namespaces", True)


def _landlock() -> Layer:
    abi = _kernel.landlock_abi()
    fix = "" if abi >= LANDLOCK_ABI else "use Linux 6.2 or newer, with landlock in the kernel's lsm= parameter"
    return Layer("landlock", abi >= LANDLOCK_ABI, str(abi), fix)


def _own_uid() -> Layer:
    if os.geteuid() != 0:
        return Layer("own uid", True, "ordinary user: sessions share its uid, in user namespaces of their own")
    mapped = [[int(part) for part in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    free = any(
        inside <= first and first + 2 * count <= inside + length
        for inside, _, length in mapped
        for first, count in RANGES
    )
    fix = "" if free else f"map uids {RANGES[1][0]} to {RANGES[1][0] + 2 * RANGES[1][1] - 1} into this container"
    return Layer("own uid", free, "root: one of its own for each session", fix)


def _python(python: Path) -> Layer:
    try:
        prefix, inner = _bubblewrap.locate_python(python)
    except SandboxError as error:
        return Layer("python", False, fix=error.hint)
    return Layer("python", True, inner if prefix is None else f"{inner} from {prefix}")


def _session(python: Path, tier: Tier) -> Layer:
    try:
        with empty_runtime(python) as runtime:
            spec = SessionSpec(runtime, ("-c", "pass"), limits=Limits(wall_seconds=30), tier=tier)
            with open_session(spec) as session:
                ending = session.wait(60)
    except SandboxError as error:
        return Layer("session", False, fix=_session_fix(error), cause=error)
    if ending.kind != "exited" or ending.exit_code != 0:
        return Layer("session", False, fix=f"a session that does nothing ended with {ending}")
    return Layer("session", True, "canary clean")


def _session_fix(error: SandboxError) -> str:
    if error.code == "start" and Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
        return "allow bwrap user namespaces in AppArmor, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return error.hint
