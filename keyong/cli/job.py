"""``keyong job``: checking, running and following jobs, fetching results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyong.cli import job_check, job_result, job_run
from keyong.cli._commands import Commands
from keyong.cli._jobs import JobArgument, bare, find_job
from keyong.cli._output import as_json, clean, emit, facts, line, narrate, table
from keyong.cli._words import DETAILS, EVENTS, STAGES, protection, why, word
from keyong.text import STATUSES, translate

if TYPE_CHECKING:
    from federation.wire.messages import Event, JobSummary

app = Commands("Check, run and follow jobs, and fetch their results.")
app.command("check")(job_check.check)
app.command("run")(job_run.run)
app.command("result")(job_result.result)


@app.command("list")
def list_() -> None:
    """List the jobs that we asked for or take part in, newest first.

    $ keyong job list
    """
    from keyong.cli._context import open_client

    with open_client() as client:
        jobs = client.jobs()
    if as_json():
        emit([one.model_dump(mode="json") for one in jobs])
        return
    table(
        ("job", "status", "rounds", "requester", "purpose", "participants", "protection", "submitted at"),
        (
            (bare(one.job)[:8], _standing(one), f"{one.rounds_done}/{one.rounds}", one.requester, one.purpose,
             one.participants, protection(one.protection), one.submitted)
            for one in jobs
        ),
    )  # fmt: skip


_STEP_COLUMNS = ("time", "round", "stage", "outcome", "code", "normalised", "saturated")


def _step_cell(name: str, value: object) -> object:
    """A step's stage and outcome in words, the rest as it is."""
    from keyong.pages.words import outcome

    if name == "stage":
        return word(STAGES, value)
    return outcome(str(value)) if name == "outcome" else value


def _standing(job: JobSummary) -> str:
    """A job's status, and its place in the queue or where it can be gone on with."""
    status = word(STATUSES, job.status)
    if job.place:
        return translate("{status} (place {place} of {count})", status=status, place=job.place, count=job.waiting)
    if job.exchange:
        return translate(
            "{status} (resumable at exchange {exchange} of ~{count})",
            status=status,
            exchange=job.exchange,
            count=job.exchanges,
        )
    return status


@app.command()
def show(job: JobArgument) -> None:
    """Show a job: how it stands, what it rests on, and what happened so far.

    $ keyong job show 7c1f
    """
    from federation.errors import DeniedError
    from federation.wire import messages as m
    from keyong.cli._context import open_client

    with open_client() as client:
        found = find_job(client, job)
        events: tuple[Event, ...] = ()
        try:
            answer = client.call("job.events", m.EventsSince(job=found.job, after=0, wait=0))
            events = m.Events.from_bytes(answer.header).events
        except DeniedError as error:
            if error.code != "not-yours":
                raise
    if as_json():
        emit({**found.model_dump(mode="json"), "events": [event.model_dump(mode="json") for event in events]})
        return
    facts(
        (
            ("job", found.job),
            ("status", _standing(found)),
            ("rounds", f"{found.rounds_done}/{found.rounds}"),
            ("requester", found.requester),
            ("purpose", found.purpose),
            ("participants", found.participants),
            ("protection", protection(found.protection)),
            ("plan", found.plan),
            ("submitted at", found.submitted),
        )
    )
    if found.exchange:
        narrate("its use of each agreement stays reserved at the nodes, whether it is resumed or cancelled")
        narrate("go on with: keyong job resume {job}", job=bare(found.job)[:8])
    if events:
        line()
        table(
            ("time", "event", "details"), ((event.time, word(EVENTS, event.kind), _details(event)) for event in events)
        )


def _details(event: Event) -> str:
    from keyong.cli._following import show_metrics
    from keyong.cli._refusals import explain_refusal

    data = dict(event.data)
    if event.kind == "round":
        return f"{word(STAGES, data.get('stage'))} {data.get('round')}  {show_metrics(data.get('metrics') or {})}"
    if event.kind == "denied" and "node" in data:
        return f"{data['node']}: {data.get('code')}  {explain_refusal(str(data.get('code')), data.get('clause'))[0]}"
    data["reason"], data["hint"] = why(data)
    data.pop("said", None)
    return "  ".join(f"{word(DETAILS, key)}={value}" for key, value in data.items() if value not in ("", None, {}))


@app.command()
def watch(job: JobArgument) -> None:
    """Follow a job of ours to its end; the exit code is that of `job run`.

    $ keyong job watch 7c1f
    """
    from keyong.cli._context import open_client

    with open_client() as client:
        found = find_job(client, job)
        job_run.follow_and_record(client, found.job, found.rounds, found.protection, digest=found.plan)


@app.command()
def resume(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Follow it to its end, as `job run` does.")] = False,
) -> None:
    """Go on with an interrupted job of ours: under its own plan, from the exchange where it stopped.

    The coordinator runs the app's server part again from its start and gives it what it was answered before; the nodes
    are asked only for what is missing. An app whose start is left to chance asks for something else than it did before:
    that is refused, and what was recorded stays.

    $ keyong job resume 7c1f --follow
    """
    from keyong.cli._context import open_client

    with open_client() as client:
        found = find_job(client, job)
        after = client.last_event(found.job)
        client.resume(found.job)
        if not follow:
            job_run.submitted(found.job)
            return
        narrate("resumed job {job}", job=bare(found.job))
        job_run.follow_and_record(client, found.job, found.rounds, found.protection, digest=found.plan, after=after)


@app.command()
def cancel(job: JobArgument) -> None:
    """Stop a job of ours, or give up one that was interrupted. What was computed so far stays on record; the use of each
    agreement is spent.

    $ keyong job cancel 7c1f
    """
    from keyong.cli._context import open_client

    with open_client() as client:
        found = find_job(client, job)
        client.cancel(found.job)
    if as_json():
        emit({"cancelled": found.job})
    else:
        narrate("cancelled job {job}", job=bare(found.job))


@app.command()
def logs(
    job: JobArgument,
    erase: Annotated[bool, typer.Option("--erase", help="Remove them instead of showing them.")] = False,
) -> None:
    """Show what a job's code printed at this node, and why its steps ended as they did. Only the owner of the data can
    read it; it never leaves this machine, and goes after 30 days.

    $ keyong --home ~/mill-a job logs 7c1f
    $ keyong --home ~/mill-a job logs 7c1f --erase
    """
    import shutil

    from federation.errors import UsageError
    from keyong.cli._context import open_home

    folder = open_home().path / "logs"
    wanted = bare(job)
    hits = (
        sorted(path for path in folder.glob("*") if path.is_dir() and path.name.startswith(wanted))
        if len(wanted) >= 4
        else []
    )
    if len(hits) != 1:
        raise UsageError(
            "no job called {job} has run at this node",
            hint="see `keyong job list`; logs appear when a job has ended",
            job=job[:64],
            code="no-such-job",
        )
    if erase:
        shutil.rmtree(hits[0])
        if as_json():
            emit({"job": hits[0].name, "erased": True})
        else:
            narrate("erased the logs of job {job}", job=hits[0].name)
        return
    from enterprise_node.step_log import read_steps

    steps = read_steps(hits[0])
    texts: dict[str, Any] = {
        path.stem: path.read_text(encoding="utf-8", errors="replace") for path in sorted(hits[0].glob("std*.txt"))
    }
    if as_json():
        emit({"job": hits[0].name, **texts, "steps": steps})
        return
    if steps:
        table(
            ("time", "round", "stage", "outcome", "error code", "set to zero", "cut to a bound"),
            ([_step_cell(key, one.get(key, "")) for key in _STEP_COLUMNS] for one in steps),
        )
        for one in steps:
            if one.get("reason"):
                line(clean(f"{one.get('code')}: {one['reason']}"))
    for name, text in texts.items():
        if not text.strip():
            narrate("{stream} of the job: nothing", stream=name)
            continue
        narrate("{stream} of the job:", stream=name)
        for row in text.splitlines():
            line(clean(row))
