"""The owner's password for a database: a reference is kept, the password is read when it is needed and goes nowhere else.

A session never gets it: it lies outside every mount, and no process of a job inherits our environment.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from enterprise_node.sources.errors import SourceCredentialsError
from federation.errors import UsageError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_MAX_BYTES: Final = 4096


def credential_reference(file: str | None, variable: str | None) -> str:
    """What the store keeps for ``--password-file`` or ``--password-env``; empty where neither is given.

    Raises:
        UsageError: both are given, or the variable's name is none.
    """
    if file and variable:
        raise UsageError("the password lies either in a file or in the environment, not in both")
    if variable:
        if _VARIABLE.fullmatch(variable) is None:
            raise UsageError("{name} is not the name of an environment variable", name=variable[:40])
        return f"env:{variable}"
    return f"file:{Path(file).expanduser().absolute()}" if file else ""


def read_credential(reference: str) -> str:
    """The password that a reference names; empty for an empty reference.

    Raises:
        SourceCredentialsError: it is not there, or others than its owner may read the file.
    """
    kind, _, where = reference.partition(":")
    if kind == "env":
        password = os.environ.get(where, "")
        if not password:
            raise SourceCredentialsError(
                "the environment variable {name}, which holds the source's password, is not set",
                hint="set it for every command and service that reads the dataset, or use --password-file",
                name=where,
            )
        return password
    return _from_file(Path(where)) if kind == "file" else ""


def _from_file(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            data = file.read(_MAX_BYTES + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise SourceCredentialsError(
            "the password file {path} cannot be read: {reason}",
            hint="write the password into it and nothing else, then chmod 600",
            path=path,
            reason=error.strerror or type(error).__name__,
        ) from None
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise SourceCredentialsError(
            "the password file {path} is not for its owner alone",
            hint="chown it to the account that runs the node, and chmod 600",
            path=path,
        )
    try:
        password = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        password = ""
    if not password or len(data) > _MAX_BYTES or "\0" in password:
        raise SourceCredentialsError("the password file {path} holds no password", path=path)
    return password
