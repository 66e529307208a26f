"""What a session is given, and what is known of it afterwards: plain values, checked, without any effect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

from sandbox.errors import SandboxError

MIB = 1 << 20
GIB = 1 << 30

LimitName = Literal["memory", "processes", "wall", "cpu", "output", "disk"]

_RESERVED = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/proc",
    "/dev",
    "/sys",
    "/tmp",
    "/runtime",
    "/python",
    "/sandbox",
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Read by the loader, libc or Python before the launcher has closed the session: they would run code too early.
_REFUSED_VARIABLES = ("LD_", "GLIBC_", "MALLOC_", "PYTHON", "GCONV_", "LOCPATH", "NLSPATH", "KEYONG_CHANNEL_FD")


class Tier(StrEnum):
    """Strength of isolation, weakest first; a policy demands one by name and it is signed into the ledger."""

    T0 = "T0"
    """A plain subprocess: no isolation, for made-up data in development only; never fallen back to."""
    T1 = "T1"
    """Landlock, seccomp and limits under an own uid, for containers without user namespaces."""
    T2 = "T2"
    """Namespaces by bubblewrap, Landlock, seccomp and limits."""
    T3 = "T3"
    """gVisor or a microVM."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one whole session, not of one process in it.

    Attributes:
        memory_bytes: anonymous and shared memory of all processes together.
        processes: processes and threads together, as the kernel counts them.
        wall_seconds: from the hand-over of the session to its end.
        cpu_seconds: user and system time of all processes; ``None`` is no bound beside the wall clock.
        open_files: descriptors of one process.
        output_bytes: kept of stdout, and of stderr; more is cut, sixteen times as much ends the session.
        scratch_bytes: size of ``/tmp``.
        shm_bytes: size of ``/dev/shm``, which data loaders with workers pass their batches through.
        file_bytes: one file.
        scratch_files: files and directories in all scratch places together (they cost kernel memory even when empty).
    """

    memory_bytes: int = 8 * GIB
    processes: int = 256
    wall_seconds: float = 3600.0
    cpu_seconds: float | None = None
    open_files: int = 1024
    output_bytes: int = MIB
    scratch_bytes: int = 512 * MIB
    shm_bytes: int = 512 * MIB
    file_bytes: int = 2 * GIB
    scratch_files: int = 100_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise SandboxError(
                    "the limit {name} must be positive", code="spec", hint="set {name} to a positive number", name=name
                )


@dataclass(frozen=True)
class Mount:
    """A file or directory of the host, seen read-only and without execute rights at ``target`` in the session.

    When the sandbox runs as root, the job's own uid must be able to read ``source`` itself (others-readable); the
    directories above may be closed to everyone.
    """

    source: Path
    target: str


@dataclass(frozen=True)
class Runtime:
    """The named read-only tree that job code may import from: ``path/site-packages`` and an interpreter.

    Attributes:
        path: seen at ``/runtime``.
        digest: its name in plans and receipts; recorded, not recomputed here.
        python: the interpreter. One outside ``/usr`` is seen with its whole prefix at ``/python``.
    """

    path: Path
    digest: str
    python: Path = Path("/usr/bin/python3")


@dataclass(frozen=True)
class SessionSpec:
    """Everything a session is given; what is not named here does not exist inside.

    Attributes:
        runtime: what may be imported.
        argv: arguments to Python inside: ``-m module``, ``-c code`` or a script's path, then the program's own.
        mounts: data and code, read-only.
        env: environment variables beside the fixed ones (``PATH``, ``HOME``, ``TMPDIR``, ``LANG``, ...).
        scratch: further writable places in memory, path to bytes.
        limits: bounds of the whole session.
        tier: demanded strength; a machine that lacks it refuses.
        standby: start before there is work, without totals and clock until ``Session.engage`` gives both. Mounts of
            empty directories are filled then; the program given must run nothing but the runtime's own code until it
            hears of its work.
    """

    runtime: Runtime
    argv: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scratch: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    limits: Limits = field(default_factory=Limits)
    tier: Tier = Tier.T2
    standby: bool = False

    def __post_init__(self) -> None:
        if not self.argv or any("\0" in argument for argument in self.argv):
            raise SandboxError("a session needs a program to run", code="spec", hint="name a module, code or a script")
        targets = [mount.target for mount in self.mounts] + list(self.scratch)
        for target in targets:
            _check_target(target, targets)
        for name, value in self.env.items():
            _check_variable(name, value)
        if any(size <= 0 for size in self.scratch.values()):
            raise SandboxError("a scratch place needs a size", code="spec", hint="give its size in bytes")


@dataclass(frozen=True)
class Evidence:
    """What a session was isolated by, for the ledger; says nothing about the host's paths.

    Attributes:
        tier: the strength that was set up, never less than demanded.
        kernel: release of the running kernel.
        landlock_abi: version that was applied.
        seccomp_digest: SHA-256 of the filter program as loaded.
        arguments_digest: SHA-256 of all launch arguments, the launcher included, with host paths as roles.
        limits_by: ``supervisor`` (polled and killed) or ``cgroup`` (held by the kernel).
        runtime_digest: as the caller named the runtime.
    """

    tier: Tier
    kernel: str
    landlock_abi: int
    seccomp_digest: str
    arguments_digest: str
    limits_by: Literal["cgroup", "supervisor"]
    runtime_digest: str


@dataclass(frozen=True)
class Ending:
    """How a session ended: by itself (``exited``), on the caller's word (``killed``) or at a bound (``limit``)."""

    kind: Literal["exited", "killed", "limit"]
    limit: LimitName | None = None
    exit_code: int | None = None


def _check_target(target: str, targets: list[str]) -> None:
    path = PurePosixPath(target)
    if (
        not path.is_absolute()
        or str(path) != target
        or ".." in path.parts
        or target.startswith("//")
        or target == "/"
        or "\0" in target
    ):
        raise SandboxError(
            "{target} is not a place for a mount", code="spec", hint="use an absolute path such as /data", target=target
        )
    if any(path.is_relative_to(other) for other in _RESERVED):
        raise SandboxError("{target} is reserved", code="spec", hint="use a path such as /data or /app", target=target)
    if sum(path.is_relative_to(other) or PurePosixPath(other).is_relative_to(path) for other in targets) > 1:
        raise SandboxError(
            "{target} overlaps with another mount",
            code="spec",
            hint="give each mount a place of its own",
            target=target,
        )


def _check_variable(name: str, value: str) -> None:
    if not _VARIABLE.match(name) or name.startswith(_REFUSED_VARIABLES) or "\0" in value:
        raise SandboxError(
            "the environment variable {name} cannot be passed to a session",
            code="spec",
            hint="leave it out: variables that the loader or the interpreter reads are refused",
            name=name,
        )
