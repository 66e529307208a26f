"""A copy of a home while it serves.

The order is what makes it usable: the ledger's last-signed checkpoint before its database, so that the copy is never
older than the checkpoint beside it; the ledger before the stores, because a revocation is in the store before it is in the
ledger; databases before other files, because a job's files are there before its row.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from federation import keyring
from federation.crypto import make_private_dir, write_private
from federation.errors import UsageError
from federation.home import Home, now
from federation.ledger import VerifierKey, verify_ledger
from federation.release import release
from federation.statements import instant_text
from federation.stores import copy_database, sync
from keyong._backup_folder import MANIFEST, SEALED_KEYS, CopiedFile, Manifest, digest, make_folders, seal_keys

LEFT_OUT = (
    "keys",
    "next-keys",
    "next-ledger",
    "answers",
    "queries",
    "held",
    "sessions",
    "spool",
    "logs",
    "errors",
    "backups",
    "pages",
)
"""Keys go sealed or not at all; answers must not outlive their agreements, and a restored node takes no older plan;
the rest lives as long as a job, or is of use on its own machine alone."""
_FIRST = ("ledger/ledger.checkpoint", "ledger/ledger.db", "store.db", "coordinator.db")

Progress = Callable[[int, int], None]


def back_up(home: Home, target: Path, *, passphrase: bytes | None = None, progress: Progress | None = None) -> Manifest:
    """Copy a home into a new folder, verify the copied ledger's tree, and write the manifest last.

    Args:
        passphrase: include the private keys, encrypted with it.
        progress: told bytes copied and bytes in all.

    Raises:
        UsageError: the folder holds something already.
        CopyError, LedgerError: a database cannot be copied, or is damaged; the folder is left without a manifest.
    """
    target = target.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError("{folder} is not empty", hint="name a new folder for the backup", folder=str(target))
    if target.is_relative_to(home.path.absolute()):
        raise UsageError("a backup inside the home would be lost with it", hint="name a folder elsewhere")
    make_private_dir(target)
    names = _names(home.path)
    total = sum((home.path / name).stat().st_size for name in names)
    files, done = [], 0
    for name in names:
        copy = _copy(home.path / name, make_folders(target, name))
        if copy is None:
            continue
        size, sha256 = copy
        files.append(CopiedFile(path=name, size=size, sha256=sha256))
        done += size
        if progress is not None:
            progress(done, max(done, total))
    if passphrase is not None:
        write_private(target / SEALED_KEYS, seal_keys(home.path / "keys", passphrase))
        size, sha256 = digest(target / SEALED_KEYS)
        files.append(CopiedFile(path=SEALED_KEYS, size=size, sha256=sha256))
    verdict = verify_ledger(target / "ledger", ledger_key(home), hash_only=True)
    manifest = Manifest(
        release=release(),
        member=home.identity.member,
        consortium=home.identity.consortium,
        fingerprint=home.identity.fingerprint,
        taken=instant_text(now()),
        entries=verdict.entries,
        keys=passphrase is not None,
        files=tuple(files),
    )
    manifest.write(target)
    flush(target)
    return manifest


def ledger_key(home: Home) -> VerifierKey:
    """What a home's ledger is verified with, from the newest of its rosters that has the member: no private key is used."""
    return keyring.ledger_key(home.history.rosters, home.identity.member)


def flush(folder: Path) -> None:
    """Flush every file and folder below to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _names(home: Path) -> list[str]:
    """What is to be copied, relative to the home, in order."""
    found = []
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if name.split("/")[0] in LEFT_OUT or name in _FIRST or name == MANIFEST:
            continue
        if path.name.startswith(".") or path.name.endswith((".lock", "-wal", "-shm", "-journal")):
            continue
        if stat.S_ISREG(path.lstat().st_mode):
            found.append(name)
    return [name for name in _FIRST if (home / name).exists()] + found


def _copy(source: Path, target: Path) -> tuple[int, str] | None:
    """Copy one file for its owner alone; None where it went meanwhile, as a job's files may."""
    if source.suffix == ".db":
        copy_database(source, target)
        return digest(target)
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            target.chmod(0o600)
            shutil.copyfileobj(reader, writer)
    except FileNotFoundError:
        return None
    return digest(target)
