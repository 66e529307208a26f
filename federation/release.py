"""Which release of this software runs: the one place that says so to links, stores, backups and people."""

from __future__ import annotations

from functools import cache


@cache
def release() -> str:
    """The release as installed, such as ``0.2.0``; ``0+source`` where the packages were never installed."""
    from importlib.metadata import PackageNotFoundError, version  # not needed for what starts fast

    try:
        return version("keyong")
    except PackageNotFoundError:
        return "0+source"


def software() -> str:
    """How this software names itself to the other end of a link."""
    return f"keyong/{release()}"
