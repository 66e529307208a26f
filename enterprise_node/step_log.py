"""What happened in each step, for the data's owner alone: exact codes, reasons, counts. Never part of any answer.

One file of JSON lines a job, beside what the job printed (``logs/JOB/``): ``keyong job logs`` shows it. Bounded, kept for
:data:`KEPT`, and gone with ``keyong job logs --erase``. An attacker who can modify it can mislead the owner about why a step
ended, not about whether it did: that is in the ledger.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from enterprise_node.receipts import Done
from federation.errors import KeyongError
from federation.home import Home, now
from federation.statements import Invocation, instant_text

log = structlog.get_logger("keyong.node")

KEPT = timedelta(days=30)
"""How long a job's logs stay after its last step."""
LARGEST_BYTES = 2**20
"""Of one job's file; beyond it the steps are no longer noted."""
FILE = "steps.jsonl"


class StepLog:
    """The owner's account of steps; every method blocks on the disk shortly, and no error of the disk leaves here."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def passed(self, job: str, step: Invocation, done: Done) -> None:
        """Note a step that passed the gate, where the gate had to change or the encoding to cut anything."""
        if done.normalised or done.saturated:
            self._note(job, step, "ok", "", "", normalised=done.normalised, saturated=done.saturated)

    def ended(self, job: str, step: Invocation, outcome: str, code: str, reason: str) -> None:
        """Note how a step ended otherwise, with the exact code and the reason in words."""
        self._note(job, step, outcome, code, reason)

    def sweep(self, at: datetime | None = None) -> int:
        """Remove the logs whose time is over; returns how many jobs' they were."""
        oldest = ((at or now()) - KEPT).timestamp()
        removed = 0
        for folder in logs_of(self._home):
            if max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime) < oldest:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    def _note(self, job: str, step: Invocation, outcome: str, code: str, reason: str, **counts: int) -> None:
        entry = {
            "time": instant_text(datetime.now(UTC)),
            "round": step.round,
            "attempt": step.attempt,
            "stage": step.stage,
            "outcome": outcome,
            "code": code,
            "reason": reason[:2000],
            **counts,
        }
        try:
            path = self._home.folder("logs", job.removeprefix("urn:uuid:")) / FILE
            if path.exists() and path.stat().st_size > LARGEST_BYTES:
                return
            with path.open("a", encoding="utf-8") as file:
                path.chmod(0o600)
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        except (OSError, KeyongError) as error:
            log.warning("step-not-noted", job=job, error=type(error).__name__)


def logs_of(home: Home) -> list[Path]:
    """The folders of jobs that left logs here."""
    folder = home.path / "logs"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """The noted steps of one job, in order; a line that a crash cut short is left out."""
    steps = []
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            steps.append(entry)
    return steps
