"""Folders of read-only files, as sessions are given them."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder of read-only files and folders."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
