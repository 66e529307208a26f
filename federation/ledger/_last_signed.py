"""The second file: the last checkpoint this ledger signed, outside the database it guards.

Order (all under the folder's lock): COMMIT, then this file, then the reply. So every
checkpoint that anybody was given is in both places. A crash between the two leaves the file *behind* the database; the
next opening repairs that after checking that the database extends it; the file is never *ahead* unless the
database went back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federation.crypto import write_private
from federation.errors import KeyongError
from federation.ledger.checkpoint import SignedCheckpoint, open_checkpoint
from federation.ledger.errors import CheckpointMissingError, ForkError, LedgerRolledBackError, LedgerUnavailableError
from federation.ledger.merkle import NodeSource, range_root
from federation.ledger.note import MAX_NOTE_BYTES, VerifierKey
from federation.ledger.store import LAST_SIGNED, LOCK

LOCK_SECONDS = 10.0
SECTOR_BYTES = 512


def read_last_signed(folder: Path, vkey: VerifierKey) -> SignedCheckpoint | None:
    """Return the verified last-signed checkpoint, or None where there is no such file."""
    try:
        with (folder / LAST_SIGNED).open("rb") as file:
            data = file.read(MAX_NOTE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerUnavailableError(
            "the last-signed checkpoint cannot be read: {reason}", reason=os.strerror(error.errno or 0)
        ) from error
    return open_checkpoint(data, vkey)


def write_last_signed(folder: Path, note: bytes) -> None:
    """Replace the file durably; the caller holds the lock, so it never goes back.

    Every commit group waits for this, so a note that fits one disk sector, which is written whole or not at all, goes over the
    old one in place: one data flush instead of a new file, a rename and a flush of the folder. Any other note is written
    beside and renamed.
    """
    path = folder / LAST_SIGNED
    try:
        if not _overwrite(path, note):
            write_private(path, note, replace=True)
    except (KeyongError, OSError) as error:
        raise LedgerUnavailableError(
            "the entry is stored, but its checkpoint could not be written: {reason}",
            hint="free the disk or mend the folder's permissions; treat the entry as not acknowledged",
            code="ledger-unconfirmed",
            reason=str(error),
        ) from error


def _overwrite(path: Path, note: bytes) -> bool:
    """Write over the file in place where that is safe; whether it was."""
    if len(note) > SECTOR_BYTES:
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(descriptor).st_size > len(note):  # would leave the end of the old note behind the new one
            return False
        if os.pwrite(descriptor, note, 0) != len(note):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return True


def check_not_rolled_back(last: SignedCheckpoint | None, size: int, note: bytes, node: NodeSource) -> None:
    """Raise unless the database of ``size`` entries extends what was last signed.

    Raises:
        CheckpointMissingError: entries, but no last-signed checkpoint.
        LedgerRolledBackError: fewer entries than were signed.
        ForkError: other entries than were signed.
    """
    if last is None:
        if size:
            raise CheckpointMissingError(
                "the ledger's last-signed checkpoint is missing",
                hint="put ledger.checkpoint back beside ledger.db; without it a truncated ledger looks whole",
            )
        return
    signed = last.checkpoint
    if signed.size > size:
        raise LedgerRolledBackError(
            "the ledger holds {size} entries, but {signed} were signed: it was restored from an old copy, or cut",
            hint="put the newest ledger.db and ledger.db-wal back. If they are lost, ask for a new ledger that commits to what"
            " others saw of this one (`keyong ledger succeed`): an old one must not go on",
            index=size,
            size=size,
            signed=signed.size,
        )
    if range_root(0, signed.size, node) != signed.root:
        raise ForkError(
            "the ledger's first {size} entries are not the ones it signed",
            hint="set this folder aside as evidence and restore ledger.db from the newest backup",
            size=signed.size,
            evidence=(last.note, note),
        )


def heed(folder: Path, signed: SignedCheckpoint, size: int, note: bytes, node: NodeSource) -> None:
    """Compare the database with a checkpoint of this ledger that somebody else holds; the caller holds the lock.

    One beyond the last entry becomes the last-signed checkpoint, so that the ledger does not open any more either: it was put
    back to an older state, and what it would sign next is a fork.

    Raises:
        LedgerRolledBackError, ForkError: this is not the history that was signed.
    """
    if signed.checkpoint.size > size:
        write_last_signed(folder, signed.note)
    check_not_rolled_back(signed, size, note, node)


@contextmanager
def locked(folder: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the folder's lock, so that only one process at a time commits and replaces the last-signed checkpoint."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerUnavailableError(
            "the ledger's lock cannot be opened: {reason}", reason=os.strerror(error.errno or 0)
        ) from error
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LedgerUnavailableError(
                        "another process has kept the ledger locked for {seconds} seconds",
                        hint="look for a stopped keyong process of this home",
                        seconds=seconds,
                    ) from None
                time.sleep(0.001)
        yield
    finally:
        os.close(descriptor)
