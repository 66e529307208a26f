"""Code bundles: an app's folder as one deterministic byte string with one digest.

Form: ``u32be header length | header | file bytes one after another``; the header is the canonical JSON list of
``{path, sha256, size}`` sorted by path. The digest of the header is the code digest: it pins every name and every byte.
No link, no device, no permission bit travels; nothing of it runs when it is packed or unpacked.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from federation.crypto import canonical_json, digest, parse_json, sha256_hex
from federation.errors import UsageError, VerificationError

MAXIMAL_FILES = 2000
MAXIMAL_BYTES = 32 * 1024 * 1024
_HEADER_BYTES = 1024 * 1024
BUNDLE_BYTES = MAXIMAL_BYTES + _HEADER_BYTES
"""Longest bundle: its files and the list of them."""
_LEFT_OUT = {
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
}
_LEFT_OUT_ENDINGS = (".pyc", ".pyo", ".egg-info")
_COMPILED = (".pyc", ".pyo", ".so", ".pyd")
"""Endings of what Python imports in place of a source file beside it."""


class BundleError(VerificationError):
    """A bundle is not one, or holds something that code may not."""

    code = "bundle"


class AppFolderError(UsageError):
    """The folder cannot be bundled as an app."""

    code = "app"


@dataclass(frozen=True)
class CodeBundle:
    """An app's files; ``files`` maps POSIX paths to bytes."""

    files: dict[str, bytes]

    @property
    def header(self) -> bytes:
        """Canonical JSON of names, sizes and digests."""
        listing = [
            {"path": path, "sha256": sha256_hex(data), "size": len(data)} for path, data in sorted(self.files.items())
        ]
        return canonical_json(listing)

    @property
    def digest(self) -> str:
        """The code digest that plans and agreements name."""
        return digest(self.header)

    def to_bytes(self) -> bytes:
        """The bundle as it travels."""
        header = self.header
        return b"".join([len(header).to_bytes(4, "big"), header, *(self.files[path] for path in sorted(self.files))])

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> CodeBundle:
        """Read a bundle strictly; anything that does not add up raises :class:`BundleError`."""
        view = memoryview(data)
        length = int.from_bytes(view[:4], "big")
        if len(view) < 4 or length > _HEADER_BYTES or len(view) > BUNDLE_BYTES or 4 + length > len(view):
            raise BundleError("a code bundle is cut short or too large")
        header = bytes(view[4 : 4 + length])
        listing: Any = parse_json(header, limit=_HEADER_BYTES)
        if not isinstance(listing, list) or len(listing) > MAXIMAL_FILES:
            raise BundleError("a code bundle's list of files is malformed")
        files: dict[str, bytes] = {}
        at = 4 + length
        for item in listing:
            if not isinstance(item, dict) or set(item) != {"path", "sha256", "size"}:
                raise BundleError("a code bundle's list of files is malformed")
            path, size = item["path"], item["size"]
            if (
                not isinstance(path, str)
                or not isinstance(size, int)
                or isinstance(size, bool)
                or not 0 <= size <= MAXIMAL_BYTES
            ):
                raise BundleError("a code bundle's list of files is malformed")
            _check_path(path)
            if _compiled(path):
                raise BundleError(
                    "a code bundle holds compiled code, which can run in place of the source that owners are shown: {path}",
                    path=path,
                )
            body = bytes(view[at : at + size])
            if len(body) != size or sha256_hex(body) != item["sha256"] or path in files:
                raise BundleError("a file of a code bundle does not match its digest")
            files[path] = body
            at += size
        if any(parent.as_posix() in files for path in files for parent in PurePosixPath(path).parents):
            raise BundleError("a code bundle names one path as a file and as a folder")
        bundle = cls(files)
        if at != len(view) or bundle.header != header:
            raise BundleError("a code bundle has trailing bytes or an unsorted list")
        return bundle

    def write(self, folder: Path) -> None:
        """Lay the files below an empty folder, readable by all, writable by none."""
        for path, data in self.files.items():
            target = folder.joinpath(*PurePosixPath(path).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(0o444)
        for parent, _, _ in os.walk(folder):
            Path(parent).chmod(0o755)


def bundle_folder(folder: Path) -> CodeBundle:
    """Bundle an app's folder; caches, version control and environments are left out.

    Raises:
        AppFolderError: not a folder, no ``pyproject.toml``, a link or device in it, or too large.
    """
    if not folder.is_dir():
        raise AppFolderError(
            "{path} is not a folder", hint="give the app's folder, the one that holds pyproject.toml", path=str(folder)
        )
    if not (folder / "pyproject.toml").is_file():
        raise AppFolderError(
            "{path} holds no pyproject.toml",
            hint="a Flower app declares its parts there ([tool.flwr.app.components])",
            path=str(folder),
        )
    files: dict[str, bytes] = {}
    total = 0
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.endswith(_LEFT_OUT_ENDINGS))
        for name in [*folders, *sorted(names)]:
            path = Path(parent) / name
            mode = path.lstat().st_mode
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISDIR(mode):
                continue
            if name.endswith(_LEFT_OUT_ENDINGS):
                continue
            if not stat.S_ISREG(mode):
                raise AppFolderError(
                    "{path} is a link or a device; an app is made of plain files",
                    hint="copy what it points to",
                    path=relative,
                )
            _check_name(relative)
            if _compiled(relative):
                raise AppFolderError(
                    "{path} is compiled code, which nobody can read before he approves it",
                    hint="an app is made of source files; compiled modules belong into the runtime",
                    path=relative,
                )
            total += path.stat().st_size
            if total > MAXIMAL_BYTES or len(files) >= MAXIMAL_FILES:
                raise AppFolderError(
                    "the app is larger than {files} files or {size} MiB",
                    hint="keep data and environments out of the app's folder",
                    files=MAXIMAL_FILES,
                    size=MAXIMAL_BYTES // 2**20,
                )
            try:
                files[relative] = path.read_bytes()
            except OSError as error:
                raise AppFolderError(
                    "{path} cannot be read: {reason}", path=relative, reason=error.strerror or ""
                ) from None
    bundle = CodeBundle(files)
    if len(bundle.header) > _HEADER_BYTES:
        raise AppFolderError(
            "the names of the app's files take more than {size} KiB",
            hint="keep data and environments out of the app's folder",
            size=_HEADER_BYTES // 2**10,
        )
    return bundle


def _refuse(error: OSError) -> None:
    """A folder that cannot be looked into would be left out in silence."""
    raise AppFolderError("{path} cannot be read: {reason}", path=error.filename, reason=error.strerror or "") from None


def _check_name(relative: str) -> None:
    try:
        relative.encode()
        _check_path(relative)
    except (UnicodeEncodeError, BundleError):
        raise AppFolderError(
            "an app cannot carry the file name {path}",
            hint="rename it: UTF-8, no backslash, no control character, at most 255 bytes a part and 400 characters in all",
            path=relative.encode("utf-8", "backslashreplace").decode()[:200],
        ) from None


def _check_path(path: str) -> None:
    parts = path.split("/")
    if (
        not path
        or len(path) > 400
        or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts)
        or any(ord(char) < 32 or char == "\\" for char in path)
    ):
        raise BundleError("a code bundle names a file outside itself")


def _compiled(path: str) -> bool:
    """Whether Python could import this file in place of a source file beside it."""
    return "__pycache__" in path.split("/") or path.lower().endswith(_COMPILED)
