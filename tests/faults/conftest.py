"""A consortium of forked processes, one for each file of tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import consortium as consortia
from tests.faults import forked, injection
from tests.faults.consortium import ForkedConsortium

SMALL = "size=24m,mode=700"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own on a folder, small enough to be filled; without the right to mount, a plain folder."""
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def faulty(isolating: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedConsortium]:
    """A consortium whose disks can be made to fail."""
    if not forked.begin():
        pytest.skip(injection.NO_COMPILER)
    folder = tmp_path_factory.mktemp("faulty")
    with small_disk(folder / "mill-a"), consortia.running(folder, ("mill-a",)) as one:
        yield one
