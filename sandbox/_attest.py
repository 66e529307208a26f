"""Looks at a session's first process from the outside, so that its isolation does not rest on its own word."""

from __future__ import annotations

import os
from pathlib import Path

from sandbox.errors import SandboxError

_NAMESPACES = ("user", "pid", "net", "ipc", "uts", "mnt", "cgroup")


def attest(init: int, uid: int | None, *, namespaces: bool = True) -> None:
    """Raise unless process ``init`` is in namespaces of its own, unprivileged, filtered, and runs as ``uid``.

    Args:
        init: the session's process 1, by host pid.
        uid: the session's own host uid and gid; ``None`` where an ordinary user runs the sandbox.
        namespaces: whether the tier has them (T2); at T1 the uid does their part.
    """
    own = os.geteuid() if uid is None else uid
    status = dict(line.split(":", 1) for line in Path(f"/proc/{init}/status").read_text().splitlines() if ":" in line)
    for namespace in _NAMESPACES if namespaces else ():
        own_namespace = Path(f"/proc/self/ns/{namespace}")
        if namespace == "cgroup" and not own_namespace.is_symlink():
            continue  # a kernel without cgroups: there is nothing to see
        if os.readlink(f"/proc/{init}/ns/{namespace}") == os.readlink(own_namespace):
            raise does_not_hold(f"{namespace} namespace")
    if own == 0 or set(status["Uid"].split()) != {str(own)}:
        raise does_not_hold("own uid")
    if uid is not None and (set(status["Gid"].split()) != {str(uid)} or status["Groups"].split()):
        raise does_not_hold("own group")
    if any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
        raise does_not_hold("capabilities")
    if status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
        raise does_not_hold("seccomp")


def does_not_hold(act: object) -> SandboxError:
    """Return the refusal for an act that succeeded inside, or for isolation that is not there."""
    return SandboxError(
        "the sandbox does not hold: {act}",
        code="canary",
        hint="run keyong doctor; no job runs on this machine until every forbidden act fails",
        act=act,
    )
