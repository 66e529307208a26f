"""Packages that only some commands need: named, with how to get them, where they are missing."""

from __future__ import annotations

from importlib.util import find_spec

from federation.errors import UnavailableError


def demand_packages(*names: str) -> None:
    """Raise where one of the packages that pages are made with is not installed."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise UnavailableError(
            "the pages need packages that are not installed: {names}",
            hint="pip install 'keyong[pages]'",
            code="not-installed",
            names=", ".join(missing),
        )
