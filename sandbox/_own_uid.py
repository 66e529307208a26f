"""T1: a session without namespaces, for containers that forbid them. Landlock, the stricter filter, limits, a uid.

A uid of its own does what namespaces do at T2 as far as it can: no signal, no trace and no file of another uid. It cannot
hide: the machine's processes can be counted, and whether a path exists can be seen. ``canary.CONCEDED`` names what is
given up; everything else must fail here as it does at T2.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sandbox import _bubblewrap, _kernel, _launcher, _seccomp, _staging
from sandbox._attest import attest, does_not_hold
from sandbox._cgroup import limit_files
from sandbox._identity import Identity, allot_identity, hold_if_free
from sandbox._meter import UidMeter
from sandbox._reaped import REAPER, start_reaped
from sandbox._session_root import ROOTS, SessionRoot, remove_root
from sandbox._started import START_SECONDS, Started, cannot, join_group, last_words, make_group
from sandbox.errors import SandboxError
from sandbox.spec import Evidence, SessionSpec, Tier

CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8}
"""What root needs to give a session a uid, take every privilege from it, and end it."""


def check_root() -> None:
    """Raise unless this process may give each session a uid of its own."""
    if os.geteuid() != 0:
        raise SandboxError(
            "T1 needs root: only root can give a session a uid of its own",
            code="layer",
            hint="start the container as root (--user 0), or allow user namespaces and have T2",
        )
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    missing = [name for name, number in CAPABILITIES.items() if not held >> number & 1]
    if missing:
        raise SandboxError(
            "T1 lacks the capabilities {names}",
            code="layer",
            hint="give them to the container: --cap-add {names}",
            names=",".join(missing),
        )


@dataclass(frozen=True)
class _Launch:
    """One launch: what is asked for, and the places of this machine it is given."""

    spec: SessionSpec
    root: SessionRoot
    uid: int
    packages: Path
    prefix: Path | None
    python: str
    without: frozenset[str]
    bounds: tuple[Path, ...] = ()
    """Files that say what its control group may have, which libraries look for: there is no namespace to hide them."""

    def environment(self) -> dict[str, str]:
        """Every variable that the session has; values that name a place of the spec name it where it is."""
        out = {name: self.root.path(value) for name, value in self.spec.env.items()}
        out |= _bubblewrap.fixed_environment(str(self.root.tmp), self.packages / "site-packages", self.prefix)
        if "empty-environment" in self.without:
            out["KEYONG_LEAK"] = "1"
        return out

    def launcher_arguments(self) -> list[str]:
        """What the launcher inside is told, with the machine's paths."""
        limits = replace(self.spec.limits, file_bytes=min(self.spec.limits.file_bytes, self.spec.limits.scratch_bytes))
        out = [*_bubblewrap.limit_items(limits), f"abi={_kernel.LANDLOCK_ABI}", f"uid={self.uid}"]
        out += _readable_system(_bubblewrap.masked_places(self.python))
        out += [f"rx={place}" for place in (self.packages, self.prefix) if place is not None]
        out += _bubblewrap.process_items()
        out += [f"r={file}" for file in self.bounds]
        out += [f"r={self.root.path(mount.target)}" for mount in self.spec.mounts]
        out += [f"rw={self.root.tmp}", *(f"rw={self.root.path(target)}" for target in self.spec.scratch)]
        out += [f"path={self.packages}/site-packages", *(f"skip={layer}" for layer in sorted(self.without))]
        return [*out, "--", *(self.root.path(argument) for argument in self.spec.argv)]

    def digest(self, launcher_source: bytes) -> str:
        """The name of this way to launch, with roles in the place of the machine's paths and of the uid."""
        roles = {str(self.root.place): "<session>", str(self.packages): "<runtime>", f"uid={self.uid}": "uid=<own>"}
        if self.prefix is not None:
            roles[str(self.prefix)] = "<python>"
        parts = []
        for part in replace(self, bounds=()).launcher_arguments():
            for place, role in roles.items():
                part = part.replace(place, role)
            parts.append(part)
        interpreter = self.python if self.prefix is None else self.python.replace(str(self.prefix), "<python>")
        return _bubblewrap.arguments_digest(["T1"], parts, interpreter, launcher_source)


def start_own_uid(spec: SessionSpec, *, without: frozenset[str] = frozenset()) -> Started:
    """Start a session at T1 and check, from inside and from outside, that it is isolated as T1 promises.

    Raises:
        SandboxError: a layer is missing, or a forbidden act succeeded; nothing is left running.
    """
    machine = _kernel.check_kernel()
    check_root()
    prefix, _inner = _bubblewrap.locate_python(spec.runtime.python)
    python = str(spec.runtime.python.resolve())
    packages = spec.runtime.path.absolute()
    for place in (packages, prefix):
        if place is not None:
            _staging.check_reachable(place)
    source = _launcher.SOURCE.read_bytes()
    filter_program = _seccomp.build_filter(machine, sockets=False)
    with ExitStack() as undo:
        identity = allot_identity()
        undo.callback(identity.release)
        clear_leftovers()
        end_uid(identity.uid)
        root = SessionRoot(spec, identity.uid, _launcher.launcher_file(source, python))
        undo.callback(root.remove)
        undo.callback(end_uid, identity.uid)
        group = make_group(undo, without)
        launch = _Launch(spec, root, identity.uid, packages, prefix, python, without, limit_files(group))
        control_read, control = os.pipe()
        alive = undo.enter_context(open(control, "wb", buffering=0))
        try:
            started = start_reaped(
                [python, "-I", "-S", str(root.launcher)],
                launch.launcher_arguments(),
                launch.environment(),
                root.tmp,
                control_read,
                undo,
                identity=identity,
                filter_program=filter_program if "seccomp" not in without else b"",
            )
        finally:
            os.close(control_read)
        monitor, init, channel = started.monitor, started.init, started.channel
        group = join_group(spec, init, group)
        abi = _confirm(channel, monitor, init, identity, without)
        evidence = Evidence(
            tier=Tier.T1,
            kernel=os.uname().release,
            landlock_abi=abi,
            seccomp_digest=_seccomp.filter_digest(filter_program),
            arguments_digest=launch.digest(source),
            limits_by="cgroup" if group else "supervisor",
            runtime_digest=spec.runtime.digest,
        )
        bounds = {root.tmp: spec.limits.scratch_bytes}
        bounds |= {Path(root.path(target)): size for target, size in spec.scratch.items()}
        meter = UidMeter(identity.uid, bounds)
        undo.pop_all()
    return Started(
        monitor,
        init,
        started.handle,
        channel,
        identity,
        evidence,
        meter,
        root,
        alive,
        group,
        partial(end_uid, identity.uid),
    )


def clear_leftovers() -> list[str]:
    """End and remove what sessions left whose trusted process and reaper both went away: a crash, a full memory.

    Done before every start at T1, and by a service that starts at whatever tier: it may have had T1 before.

    Returns:
        The places that could not be cleared; none keeps another from it. What runs as an ordinary user has no such places.
    """
    left: list[str] = []
    if os.geteuid() != 0 or not ROOTS.is_dir():
        return left
    for place in ROOTS.iterdir():
        try:
            identity = hold_if_free(int(place.name)) if place.name.isdecimal() else None
            if identity is not None:
                try:
                    end_uid(identity.uid)
                    remove_root(place)
                finally:
                    identity.release()
        except (OSError, subprocess.SubprocessError):
            left.append(str(place))
    return left


def end_uid(uid: int) -> None:
    """Kill every process of a session's uid that its reaper did not; none is left when this returns."""
    if UidMeter(uid, {}).alive():
        reaper = [sys.executable, "-I", "-S", str(REAPER), "kill", str(uid)]
        subprocess.run(reaper, env={}, cwd="/", stdin=subprocess.DEVNULL, timeout=START_SECONDS, check=True)


def _confirm(
    channel: socket.socket, monitor: subprocess.Popen[bytes], init: int, identity: Identity, without: frozenset[str]
) -> int:
    """Return the Landlock version, once the session is found isolated by its own word and by a look from outside."""
    try:
        abi = _launcher.await_report(channel, START_SECONDS)
        if "attest" not in without:
            attest(init, identity.uid, namespaces=False)
            if UidMeter(identity.uid, {}).alive() != [str(init)]:
                raise does_not_hold("own uid")
    except TimeoutError as error:
        raise cannot("launcher", error) from None
    except (EOFError, OSError):
        raise cannot("launcher", last_words(monitor)) from None
    return abi


def _readable_system(masked: list[str]) -> list[str]:
    """Return Landlock's items for ``/usr`` without what the machine's owner installed there.

    A rule takes in all that lies below it, so a directory that holds a masked one is opened child by child; links need
    no rule, for what they lead to has its own.
    """
    out: list[str] = []

    def open_up(directory: Path) -> None:
        hidden = [Path(place) for place in masked if Path(place).is_relative_to(directory)]
        if directory in hidden or directory.is_symlink():
            return
        if not hidden:
            out.append(f"rx={directory}")
            return
        if (directory / "os.py").exists():  # the standard library is found by listing it
            out.append(f"ls={directory}")
        for child in sorted(directory.iterdir()):
            open_up(child)

    open_up(Path("/usr"))
    return out
