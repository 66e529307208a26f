"""Whether this process runs in a container, and of which kind: what must be changed for T2 depends on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

ContainerKind = Literal["kubernetes", "podman", "docker", "other"]

_MARKS: tuple[tuple[ContainerKind, tuple[str, ...]], ...] = (
    ("kubernetes", ("/kubepods", "/kubelet/")),
    ("podman", ("/libpod-", "/containers/storage/", "/libpod_parent")),
    ("docker", ("/docker/", "/docker-")),
)


def find_container(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> ContainerKind | None:
    """Return the kind of container around this process; ``None`` where nothing tells of one.

    Args:
        root: where files are looked up; for tests.
        environment: this process's variables.
    """
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    traces = _read(root / "proc/1/cgroup") + _read(root / "proc/self/cgroup")
    # The line of the root mount alone: a machine that runs containers mounts theirs, too.
    traces += "".join(
        line for line in _read(root / "proc/self/mountinfo").splitlines(True) if line.split(" ")[4:5] == ["/"]
    )
    for kind, marks in _MARKS:
        if any(mark in traces for mark in marks):
            return kind
    manager = environment.get("container", "")
    if manager in ("podman", "docker"):
        return "podman" if manager == "podman" else "docker"
    return "other" if manager or "container=" in _read(root / "proc/1/environ") else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
