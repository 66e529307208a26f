"""T0: a session that is a plain subprocess of the service's own user. It isolates nothing, and says so.

For development where no tier can be had, on made-up data: job code sees whatever the service's user sees, its keys among
it, and the network. What is kept is the shape of a session, so that the same code runs here as at T2: the one channel,
an empty environment, no inherited descriptor, limits of the whole by the supervisor, and an end that takes every honest
process with it. Root is refused: job code would be root.
"""

from __future__ import annotations

import os
import resource
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from sandbox import _bubblewrap, _launcher, _staging
from sandbox._meter import TreeMeter
from sandbox._reaped import start_reaped
from sandbox._started import START_SECONDS, Started, cannot, join_group, last_words, make_group
from sandbox._trees import remove_tree
from sandbox.errors import SandboxError
from sandbox.spec import Evidence, SessionSpec, Tier

_SHARED = (resource.RLIMIT_NPROC,)
"""Bounds that the kernel counts by uid: here they would count every process of the service's user."""


class PlainRoot:
    """Where a session without a file system of its own finds the places of its spec: mounts where they lie, scratch in a
    temporary directory that goes with the session."""

    def __init__(self, spec: SessionSpec) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="keyong-development-"))
        self._places = {mount.target: mount.source.absolute() for mount in spec.mounts}
        self.tmp = self.place / "tmp"
        for target, place in (("/tmp", self.tmp), *((one, self.place / one.lstrip("/")) for one in spec.scratch)):
            place.mkdir(parents=True)
            if target != "/tmp":
                self._places[target] = place

    def path(self, inner: str) -> str:
        """Return where a place of the spec, or a path below one, is for the session; any other text as it is."""
        for target, place in self._places.items():
            if inner == target or inner.startswith(target + "/"):
                return f"{place}{inner[len(target) :]}"
        return inner

    def remove(self) -> None:
        """Remove the temporary files; what was mounted is the caller's."""
        with suppress(FileNotFoundError):
            remove_tree(self.place)


def start_subprocess(spec: SessionSpec, *, without: frozenset[str] = frozenset()) -> Started:
    """Start a session at T0, which isolates nothing.

    Raises:
        SandboxError: this is root, something cannot be read, or the process does not come up; nothing is left running.
    """
    if os.geteuid() == 0:
        raise SandboxError(
            "T0 is for an ordinary user: started by root, job code would be root",
            code="layer",
            hint="start the service as an ordinary user, or accept T1, which root has (`keyong node tier T1`)",
        )
    python = str(spec.runtime.python.resolve())
    prefix, _inner = _bubblewrap.locate_python(spec.runtime.python)
    for place in (spec.runtime.path, *(mount.source for mount in spec.mounts)):
        _staging.check_source(place, by_others=False)
    with ExitStack() as undo:
        root = PlainRoot(spec)
        undo.callback(root.remove)
        control_read, control = os.pipe()
        alive = undo.enter_context(open(control, "wb", buffering=0))
        arguments = _launcher_arguments(spec, root)
        try:
            environment = {name: root.path(value) for name, value in spec.env.items()}
            packages = spec.runtime.path.absolute() / "site-packages"
            environment |= _bubblewrap.fixed_environment(str(root.tmp), packages, prefix)
            launcher = [python, "-I", "-S", str(_launcher.SOURCE)]
            started = start_reaped(launcher, arguments, environment, root.tmp, control_read, undo)
        finally:
            os.close(control_read)
        monitor, init, channel = started.monitor, started.init, started.channel
        group = join_group(spec, init, make_group(undo, without))
        try:
            _launcher.await_report(channel, START_SECONDS)
        except TimeoutError as error:
            raise cannot("launcher", error) from None
        except (EOFError, OSError):
            raise cannot("launcher", last_words(monitor)) from None
        roles = [
            part.replace(str(root.place), "<session>").replace(str(spec.runtime.path), "<runtime>")
            for part in arguments
        ]
        evidence = Evidence(
            tier=Tier.T0,
            kernel=os.uname().release,
            landlock_abi=0,
            seccomp_digest="",
            arguments_digest=_bubblewrap.arguments_digest(["T0"], roles, python, _launcher.SOURCE.read_bytes()),
            limits_by="cgroup" if group else "supervisor",
            runtime_digest=spec.runtime.digest,
        )
        bounds = {root.tmp: spec.limits.scratch_bytes}
        bounds |= {Path(root.path(target)): size for target, size in spec.scratch.items()}
        meter = TreeMeter(monitor.pid, bounds)
        undo.pop_all()
    return Started(monitor, init, started.handle, channel, None, evidence, meter, root, alive, group)


def _launcher_arguments(spec: SessionSpec, root: PlainRoot) -> list[str]:
    """What the launcher is told: the kernel's bounds of a process, and that there is nothing else to close or to prove."""
    bounds = _bubblewrap.process_bounds(spec.limits)
    out = [f"limit={number}:{bound}" for number, bound in bounds.items() if number not in _SHARED]
    out += ["skip=canary", "skip=landlock", f"path={spec.runtime.path.absolute()}/site-packages"]
    return [*out, "--", *(root.path(argument) for argument in spec.argv)]
