"""T1's place of a session in the file system: there is no mount table of its own, so it gets a directory of its own.

What the spec puts at ``/data`` lies at ``ROOTS/<uid>/data``: a hard link where that can be had, else a copy, readable to
the session's group alone. The session's temporary files lie beside it. All of it goes when the session ends; what a
crash left goes before the same uid is handed out again.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from sandbox._laying import lay, make_directory
from sandbox._staging import check_source
from sandbox._trees import remove_tree
from sandbox.errors import SandboxError
from sandbox.spec import SessionSpec

ROOTS = Path("/run/keyong-sessions")
"""Trust: whoever can write here can change what a running session reads; only root can. Mode 0711: a session finds its
own directory by name and lists no other."""


class SessionRoot:
    """The directory of one session under its own uid; ``remove`` takes it away."""

    def __init__(self, spec: SessionSpec, uid: int, launcher: tuple[str, bytes], roots: Path = ROOTS) -> None:
        _check_roots(roots)
        self.place = roots / str(uid)
        try:
            self.remove()
            self.place.mkdir(mode=0o700)
            for mount in spec.mounts:
                check_source(mount.source, by_others=True)
                lay(mount.source, self._below(mount.target))
            for target in ("/tmp", *spec.scratch):
                scratch = self._below(target)
                scratch.mkdir(mode=0o700)
                os.chown(scratch, uid, uid)
            self.launcher = self._below(launcher[0])
            self.launcher.write_bytes(launcher[1])
            self.launcher.chmod(0o644)
            os.chown(self.place, 0, uid)
            self.place.chmod(0o710)
        except OSError as error:
            with suppress(OSError):  # the next start tries again, and nobody has this uid before
                self.remove()
            raise SandboxError(
                "a session's files cannot be laid out in {path}: {reason}",
                code="start",
                hint="make room there, or give the container a larger /run (--tmpfs /run:size=...)",
                path=roots,
                reason=error.strerror or type(error).__name__,
            ) from None
        self._targets = (*(mount.target for mount in spec.mounts), *spec.scratch)
        self.tmp = self.place / "tmp"

    def path(self, inner: str) -> str:
        """Return where a place of the spec, or a path below one, is for the session; any other text as it is."""
        if any(inner == target or inner.startswith(target + "/") for target in self._targets):
            return f"{self.place}{inner}"
        return inner

    def remove(self) -> None:
        """Remove the directory and all in it; a link into it is not followed."""
        remove_root(self.place)

    def _below(self, target: str) -> Path:
        place = self.place / target.lstrip("/")
        for parent in reversed(place.relative_to(self.place).parents[:-1]):
            make_directory(self.place / parent, 0o755)
        return place


def remove_root(place: Path) -> None:
    """Remove a session's directory: what it was given first, so that nothing that a job wrote can keep it here.

    Raises:
        OSError: something could not be removed; all else was.
    """
    failed: OSError | None = None
    with suppress(FileNotFoundError):
        for child in sorted(place.iterdir(), key=lambda child: child.lstat().st_uid != place.lstat().st_uid):
            try:
                remove_tree(child)
            except OSError as error:
                failed = failed or error
        if failed is None:
            place.rmdir()
    if failed is not None:
        raise failed


def _check_roots(roots: Path) -> None:
    make_directory(roots, 0o711)
    state = roots.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o066:
        raise SandboxError(
            "{path} can be changed by others", code="layer", hint="remove {path}; it is made anew", path=roots
        )
