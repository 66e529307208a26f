"""The options with which a container gives its sessions T2; ``docs/containers.md`` says why each is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox import ContainerKind

PROFILE = "deploy/seccomp.json"
"""Ships with the sources, and in the image as ``/usr/share/keyong/seccomp.json``."""

OPTIONS: dict[ContainerKind, tuple[str, ...]] = {
    "docker": (
        f"--security-opt seccomp={PROFILE}",
        "--security-opt systempaths=unconfined",
        "--security-opt apparmor=unconfined",
    ),
    "podman": (
        f"--security-opt seccomp={PROFILE}",
        "--security-opt unmask=ALL",
        "--security-opt apparmor=unconfined",
        "--security-opt label=disable",
    ),
    "kubernetes": (
        "spec.hostUsers: false",
        "securityContext.procMount: Unmasked",
        "securityContext.seccompProfile: {type: Localhost, localhostProfile: keyong-seccomp.json}",
        "securityContext.appArmorProfile: {type: Unconfined}",
    ),
    "other": (
        f"a system call filter that allows what {PROFILE} allows",
        "/proc without covered paths",
        "no AppArmor or SELinux profile that forbids user namespaces or mounts",
    ),
}
"""Beside them: an ordinary user (not root), and user namespaces that the host allows (user.max_user_namespaces)."""
