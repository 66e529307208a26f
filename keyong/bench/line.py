"""The governed line as a benchmark needs it: coordinator and nodes as real processes, one agreement each, ready for a job."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyong.bench.progress import Advance
from keyong.demo.consortium import agree, begin
from keyong.demo.parties import DemoError, Party, Service

APP = Path(__file__).parent / "round_app"
PURPOSE = "fed:Benchmarking"


@dataclass(frozen=True)
class Line:
    """A consortium that stands: its coordinator, and the services of its nodes."""

    folder: Path
    coordinator: Party
    nodes: tuple[Party, ...]
    services: tuple[Service, ...]

    @property
    def coordinator_service(self) -> Service:
        """The coordinator's process."""
        service = self.coordinator.service
        assert service is not None  # begin() started it
        return service


def stand(stack: ExitStack, folder: Path, count: int) -> Line:
    """Found a consortium of ``count`` nodes and wait until all are attached; ``stack`` ends their processes."""
    coordinator, nodes = found(stack, folder, count)
    rows = folder / "rows.csv"
    rows.write_text("x\n" + "1.5\n" * 100, encoding="utf-8")
    for node in nodes:
        node.run("node", "dataset", "add", "rows", str(rows), "--title", "Rows")
    return Line(folder, coordinator, nodes, attach(stack, folder, nodes))


def found(stack: ExitStack, folder: Path, count: int) -> tuple[Party, tuple[Party, ...]]:
    """Found a consortium of ``count`` members, whose nodes do not serve yet; its coordinator does."""
    coordinator = Party(folder, "institute")
    nodes = tuple(Party(folder, f"node-{number}") for number in range(1, count + 1))
    begin(stack, coordinator, nodes, "Benchmark", {node.name: f"Company {node.name}" for node in nodes})
    return coordinator, nodes


def attach(stack: ExitStack, folder: Path, nodes: Sequence[Party]) -> tuple[Service, ...]:
    """Let nodes serve, and wait until all are attached."""
    services = tuple(stack.enter_context(node.serve("node", "serve", logs=folder / "logs")) for node in nodes)
    for service in services:
        service.wait_for("attached")
    return services


def permit(line: Line, uses: int = 1, protection: str = "none") -> None:
    """Let every node offer so many uses of its dataset for the benchmark's app, and the coordinator sign.

    Args:
        protection: ``masked`` or ``none``; of several agreements a job rests on the newest.
    """
    for node in line.nodes:
        node.run("peers", "accept", "--all")
    agree(
        line.coordinator,
        line.nodes,
        dataset="rows",
        title="Benchmark",
        purpose=PURPOSE,
        app=APP,
        count=uses,
        expires="1d",
        protection=protection,
    )


def run_job(line: Line, rounds: int, floats: int, advance: Advance, options: Sequence[str] = ()) -> list[float]:
    """Run the job; the seconds of each round, from the end of the one before (or the start of the server part).

    Raises:
        DemoError: the job did not end well, or not with that many rounds.
    """
    settings = {"num-server-rounds": rounds, "floats": floats, "nodes": len(line.nodes)}
    config = [part for key, value in settings.items() for part in ("--config", f"{key}={value}")]
    command = line.coordinator.command(
        "--format", "json", "job", "run", str(APP), "--purpose", PURPOSE, "--yes", *config, *options
    )
    ends: list[float] = []
    with (
        (line.folder / "logs" / "job.log").open("w+", encoding="utf-8") as told,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True) as process,
    ):
        assert process.stdout is not None
        for text in process.stdout:
            event: dict[str, Any] = json.loads(text)
            if event.get("event") == "round" and event["data"]["stage"] == "evaluate":
                # By the coordinator's clock, since the server part began.
                ends.append(float(event["data"]["elapsed"]))
                advance(len(ends), rounds)
        process.wait()
        told.seek(0)
        why = told.read().strip()[-1000:]
    if process.returncode or len(ends) != rounds:
        raise DemoError("the benchmark's job ended with {exit}: {why}", exit=process.returncode, why=why)
    return between(ends)


def between(ends: Sequence[float]) -> list[float]:
    """What each round took, from when each ended; the first counts from zero."""
    return [end - before for before, end in zip((0.0, *ends), ends, strict=False)]
