"""Bubblewrap: the program, the version and flags it must have, and the arguments a session is started with."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.spec import Limits, SessionSpec

OLDEST = (0, 8, 0)  # --disable-userns
_PLACES = "/usr/local/bin:/usr/bin:/bin"
_FLAGS = [
    "--args",
    "--as-pid-1",
    "--cap-drop",
    "--chdir",
    "--clearenv",
    "--dev",
    "--die-with-parent",
    "--disable-userns",
    "--gid",
    "--hostname",
    "--info-fd",
    "--new-session",
    "--proc",
    "--remount-ro",
    "--ro-bind",
    "--ro-bind-data",
    "--seccomp",
    "--setenv",
    "--size",
    "--symlink",
    "--tmpfs",
    "--uid",
    "--unshare-cgroup-try",
    "--unshare-ipc",
    "--unshare-net",
    "--unshare-pid",
    "--unshare-user",
    "--unshare-uts",
    "--perms",
]
_OWN_PROCESS = (
    "auxv",
    "cgroup",
    "cmdline",
    "comm",
    "environ",
    "fd",
    "limits",
    "maps",
    "smaps",
    "stat",
    "statm",
    "status",
)


@dataclass(frozen=True)
class Bubblewrap:
    """A usable bubblewrap: where it is, and its version."""

    path: Path
    version: tuple[int, ...]


def find_bubblewrap() -> Bubblewrap:
    """Return the machine's bubblewrap; raise where there is none, it is too old, or it lacks a flag that is needed."""
    found = shutil.which("bwrap", path=_PLACES)
    if found is None:
        raise SandboxError(
            "bubblewrap is not installed",
            code="layer",
            hint="install bubblewrap 0.8 or newer: apt-get install bubblewrap, or dnf install bubblewrap",
        )
    state = Path(found).stat()
    return _inspect(found, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _inspect(path: str, _changed: int, _size: int) -> Bubblewrap:
    def ask(flag: str) -> str:
        answer = subprocess.run([path, flag], capture_output=True, text=True, env={}, timeout=10, check=False)
        return answer.stdout + answer.stderr

    match = re.search(r"(\d+)\.(\d+)\.(\d+)", ask("--version"))
    version = tuple(int(part) for part in match.groups()) if match else (0,)
    if version < OLDEST:
        raise SandboxError(
            "bubblewrap {version} is too old",
            code="layer",
            hint="install bubblewrap 0.8 or newer: apt-get install bubblewrap, or dnf install bubblewrap",
            version=".".join(map(str, version)),
        )
    offered = set(re.findall(r"--[a-z0-9-]+", ask("--help")))
    missing = [flag for flag in _FLAGS if flag not in offered]
    if missing:
        raise SandboxError(
            "bubblewrap lacks {flags}",
            code="layer",
            hint="install bubblewrap 0.8 or newer: apt-get install bubblewrap, or dnf install bubblewrap",
            flags=", ".join(missing),
        )
    return Bubblewrap(Path(path), version)


@dataclass(frozen=True)
class Places:
    """Host paths that a session sees, and where: what is bound must be readable at ``source`` by the session's uid."""

    runtime: Path
    python_prefix: Path | None
    mounts: tuple[tuple[Path, str], ...]


def locate_python(python: Path) -> tuple[Path | None, str]:
    """Return the prefix to bind at ``/python`` (``None``: below ``/usr``) and the interpreter's path inside."""
    try:
        real = python.resolve(strict=True)
    except OSError:
        raise SandboxError(
            "there is no Python at {path}", code="source", hint="install it, or name another interpreter", path=python
        ) from None
    if real.is_relative_to("/usr"):
        return None, str(real)
    prefix = real.parent.parent
    return prefix, "/python/" + str(real.relative_to(prefix))


def environment(spec: SessionSpec, prefix: Path | None) -> dict[str, str]:
    """Return every variable that the session has."""
    packages = Path("/runtime/site-packages")
    return {**spec.env, **fixed_environment("/tmp", packages, None if prefix is None else Path("/python"))}


def fixed_environment(tmp: str, packages: Path, prefix: Path | None) -> dict[str, str]:
    """Return the variables that every session has: its temporary files' place, the runtime's packages, Python's
    prefix."""
    fixed = {
        "PATH": "/usr/bin",
        "HOME": tmp,
        "TMPDIR": tmp,
        "LANG": "C.UTF-8",
        "USER": "job",
        "LOGNAME": "job",
        "KEYONG_CHANNEL_FD": "3",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # what a job took is given back in pages of 2 MB when it is ended
        # For a Python that the job starts itself; its first one is isolated by flags.
        "PYTHONPATH": str(packages),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if prefix is not None:
        fixed["LD_LIBRARY_PATH"] = f"{prefix}/lib"
    return fixed


def masked_places(inner_python: str) -> list[str]:
    """Return directories below ``/usr`` that hold what the machine's owner installed: no part of the runtime."""
    places = [str(path) for path in Path("/usr/lib").glob("python3*/*-packages") if path.is_dir()]
    if not inner_python.startswith("/usr/local/") and Path("/usr/local").is_dir():
        places.append("/usr/local")
    return sorted(places)


def arguments(
    spec: SessionSpec, places: Places, masked: list[str], files: dict[str, int], *, without: frozenset[str]
) -> list[str]:
    """Return bubblewrap's options for a session.

    Args:
        spec: what is asked for.
        places: host paths to bind.
        masked: directories below ``/usr`` to hide.
        files: small files made for the session: path inside to a descriptor with the content.
        without: layers left out, for tests that show what each one holds off.
    """
    out = ["--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if "pid-namespace" not in without:
        out += ["--unshare-pid", "--as-pid-1"]
    if "network-namespace" not in without:
        out += ["--unshare-net"]
    out += ["--disable-userns", "--uid", "65534", "--gid", "65534", "--hostname", "job", "--die-with-parent"]
    out += ["--new-session", "--cap-drop", "ALL"]
    if "empty-environment" not in without:
        out += ["--clearenv"]
    for name, value in environment(spec, places.python_prefix).items():
        out += ["--setenv", name, value]
    read_only = "--bind" if "read-only" in without else "--ro-bind"
    out += ["--ro-bind", "/usr", "/usr"]
    for link in ("lib", "lib64", "bin", "sbin"):
        if Path("/usr", link).is_dir():
            out += ["--symlink", f"usr/{link}", f"/{link}"]
    for place in masked:
        out += ["--size", "4096", "--tmpfs", place, "--remount-ro", place]
    out += ["--proc", "/proc"]
    if "proc-sys" not in without:
        out += ["--ro-bind", "/proc/sys", "/proc/sys"]
    out += ["--dev", "/dev", "--perms", "1777", "--size", str(spec.limits.shm_bytes), "--tmpfs", "/dev/shm"]
    out += ["--remount-ro", "/dev", "--perms", "1777", "--size", str(spec.limits.scratch_bytes), "--tmpfs", "/tmp"]
    out += [read_only, str(places.runtime), "/runtime"]
    if places.python_prefix is not None:
        out += ["--ro-bind", str(places.python_prefix), "/python"]
    for source, target in places.mounts:
        out += [read_only, str(source), target]
    for target, size in spec.scratch.items():
        out += ["--size", str(size), "--tmpfs", target]
    for target, descriptor in files.items():
        out += ["--perms", "0444", "--ro-bind-data", str(descriptor), target]
    return [*out, "--remount-ro", "/", "--chdir", "/tmp"]


def launcher_arguments(
    spec: SessionSpec, prefix: Path | None, required_abi: int, *, without: frozenset[str]
) -> list[str]:
    """Return what the launcher inside is told: limits, Landlock's paths, the search path, the job's arguments."""
    out = [*limit_items(spec.limits), f"abi={required_abi}", "rx=/usr", "rx=/runtime"]
    if prefix is not None:
        out += ["rx=/python"]
    out += ["r=/etc", *process_items()]
    out += [f"r={mount.target}" for mount in spec.mounts]
    out += ["rw=/tmp", "rw=/dev/shm", *(f"rw={target}" for target in spec.scratch)]
    out += ["path=/runtime/site-packages", *(f"skip={layer}" for layer in sorted(without))]
    return [*out, "--", *spec.argv]


def limit_items(limits: Limits) -> list[str]:
    """Return the launcher's items for the bounds that the kernel holds for each process."""
    return [f"limit={number}:{bound}" for number, bound in process_bounds(limits).items()]


def process_bounds(limits: Limits) -> dict[int, int]:
    """Return what the kernel holds for each process, by resource: hard and soft bound alike."""
    return {
        # Somewhat above the named limit, so that the supervisor sees the excess and can name it.
        resource.RLIMIT_NPROC: limits.processes + 16,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_DATA: limits.memory_bytes + (1 << 30),
        resource.RLIMIT_MEMLOCK: 64 << 10,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }


def process_items() -> list[str]:
    """Return Landlock's items for what every session may see of itself and of the devices."""
    # Not all of /proc/self: its mountinfo shows host paths. torch picks its kernels by cpuinfo; DuckDB does not start
    # without cgroup.
    out = ["r=/proc/cpuinfo", *(f"r=/proc/self/{name}" for name in _OWN_PROCESS)]
    return out + [f"dev=/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")]


def arguments_digest(options: list[str], launcher: list[str], inner_python: str, launcher_source: bytes) -> str:
    """Return the name of a way to launch: ``sha256:`` over options, interpreter, launcher and its arguments."""
    parts = [*options, inner_python, *launcher]  # none holds a NUL
    names = os.fsencode("\0".join([str(len(options)), *parts]))
    return "sha256:" + hashlib.sha256(names + b"\0" + hashlib.sha256(launcher_source).digest()).hexdigest()
