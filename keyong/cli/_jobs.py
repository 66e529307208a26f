"""Jobs as people name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from federation.wire.messages import JobSummary
    from keyong.client import Client

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, or how it begins.")]


def bare(job: str) -> str:
    """A job's id without its scheme."""
    return job.removeprefix("urn:uuid:")


def find_job(client: Client, name: str) -> JobSummary:
    """The one job of ours that is called so."""
    from federation.errors import UsageError

    hits = [one for one in client.jobs() if bare(one.job).startswith(bare(name))]
    if len(hits) != 1 or len(bare(name)) < 4:
        raise UsageError(
            "no job is called {job}",
            hint="see `keyong job list`; give at least the first four characters",
            job=name[:64],
            code="no-such-job",
        )
    return hits[0]
