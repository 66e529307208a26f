"""Following a job from its first event to its end: narration, a progress bar, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keyong.cli._output import as_json, console, emit_line, narrate, print_error
from keyong.cli._plans import warn_development
from keyong.cli._refusals import explain_refusal
from keyong.cli._words import STAGES, why, word
from keyong.text import speaking, translate

if TYPE_CHECKING:
    from federation.wire.messages import Event
    from keyong.client import Client

ENDS = ("done", "failed", "denied", "cancelled", "interrupted")
DENIED, UNAVAILABLE, INTERNAL = 3, 5, 1


@dataclass
class Course:
    """How a job went."""

    status: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    refusals: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    """Metrics of the newest exchange."""
    stage: str = ""
    """What the newest exchange was for."""
    rounds_done: int = 0
    development: bool = False
    """Nodes may run it without isolation (T0), on made-up data."""

    @property
    def exit_code(self) -> int:
        """0 done, 3 denied, 5 unavailable, else what the failure says."""
        if self.status == "done":
            return 0
        if self.status == "denied":
            return DENIED
        otherwise = UNAVAILABLE if self.status in ("cancelled", "interrupted") else INTERNAL
        given = self.data.get("exit", otherwise)
        return given if given in (1, 2, 3, 4, 5) else otherwise


def follow(client: Client, job: str, rounds: int, after: int = 0) -> Course:
    """Follow a job to its end, from its events after a number on."""
    course = Course()
    with _progress(rounds) as advance:
        for event in client.events(job, after):
            if as_json():
                emit_line({"event": event.kind, "job": job, "time": event.time, "data": event.data})
            _take(course, event)
            if event.kind == "round":
                advance(course)
    return course


def _take(course: Course, event: Event) -> None:
    data = event.data
    course.development = course.development or data.get("development") is True
    if event.kind == "denied" and "node" in data:
        course.refusals.append(data)
    elif event.kind in ENDS:
        course.status, course.data = event.kind, data
    elif event.kind == "round":
        course.rounds_done = int(data.get("round", 0))
        course.last = data.get("metrics") or {}
        course.stage = str(data.get("stage", ""))
        course.metrics[course.stage] = course.last
    elif event.kind == "node-unavailable":
        narrate("{node} cannot be reached ({code})", node=data.get("node"), code=data.get("code"))
        course.refusals.append(data)
    elif event.kind == "started":
        narrate("started with {count} participants", count=data.get("participants"))
    elif event.kind == "queued":
        narrate("waits: place {place} of {count}", place=data.get("place"), count=data.get("of"))
    elif event.kind == "returned":
        narrate(
            "{node} is back, and takes part from exchange {round} on", node=data.get("node"), round=data.get("round")
        )
    elif event.kind == "resumed":
        course.refusals.clear()  # of before it was interrupted
        narrate("goes on at exchange {exchange}", exchange=data.get("exchange"))
    elif event.kind == "not-resumable":
        narrate("the job has become too large to be recorded: it goes on, but could not be resumed")
    elif event.kind == "fell-out":
        message, hint = explain_refusal(str(data.get("code", "")), None)
        narrate(
            "{node} fell out in exchange {round} ({code}): {message}",
            node=data.get("node"),
            round=data.get("round"),
            code=data.get("code"),
            message=message or "-",
        )
        if hint:
            narrate("hint: {hint}", hint=hint)


def show_metrics(metrics: dict[str, Any]) -> str:
    """Metrics on one line."""
    return "  ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in sorted(metrics.items())
    )


@contextmanager
def _progress(rounds: int) -> Iterator[Any]:
    if as_json():
        yield lambda course: None
    elif sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
        )
        with Progress(*columns, console=console(stderr=True)) as progress:
            task = progress.add_task(translate("rounds"), total=rounds, last="")
            yield lambda course: progress.update(task, completed=course.rounds_done, last=_last(course))
    else:
        yield lambda course: narrate(
            "round {done} of {rounds}, {stage}  {last}",
            done=course.rounds_done,
            rounds=rounds,
            stage=word(STAGES, course.stage),
            last=show_metrics(course.last),
        )


def _last(course: Course) -> str:
    return "  ".join(show_metrics(metrics) for metrics in course.metrics.values() if metrics)


def conclude(course: Course, job: str, plan_protection: str) -> int:
    """Print how the job ended; returns the exit code."""
    bare = job.removeprefix("urn:uuid:")
    if as_json():
        emit_line(
            {
                "event": "end",
                "job": job,
                "status": course.status,
                "exit": course.exit_code,
                "unprotected": plan_protection == "fed:none",
                "development": course.development,
                "rounds_done": course.rounds_done,
                "metrics": course.metrics,
                "refusals": [
                    {"node": one.get("node"), "code": one.get("code"), "clause": one.get("clause") or {}}
                    for one in course.refusals
                ],
            }
        )
    if course.status == "done":
        warn_development(course.development)
        if plan_protection == "fed:none":
            narrate("done, UNPROTECTED; fetch the result: keyong job result {job} -o DIR", job=bare[:8])
        else:
            narrate("done; fetch the result: keyong job result {job} -o DIR", job=bare[:8])
        return 0
    _explain_end(course, bare)
    return course.exit_code


def _explain_end(course: Course, job: str) -> None:
    for one in course.refusals:
        _print_refusal(str(one.get("node", "")), str(one.get("code", "")), one.get("clause"), course.exit_code)
    if course.status == "denied" and course.refusals:
        return
    code = str(course.data.get("code", ""))
    with speaking("en"):
        english = why(course.data)
    reason, hint = why(course.data)
    if course.status == "cancelled":
        message = translate("the job was cancelled")
        print_error(course.status, message, "", course.exit_code, english=("the job was cancelled", ""))
        return
    if course.status == "interrupted" and "exchange" in course.data:
        _explain_interruption(course, job, english)
        return
    message = translate("the job failed ({code}): {reason}", code=code, reason=reason)
    print_error(code, message, hint, course.exit_code, english=(f"the job failed ({code}): {english[0]}", english[1]))


def _explain_interruption(course: Course, job: str, english: tuple[str, str]) -> None:
    reason, hint = why(course.data)
    number, count, bare = course.data.get("exchange"), course.data.get("exchanges"), job[:8]
    where = {"number": number, "count": count}
    sentence = "the job was interrupted at exchange {number} of about {count}: {reason}"
    message = translate(
        "the job was interrupted at exchange {number} of about {count}: {reason}", reason=reason, **where
    )
    way = english[1] or f"go on with: keyong job resume {bare}"
    shown = hint or translate("go on with: keyong job resume {job}", job=bare)
    print_error(
        course.status, message, shown, course.exit_code, english=(sentence.format(reason=english[0], **where), way)
    )


def _print_refusal(node: str, code: str, clause: Any, exit_code: int) -> None:
    with speaking("en"):
        english = explain_refusal(code, clause)
    message, hint = explain_refusal(code, clause)
    print_error(
        code,
        translate("{node} refused ({code}): {message}", node=node, code=code, message=message or "-"),
        hint,
        exit_code,
        english=(f"{node} refused ({code}): {english[0] or '-'}", english[1]),
    )
