"""Asking the process that serves this home, and showing what it says."""

from __future__ import annotations

import json
from typing import Any, Literal

import typer

from keyong.cli._context import open_home
from keyong.cli._output import as_json, emit, table
from keyong.text import mark, translate, translate_data

UNAVAILABLE = 5
CHECKS = {
    "ledger": mark("the ledger can be written"),
    "link": mark("the coordinator is connected"),
    "serving": mark("work is taken (not ending)"),
    "listening": mark("members can connect"),
    "disk": mark("the disk has room for jobs"),
}


def fetch(role: Literal["node", "coordinator"], page: str) -> dict[str, Any]:
    """A page of the process that serves this home.

    Raises:
        NotServingError: there is none.
    """
    from federation.observability import ask

    found: dict[str, Any] = json.loads(ask(open_home().path, role, page)[1])
    return found


def show_health(role: Literal["node", "coordinator"], *, ready: bool) -> None:
    """Print what was looked at; ends with exit code 5 where it does not hold."""
    health = fetch(role, "/health")
    good = health["ready"] if ready else health["sound"]
    if as_json():
        emit({"ok": good, **health})
    else:
        show_checks(health["checks"])
    if not good:
        raise typer.Exit(UNAVAILABLE)


def show_checks(checks: list[dict[str, Any]]) -> None:
    """One line a check."""
    table(
        ("what", "state", "details"),
        (
            (
                translate_data(CHECKS.get(check["name"], check["name"])),
                translate("ok") if check["ok"] else translate("NO"),
                check["detail"] or check["since"],
            )
            for check in checks
        ),
    )


def mebibytes(size: int) -> str:
    """A size for a person."""
    return f"{size / 2**20:,.0f} MiB"
