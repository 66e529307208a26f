"""T3: a session on a kernel of its own, gVisor's, by ``runsc`` and an OCI bundle without a network.

The job's system calls reach a kernel written in Go that runs as an unprivileged process, in namespaces and behind a filter of
its own; what gVisor offers inside (sockets, namespaces, tracing) is its own and leads nowhere. So Landlock and our filter
are not applied inside: they would guard the wrong kernel. The launcher proves from inside that the kernel is gVisor's and
that files, network and descriptors are what they should be, and the trusted side looks at the process from outside.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sandbox import _bubblewrap, _launcher, _staging
from sandbox._attest import does_not_hold
from sandbox._meter import Meter, Usage
from sandbox._started import START_SECONDS, Started, cannot, end_process, join_group, last_words, make_group, reap
from sandbox.errors import SandboxError
from sandbox.spec import Evidence, Limits, SessionSpec, Tier

_NAMESPACES = ("user", "net", "ipc", "uts", "mnt")


def find_runsc() -> tuple[Path, str]:
    """Return ``runsc`` and its version; raise where there is none, or this process may not use it."""
    found = shutil.which("runsc", path=_bubblewrap._PLACES)
    if found is None:
        raise _absent()
    if os.geteuid() != 0:
        raise SandboxError(
            "T3 needs gVisor, which root alone can start, and this is not root",
            code="layer",
            hint="run the node as root",
        )
    return Path(found), _version(found, Path(found).stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _version(path: str, _changed: int) -> str:
    told = subprocess.run([path, "--version"], capture_output=True, text=True, env={}, timeout=10, check=False).stdout
    match = re.search(r"version (\S+)", told)
    if match is None:
        raise _absent()
    return match.group(1)


def _absent() -> SandboxError:
    return SandboxError(
        "T3 needs gVisor: there is no runsc",
        code="layer",
        hint="install gVisor's runsc (apt-get install runsc, or gvisor.dev)"
        if os.geteuid() == 0
        else "install gVisor's runsc (apt-get install runsc, or gvisor.dev) and run the node as root",
    )


def start_gvisor(spec: SessionSpec, *, without: frozenset[str] = frozenset()) -> Started:
    """Start a session at T3 and check, from inside and from outside, that it is isolated.

    Raises:
        SandboxError: gVisor is missing, or what it should hold off succeeded; nothing is left running.
    """
    program, version = find_runsc()
    prefix, python = _bubblewrap.locate_python(spec.runtime.python)
    source = _launcher.SOURCE.read_bytes()
    for place in (spec.runtime.path, *(mount.source for mount in spec.mounts)):
        _staging.check_source(place, by_others=True)
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="keyong-gvisor-", dir="/run"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        inner, content = _launcher.launcher_file(source, python)
        config = bundle_config(spec, prefix, [python, "-I", "-S", inner, "0", *_items(spec, prefix)])
        _lay_bundle(folder, config, inner, content)
        name = f"keyong-{secrets.token_hex(8)}"
        channel, inner_channel = socket.socketpair()
        undo.callback(channel.close)
        command = [str(program), f"--root={folder}/state", "--network=none", "--ignore-cgroups", "--platform=ptrace"]
        with inner_channel:
            monitor = subprocess.Popen(
                [*command, "run", f"--bundle={folder}", f"--pid-file={folder}/pid", name],
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
                stdin=inner_channel.fileno(),  # the one descriptor that every release hands on
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                close_fds=True,
                start_new_session=True,
            )
        undo.callback(reap, monitor)
        try:
            _launcher.await_report(channel, START_SECONDS)
            init = int((folder / "pid").read_text())
            handle = os.pidfd_open(init)
            undo.callback(end_process, handle)
            _attest(init)
            meter = _SentryMeter(init)
        except TimeoutError as error:
            raise cannot("runsc", error) from None
        except (EOFError, OSError, ValueError):
            raise cannot("runsc", last_words(monitor)) from None
        group = join_group(spec, init, make_group(undo, without))
        evidence = Evidence(
            tier=Tier.T3,
            kernel=f"gVisor {version} on {os.uname().release}",
            landlock_abi=0,
            seccomp_digest="",
            arguments_digest=_digest(spec, prefix, python, source, version),
            limits_by="cgroup" if group else "supervisor",
            runtime_digest=spec.runtime.digest,
        )
        undo.pop_all()
    clear = partial(shutil.rmtree, folder, ignore_errors=True)
    return Started(monitor, init, handle, channel, None, evidence, meter, group=group, sweep=clear)


def bundle_config(spec: SessionSpec, prefix: Path | None, arguments: list[str]) -> dict[str, Any]:
    """Return the OCI runtime configuration (version 1.0.2) of a session, its root file system lying at ``rootfs``."""

    def bind(source: Path | str, target: str) -> dict[str, Any]:
        return {
            "destination": target,
            "type": "bind",
            "source": str(source),
            "options": ["bind", "ro", "nosuid", "nodev"],
        }

    def memory(target: str, size: int) -> dict[str, Any]:
        options = ["nosuid", "nodev", "noexec", "mode=1777", f"size={size}"]
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}

    mounts = [bind("/usr", "/usr"), {"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [bind("empty", place) for place in _bubblewrap.masked_places(arguments[0])]
    mounts += [memory("/dev/shm", spec.limits.shm_bytes), memory("/tmp", spec.limits.scratch_bytes)]
    mounts += [bind(spec.runtime.path.absolute(), "/runtime")]
    mounts += [bind(prefix, "/python")] if prefix is not None else []
    mounts += [bind(mount.source.absolute(), mount.target) for mount in spec.mounts]
    mounts += [memory(target, size) for target, size in spec.scratch.items()]
    # The guest's threads are seen by no supervisor; its processes are, and are to be named by it first.
    tasks = _bubblewrap.process_bounds(spec.limits)[resource.RLIMIT_NPROC] + 2 * _GO_THREADS
    bounds = {"RLIMIT_NOFILE": spec.limits.open_files, "RLIMIT_FSIZE": spec.limits.file_bytes, "RLIMIT_CORE": 0}
    bounds["RLIMIT_NPROC"] = tasks
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 65534, "gid": 65534},
            "args": arguments,
            "env": [f"{name}={value}" for name, value in _bubblewrap.environment(spec, prefix).items()],
            "cwd": "/tmp",
            "noNewPrivileges": True,
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "rlimits": [{"type": name, "hard": bound, "soft": bound} for name, bound in bounds.items()],
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "job",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")]},
    }


def _items(spec: SessionSpec, prefix: Path | None) -> list[str]:
    """What the launcher inside is told."""
    out = ["abi=0", "gvisor=1", "rx=/usr", "rx=/runtime", *(["rx=/python"] if prefix else [])]
    out += [f"r={mount.target}" for mount in spec.mounts]
    out += ["rw=/tmp", "rw=/dev/shm", *(f"rw={target}" for target in spec.scratch)]
    return [*out, "path=/runtime/site-packages", "--", *spec.argv]


def _lay_bundle(folder: Path, config: dict[str, Any], inner: str, content: bytes) -> None:
    root, empty = folder / "rootfs", folder / "empty"
    empty.mkdir()
    for place in ("proc", "sandbox", "etc", "dev", "tmp"):
        (root / place).mkdir(parents=True)
    for link in ("lib", "lib64", "bin", "sbin"):
        (root / link).symlink_to(f"usr/{link}")
    for mount in config["mounts"]:
        if mount["source"] == "empty":
            mount["source"] = str(empty)
        elif not mount["destination"].startswith("/usr/"):
            (root / mount["destination"].lstrip("/")).mkdir(parents=True, exist_ok=True)
    files = {
        inner: content,
        "/etc/passwd": b"job:x:65534:65534:job:/tmp:/usr/sbin/nologin\n",
        "/etc/group": b"job:x:65534:\n",
    }
    for path, data in files.items():
        (root / path.lstrip("/")).write_bytes(data)
    for entry in (root, empty, *root.rglob("*")):
        if not entry.is_symlink():
            entry.chmod(0o755 if entry.is_dir() else 0o644)
    (folder / "config.json").write_text(json.dumps(config))


def _attest(init: int) -> None:
    """Raise unless gVisor's process is unprivileged, filtered, and in namespaces of its own."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{init}/status").read_text().splitlines() if ":" in line)
    for name in _NAMESPACES:
        if os.readlink(f"/proc/{init}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}"):
            raise does_not_hold(f"{name} namespace")
    if "0" in status["Uid"].split() or status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
        raise does_not_hold("gVisor's own process")


def _digest(spec: SessionSpec, prefix: Path | None, python: str, source: bytes, version: str) -> str:
    """The name of this way to launch, with roles in the place of the host's paths."""
    config = bundle_config(spec, prefix, [python, *_items(spec, prefix)])
    roles = {str(mount.source.absolute()): f"<mount {mount.target}>" for mount in spec.mounts}
    roles |= {str(spec.runtime.path.absolute()): "<runtime>", **({str(prefix): "<python>"} if prefix else {})}
    for mount in config["mounts"]:
        mount["source"] = roles.get(mount.get("source", ""), mount.get("source", ""))
    text = json.dumps([version, config], sort_keys=True).encode() + hashlib.sha256(source).digest()
    return "sha256:" + hashlib.sha256(text).hexdigest()


class _SentryMeter(Meter):
    """Reads the totals of gVisor's process and of those it started; its own threads are not the job's."""

    def __init__(self, init: int) -> None:
        super().__init__(init, ())
        self._user = os.readlink(f"/proc/{init}/ns/user")
        self._own = 0
        self._own = super().sample(Limits()).tasks

    def _belongs(self, name: str) -> bool:
        return os.readlink(f"/proc/{name}/ns/user") == self._user

    def sample(self, limits: Limits) -> Usage:
        """Return the totals now."""
        found = super().sample(limits)
        threads = max(0, found.tasks - self._own - _GO_THREADS)
        return Usage(threads, found.memory_bytes, found.cpu_seconds, found.scratch_files, found.scratch_full)


_GO_THREADS = 64
"""Threads that gVisor may add for itself while a job runs."""
