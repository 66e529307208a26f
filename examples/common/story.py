"""A training over several companies, each a home, commands and a serving node of its own, as it would be between real ones."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyong.demo.consortium import agree, begin, two_at_a_time
from keyong.demo.leash import leash
from keyong.demo.parties import Party

COORDINATOR = "institute"


@dataclass(frozen=True)
class Participant:
    """A company with data: its member id, its legal entity, and the table that its node registers."""

    name: str
    entity: str
    table: Path


@dataclass(frozen=True)
class Training:
    """What came of it.

    Attributes:
        result: the job's result, as `keyong job result` wrote it: `output/` holds the server part's own files.
        seconds: of the command `keyong job run`.
        fingerprint: of the consortium's root.
        protection: of each company's contribution, as the job's plan has it.
    """

    result: Path
    seconds: float
    fingerprint: str
    protection: str


def federate(
    folder: Path,
    name: str,
    participants: Sequence[Participant],
    *,
    dataset: tuple[str, str, str],
    title: str,
    purpose: str,
    app: Path,
    config: Sequence[str] = (),
) -> Training:
    """Found a consortium, let everybody join, register, serve and agree, and run the app once over all; masked.

    Args:
        folder: where all homes are kept; must be there and empty of them.
        name: the consortium's.
        dataset: id, title and Chinese title under which each registers its table.
        title: the agreements'.
        purpose: what they permit.
        app: the Flower app.
        config: its settings, ``NAME=VALUE``.

    Raises:
        DemoError: a command did not do what it should.
    """
    institute = Party(folder, COORDINATOR)
    companies = [Party(folder, one.name) for one in participants]
    identity, heading, heading_zh = dataset
    with leash(), ExitStack() as stack:
        fingerprint = begin(stack, institute, companies, name, {one.name: one.entity for one in participants})
        tables = {one.name: str(one.table) for one in participants}
        described = ("--title", heading, "--title-zh", heading_zh)
        two_at_a_time(companies, lambda one: one.run("node", "dataset", "add", identity, tables[one.name], *described))
        nodes = [stack.enter_context(company.serve("node", "serve", logs=folder / "logs")) for company in companies]
        for node in nodes:
            node.wait_for("attached")
        two_at_a_time(companies, lambda one: one.run("peers", "accept", "--all"))
        agree(institute, companies, dataset=identity, title=title, purpose=purpose, app=app, count=1, expires="7d")
        arguments = [part for pair in config for part in ("--config", pair)]
        start = time.monotonic()
        institute.show("job", "run", str(app), "--purpose", purpose, "--yes", *arguments)
        seconds = time.monotonic() - start
        newest = institute.run("job", "list")[0]
        institute.run("job", "result", newest["job"], "-o", str(folder / "result"))
    return Training(folder / "result", seconds, fingerprint, str(newest["protection"]))


def verify(folder: Path, participants: Sequence[Participant], fingerprint: str) -> None:
    """Verify every party's ledger, on this terminal.

    Raises:
        DemoError: one does not hold.
    """
    for name in (COORDINATOR, *(one.name for one in participants)):
        party = Party(folder, name)
        print(f"$ keyong verify {party.home} --root {fingerprint[:20]}…", flush=True)
        party.show("verify", str(party.home), "--root", fingerprint)


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON."""
    path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
