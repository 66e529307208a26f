"""The runtime: the named read-only tree that job code may import from, with a digest.

``keyong node runtime build`` copies the distributions that the extra ``jobs`` needs, and nothing of ours but the in-session
workers (as ``keyong_job``), from the environment this command runs in. Two machines with the same versions get the same
digest; a plan names it and every node checks it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import CodeType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import federation.jobs
from federation.crypto import canonical_json, digest
from federation.errors import UnavailableError, UsageError
from sandbox import Runtime

DEFAULT_NAME = "torch"
_MACHINE_FILES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
"""Differ from machine to machine and are read by no job."""


_LEFT_OUT = {"tests", "include"}
"""Folders below a package that no job needs: the packages' own tests, and C headers."""


_OWN_AFFAIRS = {Path("certifi/cacert.pem")}
"""Files that companies change on their machines (an authority of their own, added to those that TLS trusts): two runtimes of the
same versions would differ by them, and an addition would end a node's service. Jobs have no network to need them for."""


_OURS = Path(federation.jobs.__file__).resolve().parent


class RuntimeAbsentError(UnavailableError):
    """No runtime is built here."""

    code = "runtime-absent"


class RuntimeChangedError(UnavailableError):
    """The runtime's tree is not the one its digest was taken of."""

    code = "runtime-changed"


def runtimes_folder() -> Path:
    """Where runtimes are kept: with the installation, or where KEYONG_RUNTIMES says."""
    return Path(os.environ.get("KEYONG_RUNTIMES", str(Path(sys.prefix) / "share" / "keyong" / "runtimes")))


def load(name: str = DEFAULT_NAME) -> Runtime:
    """The runtime of that name; raises :class:`RuntimeAbsentError` where it is not built."""
    folder = runtimes_folder() / name
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        python = Path(manifest["python"])
        runtime = Runtime(path=folder, digest=manifest["digest"], python=python)
    except (OSError, ValueError, KeyError):
        raise RuntimeAbsentError(
            "there is no runtime {name} in {folder}",
            hint="build it: keyong node runtime build",
            name=name,
            folder=str(runtimes_folder()),
        ) from None
    return runtime


def check(name: str = DEFAULT_NAME) -> Runtime:
    """The runtime of that name, once no file of it was changed since it was built (size and time of change).

    A node says this before it serves: the digest in its receipts is the one taken when the tree was built.

    Raises:
        RuntimeChangedError: a file is gone, or is not as it was.
    """
    runtime = load(name)
    seen = json.loads((runtime.path / "manifest.json").read_text(encoding="utf-8")).get("seen", {})
    site = runtime.path / "site-packages"
    for relative, (size, changed) in seen.items():
        try:
            # The layers of an image, or an archive, keep the whole seconds of when a file was changed.
            same = _seen(site / relative) in ([size, changed], [size, changed // 10**9 * 10**9])
        except OSError:
            same = False
        if not same:
            raise RuntimeChangedError(
                "the runtime {name} was changed after it was built: {file}",
                hint="build it anew: keyong node runtime build; plans then name the new digest",
                name=name,
                file=relative,
            )
    return runtime


def _seen(path: Path) -> list[int]:
    status = path.lstat()
    return [status.st_size, status.st_mtime_ns]


def job_python() -> Path:
    """The interpreter for jobs: this one where everyone may read it, else the system's of the same version."""
    here = Path(sys.executable).resolve()
    for candidate in (here, Path("/usr/bin/python3")):
        if candidate.exists() and _readable_by_all(candidate.resolve()) and _version(candidate) == sys.version_info[:2]:
            return candidate.resolve() if candidate == here else candidate
    raise UnavailableError(
        "no Python {version} here can be read by a job's own user",
        hint="install one for all users, for example: apt-get install python3",
        code="runtime-python",
        version=f"{sys.version_info[0]}.{sys.version_info[1]}",
    )


def _version(python: Path) -> tuple[int, ...]:
    out = subprocess.run(
        [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tuple(int(part) for part in out.stdout.split()) if out.returncode == 0 else ()


def _readable_by_all(path: Path) -> bool:
    try:
        return all(parent.stat().st_mode & 0o005 == 0o005 for parent in [path, *path.parents])
    except OSError:
        return False


def distributions() -> list[metadata.Distribution]:
    """The distributions that jobs may import, with everything they need, sorted by name."""
    found: dict[str, metadata.Distribution] = {}
    todo = [
        requirement
        for text in metadata.requires("keyong") or ()
        if (requirement := Requirement(text)).marker is not None
        and requirement.marker.evaluate({"extra": "jobs"})
        and not requirement.marker.evaluate({"extra": ""})
    ]
    todo += [requirement for requirement in _optional() if _installed(requirement.name)]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found or name == "keyong":
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise UsageError(
                "{name} is not installed, and jobs need it", hint="pip install 'keyong[jobs]'", name=requirement.name
            ) from None
        found[name] = distribution
        for text in distribution.requires or ():
            child = Requirement(text)
            extras = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if child.marker is None or any(child.marker.evaluate(extra) for extra in extras):
                todo.append(child)
    return [found[name] for name in sorted(found)]


def _optional() -> list[Requirement]:
    """What jobs may import where it is installed: set intersection."""
    wanted = [Requirement(text) for text in metadata.requires("keyong") or ()]
    return [
        one
        for one in wanted
        if one.marker is not None and one.marker.evaluate({"extra": "psi"}) and not one.marker.evaluate({"extra": ""})
    ]


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def build(name: str = DEFAULT_NAME, *, progress: Callable[[int, int], None] = lambda done, total: None) -> Runtime:
    """Build the runtime anew; the old one of that name is replaced once the new one is whole."""
    python = job_python()
    target = runtimes_folder() / name
    partial = target.with_name(f".{name}.partial")
    if partial.exists():
        _unlock(partial)
        shutil.rmtree(partial)
    site = partial / "site-packages"
    site.mkdir(parents=True)
    files = list(_files())
    listing: dict[str, str] = {}
    for number, (source, relative) in enumerate(files):
        destination = site / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        _place(source, destination)
        with destination.open("rb") as file:
            listing[str(relative)] = hashlib.file_digest(file, "sha256").hexdigest()
        if relative.suffix == ".py":
            _compile(source, destination, relative)
        if number % 200 == 0:
            progress(number, len(files))
    value = digest(
        canonical_json({"python": platform.python_version_tuple()[:2], "files": listing, "machine": platform.machine()})
    )
    versions = {distribution.metadata["Name"]: distribution.version for distribution in distributions()}
    manifest = {
        "name": name,
        "digest": value,
        "python": str(python),
        "packages": versions,
        "files": len(files),
        "seen": {relative: _seen(site / relative) for relative in listing},
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    _lock(partial)
    if target.exists():
        _unlock(target)
        shutil.rmtree(target)
    partial.rename(target)
    progress(len(files), len(files))
    return load(name)


def _files() -> Iterator[tuple[Path, Path]]:
    for distribution in distributions():
        for file in distribution.files or ():
            relative = Path(str(file))
            if relative.is_absolute() or ".." in relative.parts or "__pycache__" in relative.parts:
                continue
            if relative.name in _MACHINE_FILES and relative.parent.name.endswith(".dist-info"):
                continue
            if _LEFT_OUT & set(relative.parts[1:]) or relative in _OWN_AFFAIRS:
                continue
            source = Path(str(distribution.locate_file(file)))
            if source.is_file():
                yield source, relative
    for source in sorted(_OURS.rglob("*.py")):
        yield source, Path("keyong_job") / source.relative_to(_OURS)


def _place(source: Path, destination: Path) -> None:
    # A link instead of a gigabyte of copies where the file system allows it: installers replace files, never rewrite them.
    # Our own sources are edited in place, so they are copied.
    try:
        if source.is_relative_to(_OURS):
            raise OSError
        os.link(source, destination, follow_symlinks=True)
    except OSError:
        shutil.copyfile(source, destination)


def _compile(source: Path, destination: Path, relative: Path) -> None:
    """Put byte code beside a module, so that a job's imports are fast; it names the module by its place in the session.

    The interpreter's own cache is used where it is fresh, since compiling anew takes minutes; the file names in it are
    replaced, for a path of this machine could tell a job whose machine it is on.
    """
    place = f"/runtime/site-packages/{relative}"
    text = destination.read_bytes()
    cached = Path(importlib.util.cache_from_source(str(source)))
    try:
        data = cached.read_bytes()
        fresh = data[:4] == importlib.util.MAGIC_NUMBER and data[8:12] == (
            int(source.stat().st_mtime) & 0xFFFFFFFF
        ).to_bytes(4, "little")
        code = _renamed(marshal.loads(data[16:]), place) if fresh else compile(text, place, "exec", dont_inherit=True)  # noqa: S302
    except (OSError, ValueError, EOFError, TypeError):
        try:
            code = compile(text, place, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return  # a template or a file for another Python: never imported
    except SyntaxError:
        return
    target = Path(importlib.util.cache_from_source(str(destination)))
    target.parent.mkdir(exist_ok=True)
    # PEP 552: byte code pinned to the source's hash, and not checked at import, for the tree is read-only
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(text)
    target.write_bytes(header + marshal.dumps(code))


def _renamed(code: CodeType, place: str) -> CodeType:
    constants = tuple(_renamed(item, place) if isinstance(item, CodeType) else item for item in code.co_consts)
    return code.replace(co_filename=place, co_consts=constants)


def _lock(folder: Path) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o755)


def _unlock(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
