"""Files that hold secrets: written atomically for one owner, and not read when others could have.

A key that a second user could read is not a secret any more, and one that a second user could write is not ours; both
are refused with the command that repairs the file, instead of being used with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from federation.errors import UnavailableError, UsageError

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_OTHERS = 0o077
_READ_LIMIT = 1 << 20


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Make ``path`` hold exactly ``data`` with mode 0600, durably: a crash leaves the old state or the new.

    Args:
        path: where; its directory must exist.
        data: the whole content.
        replace: allow an existing file to be replaced. Without it a key can never be lost to a second run.

    Raises:
        UsageError: the file exists and ``replace`` is false, or the directory is missing.
        UnavailableError: the file system does not do it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _new_file(temporary) as descriptor:
            with open(descriptor, "wb", closefd=False) as file:
                os.fchmod(descriptor, _FILE_MODE)  # whatever the umask took away from the owner
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if replace:
                temporary.replace(path)
            else:
                # A hard link fails when the name is taken; rename would overwrite, and a check before it would race.
                path.hardlink_to(temporary)
        _sync_directory(path.parent)
    except FileExistsError:
        raise UsageError("{path} exists already and is left as it is", path=path) from None
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError("the directory {path} does not exist", path=path.parent) from None
    except OSError as error:
        raise UnavailableError("cannot write {path}: {reason}", path=path, reason=_reason(error)) from None


def read_private(path: Path) -> bytes:
    """The bytes of a regular file that this user owns and nobody else can read or write.

    Ownership and mode are judged on the open file, so the file cannot be swapped between check and read.

    Raises:
        UsageError: absent, a symbolic link, not a regular file, someone else's, open to group or others, over 1 MiB.
        UnavailableError: the file system does not give it.
    """
    path = Path(path)
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _open_error(path, error) from None
    try:
        _check_file(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_READ_LIMIT + 1)
    except OSError as error:
        raise _open_error(path, error) from None
    finally:
        os.close(descriptor)
    if len(data) > _READ_LIMIT:
        raise UsageError("{path} is larger than a private file can be", path=path)
    return data


def remove_unfinished(folder: Path) -> int:
    """Remove what :func:`write_private` left in ``folder`` when it was killed: copies of secrets; returns how many.

    A file whose writer lives is locked by it, and stays.
    """
    removed = 0
    for path in folder.glob(".*.tmp"):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # its writer was quicker
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed += 1
        except OSError:
            continue
        finally:
            os.close(descriptor)
    return removed


def make_private_dir(path: Path) -> None:
    """Make sure ``path`` is a directory of this user that nobody else can enter; create it and its parents if absent.

    An existing directory is checked, never changed: its owner decides who may enter.

    Raises:
        UsageError: a symbolic link, not a directory, someone else's, or open to group or others.
        UnavailableError: the file system does not do it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_DIRECTORY_MODE)
        status = path.lstat()
    except (FileExistsError, NotADirectoryError):
        raise UsageError("{path} is not a directory", path=path.parent) from None
    except OSError as error:
        raise UnavailableError("cannot create {path}: {reason}", path=path, reason=_reason(error)) from None
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError("{path} is not a directory", path=path)
    _check_owner(path, status)
    if status.st_mode & _OTHERS:
        raise UsageError("{path} is open to other users", hint="chmod 700 {path}", code="permissions", path=path)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A new, empty file that is gone from under its name at the end, and locked until then: a lock shows that its
    writer lives."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink == 0:  # taken for a dead writer's, between its making and its lock
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        yield descriptor
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UsageError("{path} is not a regular file", path=path)
    _check_owner(path, status)
    if status.st_mode & _OTHERS:
        raise UsageError(
            "{path} can be read or written by other users", hint="chmod 600 {path}", code="permissions", path=path
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise UsageError(
            "{path} belongs to another user",
            hint="run as its owner, or chown it to the user who runs this",
            code="permissions",
            path=path,
        )


def _open_error(path: Path, error: OSError) -> UsageError | UnavailableError:
    if error.errno == errno.ELOOP:
        return UsageError("{path} is a symbolic link; a private file must be the file itself", path=path)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return UsageError("{path} does not exist", path=path)
    return UnavailableError("cannot read {path}: {reason}", path=path, reason=_reason(error))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
