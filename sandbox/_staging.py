"""Root's way to show a session paths that its uid could not walk to: binds in a mount table of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox import _kernel
from sandbox._bubblewrap import Places
from sandbox.errors import SandboxError

STAGE = Path("/mnt")  # exists everywhere (Filesystem Hierarchy Standard); covered in the session's own mount table only


def check_source(path: Path, *, by_others: bool) -> None:
    """Raise unless ``path`` exists and the session will be able to read it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        raise SandboxError(
            "{path} does not exist", code="source", hint="create it, or name another", path=path
        ) from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise SandboxError(
            "{path} is neither a file nor a directory", code="source", hint="name a file or a directory", path=path
        )
    needed = 0o5 if stat.S_ISDIR(mode) else 0o4
    readable = mode & needed == needed if by_others else os.access(path, os.R_OK | (os.X_OK if needed & 1 else 0))
    if not readable:
        raise SandboxError(
            "a session's uid cannot read {path}",
            code="source",
            hint="make it readable to others (chmod o+rX {path}); a closed directory above it still keeps others out",
            path=path,
        )


def check_reachable(path: Path) -> None:
    """Raise unless every user can walk to ``path`` and read it: at T1 nothing can be shown in another place."""
    check_source(path, by_others=True)
    closed = [parent for parent in path.resolve().parents if not parent.stat().st_mode & 0o1]
    if closed:
        raise SandboxError(
            "a session's uid cannot reach {path}: {closed} is closed to others",
            code="source",
            hint="put it where every user can read it, below /opt for example",
            path=path,
            closed=closed[-1],
        )


def stage(places: Places, *, read_only: bool = True) -> Places:
    """Unshare the calling thread's mount table, bind every place below ``STAGE`` and return where they are."""
    _kernel.unshare_mounts()
    sources = [places.runtime, *(source for source, _target in places.mounts)]
    if places.python_prefix is not None:
        sources.append(places.python_prefix)
    # Opened before STAGE is covered: a source may lie below it.
    descriptors = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]
    try:
        _kernel.mount("tmpfs", STAGE, "tmpfs", _kernel.MS_NOSUID | _kernel.MS_NODEV, "size=64k,mode=0755")
        staged = [
            _bind(descriptor, STAGE / str(index), _kernel.MS_RDONLY if read_only else 0)
            for index, descriptor in enumerate(descriptors)
        ]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    mounts = tuple((path, target) for path, (_source, target) in zip(staged[1:], places.mounts, strict=False))
    return Places(staged[0], staged[-1] if places.python_prefix is not None else None, mounts)


def _bind(descriptor: int, target: Path, access: int) -> Path:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(mode=0o755)
    else:
        target.touch(mode=0o644)
    _kernel.mount(f"/proc/self/fd/{descriptor}", target, None, _kernel.MS_BIND)
    flags = _kernel.MS_BIND | _kernel.MS_REMOUNT | access | _kernel.MS_NOSUID | _kernel.MS_NODEV
    _kernel.mount(None, target, None, flags)
    return target
