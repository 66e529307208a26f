"""What a backup's folder holds: copies of a home's files, sealed keys, and the manifest, written last.

An attacker who can modify a backup can exchange everything that is not signed in itself, and rewrite the manifest with
it: what was signed (statements, rosters, the ledger) is verified whenever it is used, the rest is believed. Whoever can
read it reads what the home holds in the clear: agreements, plans, results, the ledger's values; keys only with the
passphrase.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.crypto import make_private_dir, read_private
from federation.errors import UsageError, VerificationError

MANIFEST = "manifest.json"
SEALED_KEYS = "keys.sealed"
LEAST_PASSPHRASE = 16
_COST = {"n": 2**16, "r": 8, "p": 1}
"""Of scrypt (RFC 7914): 64 MiB and some tenths of a second for each guess."""
_CONTEXT = b"keyong backup keys v1"
_CHUNK = 1024 * 1024


class BackupError(VerificationError):
    """A backup is incomplete, changed, or cannot be opened."""

    code = "backup"


class CopiedFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """Whose home it is, when it was copied, by which release, and every file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    release: str
    member: str
    consortium: str
    fingerprint: str
    taken: str
    entries: Annotated[int, Field(ge=0)]
    """Size of the ledger."""
    keys: bool
    files: tuple[CopiedFile, ...]

    def write(self, folder: Path) -> None:
        """Write it into the backup's folder."""
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        (folder / MANIFEST).chmod(0o600)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it from a backup's folder.

        Raises:
            BackupError: there is none, or it is of another form.
        """
        try:
            document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise BackupError(
                "{folder} holds no readable {manifest}: it is no backup, or one that was not finished",
                hint="name the folder that `keyong backup` wrote",
                folder=str(folder),
                manifest=MANIFEST,
            ) from None
        if isinstance(document, dict) and isinstance(document.get("format"), int) and document["format"] > 1:
            raise BackupError(
                "this backup was written by a newer release ({release})",
                hint="restore it with that release, or a newer one",
                code="store-newer",
                release=str(document.get("release", "?"))[:32],
            )
        try:
            return cls.model_validate(document)
        except ValidationError:
            raise BackupError("the manifest of {folder} is malformed", folder=str(folder)) from None

    def check(self, folder: Path, file: CopiedFile) -> Path:
        """The path of one file of the backup, its size and digest compared.

        Raises:
            BackupError: it is missing, changed, or would lie outside.
        """
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\0" in file.path:
            raise BackupError("the manifest names a file outside the backup")
        place = folder / path
        try:
            found = digest(place) if not place.is_symlink() else None
        except OSError:
            found = None
        if found != (file.size, file.sha256):
            raise BackupError(
                "{path} is missing from the backup, or was changed",
                hint="take another copy of this backup, or an older backup",
                path=file.path,
            )
        return place


def make_folders(base: Path, name: str) -> Path:
    """The path of a file below a folder, with the folders between made for their owner alone."""
    place = base
    for part in PurePosixPath(name).parts[:-1]:
        place /= part
        make_private_dir(place)
    return base / name


def digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    size, hashed = 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            hashed.update(chunk)
    return size, hashed.hexdigest()


def read_passphrase(path: Path) -> bytes:
    """The first line of a private file, of at least 16 characters."""
    line = read_private(path).split(b"\n", 1)[0].strip()
    if len(line) < LEAST_PASSPHRASE:
        raise UsageError(
            "the passphrase in {path} has fewer than {least} characters",
            hint="`openssl rand -base64 24` makes one",
            path=str(path),
            least=LEAST_PASSPHRASE,
        )
    return line


def seal_keys(keys: Path, passphrase: bytes) -> bytes:
    """A folder of private keys, encrypted with a passphrase (scrypt, ChaCha20-Poly1305)."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = os.urandom(16), os.urandom(12)
    plain = {path.name: base64.b64encode(read_private(path)).decode() for path in sorted(keys.iterdir())}
    sealed = ChaCha20Poly1305(_derive(passphrase, salt)).encrypt(nonce, json.dumps(plain).encode(), _CONTEXT)
    return salt + nonce + sealed


def open_keys(data: bytes, passphrase: bytes) -> dict[str, bytes]:
    """The private keys by file name.

    Raises:
        BackupError: another passphrase, or changed bytes.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce, sealed = data[:16], data[16:28], data[28:]
    try:
        plain = json.loads(ChaCha20Poly1305(_derive(passphrase, salt)).decrypt(nonce, sealed, _CONTEXT))
    except (InvalidTag, ValueError):
        raise BackupError("the keys in the backup do not open with this passphrase") from None
    if any("/" in name or name.startswith(".") for name in plain):
        raise BackupError("the keys in the backup name a file outside their folder")
    return {name: base64.b64decode(text) for name, text in plain.items()}


def _derive(passphrase: bytes, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, **_COST).derive(passphrase)
