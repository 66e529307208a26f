"""A home made anew from a backup: everything verified before anything is in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.crypto import make_private_dir, write_private
from federation.errors import UnavailableError, UsageError
from federation.home import Home
from federation.ledger import Checkpoint, TruncatedError, Verdict, parse_note, verify_ledger
from keyong._backup_folder import SEALED_KEYS, BackupError, Manifest, make_folders, open_keys
from keyong.backing_up import flush, ledger_key

Progress = Callable[[int, int], None]
ROLES = ("node", "coordinator")


class LedgerOlderError(BackupError):
    """The backup's ledger lacks entries that were signed after it was taken: it must not go on."""

    code = "ledger-rolled-back"


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Args:
        entries: size of the ledger; an entry with this index or a higher one, held by anybody, was lost.
        last_time: time of its newest entry.
        keys: whether the private keys are in place.
    """

    home: Home
    manifest: Manifest
    entries: int
    last_time: str
    keys: bool


def restore(
    source: Path,
    target: Path,
    *,
    passphrase: bytes | None = None,
    checkpoints: Sequence[bytes] = (),
    progress: Progress | None = None,
) -> Restored:
    """Verify a backup and put a home in place of an empty folder, all or nothing.

    Args:
        passphrase: opens the private keys, where the backup has them.
        checkpoints: signed notes of this ledger found elsewhere, such as the ``ledger.checkpoint`` of a broken disk.
        progress: told entries of the ledger verified and entries in all.

    Raises:
        UsageError: the folder holds something.
        AlreadyServingError: a process serves it.
        BackupError: a file is missing or was changed.
        LedgerOlderError: a checkpoint shows that the ledger was longer.
        LedgerError: the ledger does not hold.
    """
    source, target = source.expanduser().absolute(), target.expanduser().absolute()
    _check_free(target)
    manifest = Manifest.read(source)
    part = target.with_name(f".{target.name}.restoring")
    if part.exists():
        shutil.rmtree(part)
    make_private_dir(part)
    try:
        for file in manifest.files:
            if file.path == SEALED_KEYS:
                continue
            checked = manifest.check(source, file)
            place = make_folders(part, file.path)
            shutil.copyfile(checked, place)
            place.chmod(0o600)
            manifest.check(part, file)  # what was copied, not what was looked at before
        _put_keys(source, part, manifest, passphrase)
        home = Home(part)
        _check_whose(home, manifest)
        verdict = _verify(home, checkpoints, progress)
        home.mark_restored()  # a node has forgotten steps that it took, so nothing planned before is taken again
        home.mark_openings_lost(not _whole(verdict, checkpoints))
        flush(part)
        if target.exists():
            target.rmdir()
        part.rename(target)
    except OSError as error:
        raise UnavailableError(
            "the backup cannot be restored: {reason}",
            hint="free the disk or mend the folder's permissions, then try again",
            reason=error.strerror or type(error).__name__,
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    keys = (target / "keys" / "ledger.key").exists()
    return Restored(Home(target), manifest, verdict.entries, verdict.last_time, keys)


def _whole(verdict: Verdict, checkpoints: Sequence[bytes]) -> bool:
    """Whether a checkpoint from elsewhere is of the ledger as it is in the backup: then nothing is known to be missing."""
    return any(Checkpoint.parse(parse_note(data).text).size == verdict.entries for data in checkpoints)


def _check_free(target: Path) -> None:
    if (target / "identity.json").exists():
        for role in ROLES:
            Home(target).claim(role).release()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(
            "{folder} is not empty: nothing is restored over a home",
            hint="move it away first, and keep it: its ledger may hold entries that the backup lacks",
            folder=str(target),
        )


def _put_keys(source: Path, part: Path, manifest: Manifest, passphrase: bytes | None) -> None:
    if passphrase is None:
        return
    sealed = [file for file in manifest.files if file.path == SEALED_KEYS]
    if not sealed:
        raise UsageError(
            "this backup holds no keys", hint="leave --keys out, and put the folder keys/ of the home back yourself"
        )
    make_private_dir(part / "keys")
    for name, data in open_keys(manifest.check(source, sealed[0]).read_bytes(), passphrase).items():
        write_private(part / "keys" / name, data)


def _check_whose(home: Home, manifest: Manifest) -> None:
    identity = home.identity
    if (identity.member, identity.consortium, identity.fingerprint) != (
        manifest.member,
        manifest.consortium,
        manifest.fingerprint,
    ):
        raise BackupError("the manifest is of another home than the files")


def _verify(home: Home, checkpoints: Sequence[bytes], progress: Progress | None) -> Verdict:
    try:
        return verify_ledger(home.path / "ledger", ledger_key(home), checkpoints=checkpoints, progress=progress)
    except TruncatedError as error:
        raise LedgerOlderError(
            "the backup's ledger ends before what was signed later: {reason}",
            hint="look for a newer backup, or ledger.db and ledger.db-wal of the old disk. If they are lost, restore without"
            " --checkpoint and ask for a new ledger at once (`keyong ledger succeed`): an old ledger must not go on",
            reason=str(error),
        ) from None
