"""An own host uid and gid for each live session that root starts, so that no session can touch another's processes.

One lock file a uid in a directory that only root can write; a lock ends with the process that held it, also by a crash.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from sandbox.errors import SandboxError

# Ranges that no distribution, systemd or subuid default hands out (systemd's UIDS-GIDS page); the second for user
# namespaces that map fewer. Of each, the second half is left to nobody: the reaper's killer stands there.
RANGES = ((0x7000_0000, 1 << 12), (200_000, 1 << 12))
LOCKS = Path("/run/keyong-sandbox")


class Identity:
    """A uid (and a gid of the same number) that is this session's alone until ``release``."""

    def __init__(self, uid: int, lock: int) -> None:
        self.uid = uid
        self._lock = lock

    @property
    def lock(self) -> int:
        """The descriptor that holds it; whoever inherits it holds it as well."""
        return self._lock

    def release(self) -> None:
        """Give the uid back; only after the session's last process is gone."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def allot_identity(locks: Path = LOCKS, ranges: tuple[tuple[int, int], ...] = RANGES) -> Identity:
    """Return a uid that no live session of this machine has; raise where none can be had."""
    locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = locks.stat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        raise SandboxError(
            "{path} can be changed by others", code="layer", hint="remove {path}; it is made anew", path=locks
        )
    for uid in _candidates(ranges):
        if (identity := hold_if_free(uid, locks)) is not None:
            return identity
    raise SandboxError(
        "there is no free uid for a session",
        code="layer",
        hint="map uids from {first} on into this container, or end sessions",
        first=RANGES[0][0],
    )


def hold_if_free(uid: int, locks: Path = LOCKS) -> Identity | None:
    """Return the identity of that uid where no live session has it, to clear what a crash left of it."""
    lock = os.open(locks / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Identity(uid, lock)


def _candidates(ranges: tuple[tuple[int, int], ...]) -> Iterator[int]:
    mapped = [tuple(int(part) for part in line.split()) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    for first, count in ranges:
        if any(inside <= first and first + 2 * count <= inside + length for inside, _outside, length in mapped):
            start = secrets.randbelow(count)  # a fresh one is seldom used again soon
            yield from (first + (start + step) % count for step in range(count))
            return
