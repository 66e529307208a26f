"""The course of an example on real data: tables, a federated job over them, the comparison, a picture, all ledgers verified."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from examples.common.emulate import Settings, emulate_tables
from examples.common.picture import bars
from examples.common.raw import PrepareError
from examples.common.story import Participant, federate, verify, write_figures
from keyong.demo.parties import DemoError


@dataclass(frozen=True)
class Finding:
    """What a comparison found.

    Attributes:
        figures: a dataclass with all of them.
        text: the same as a table for a person.
        series: what the picture shows: title to one value for each participant.
        holds: whether the example's bars hold.
    """

    figures: Any
    text: str
    series: Mapping[str, list[float]]
    holds: bool


@dataclass(frozen=True)
class Course:
    """What makes one example different from the next.

    Attributes:
        about: what the command's help says.
        data: what `--data` must hold.
        folder: where its state is kept unless `--dir` says otherwise.
        consortium: its name.
        dataset: id, title and Chinese title under which each registers its table.
        title: the agreements'.
        purpose: what they permit.
        app: the Flower app, and its two parts.
        settings: of the app.
        tables: reads the data; each participant's id, legal entity and table.
        compare: judges the model that the server part left, beside others trained on the same tables.
        heading: the picture's, and the unit of its axis.
    """

    about: str
    data: str
    folder: str
    consortium: str
    dataset: tuple[str, str, str]
    title: str
    purpose: str
    app: Path
    parts: tuple[ServerApp, ClientApp]
    settings: Settings
    tables: Callable[[Path], Sequence[tuple[str, str, pd.DataFrame]]]
    compare: Callable[[Mapping[str, pd.DataFrame], Path], Finding]
    heading: tuple[str, str]


def run(course: Course, argv: Sequence[str] | None = None) -> int:
    """Run an example's command line; 0 only if its bars hold."""
    parser = argparse.ArgumentParser(description=course.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=course.data)
    parser.add_argument("--dir", type=Path, default=Path(course.folder), help="where its state is kept; made anew")
    parser.add_argument(
        "--emulate", action="store_true", help="in this process, without nodes, permits, masks or ledgers"
    )
    chosen = parser.parse_args(argv)
    began = time.monotonic()
    shutil.rmtree(chosen.dir, ignore_errors=True)
    (chosen.dir / "tables").mkdir(mode=0o700, parents=True)
    try:
        finding = _play(course, chosen.data, chosen.dir, emulate=chosen.emulate)
    except (DemoError, PrepareError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the whole in {time.monotonic() - began:.0f} s; figures.json and figures.svg are in {chosen.dir}")
    return 0 if finding.holds else 1


def _play(course: Course, data: Path, folder: Path, *, emulate: bool) -> Finding:
    tables, participants = {}, []
    for name, entity, table in course.tables(data):
        path = folder / "tables" / f"{name}.parquet"
        table.to_parquet(path, index=False)
        tables[name] = table
        participants.append(Participant(name, entity, path))
    training = None
    if emulate:
        files = {one.name: one.table for one in participants}
        output = emulate_tables(*course.parts, files, course.settings, folder)
    else:
        training = federate(
            folder, course.consortium, participants,
            dataset=course.dataset, title=course.title, purpose=course.purpose, app=course.app,
        )  # fmt: skip
        output = training.result / "output"
    finding = course.compare(tables, output / "model.npz")
    print(finding.text)
    seconds = {} if training is None else {"job_seconds": training.seconds}
    write_figures(folder / "figures.json", {**asdict(finding.figures), **seconds})
    drawing = bars(*course.heading, list(tables), dict(finding.series))
    (folder / "figures.svg").write_text(drawing, encoding="utf-8")
    if training is not None:
        print(f"protection {training.protection}; the job took {training.seconds:.0f} s over {len(participants)} nodes")
        verify(folder, participants, training.fingerprint)
    return finding
