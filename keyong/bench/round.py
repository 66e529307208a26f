"""Seconds of a governed round: train and evaluate at three nodes, 1,000 floats, everything on.

Real processes on one machine: coordinator, server part and three nodes, each with its sandbox, mutual TLS, policy decision,
two durable ledger entries an invocation. A round ends when the aggregate of its evaluation is known; the first is left out,
for it opens the sessions.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from keyong.bench.figure import Figure
from keyong.demo.consortium import agree, begin
from keyong.demo.parties import DemoError, Party

TARGET_SECONDS = 0.10
NODES = 3
FLOATS = 1000
APP = Path(__file__).parent / "round_app"
PURPOSE = "fed:Benchmarking"


def measure(rounds: int = 40, floats: int = FLOATS) -> list[Figure]:
    """Measure over ``rounds`` rounds, the first one apart; raises :class:`DemoError` where the job does not run."""
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        coordinator = Party(folder, "institute")
        nodes = [Party(folder, f"node-{number}") for number in range(1, NODES + 1)]
        begin(stack, coordinator, nodes, "Benchmark", {node.name: f"Company {node.name}" for node in nodes})
        rows = folder / "rows.csv"
        rows.write_text("x\n" + "1.5\n" * 100, encoding="utf-8")
        for node in nodes:
            node.run("node", "dataset", "add", "rows", str(rows), "--title", "Rows")
        for service in [stack.enter_context(node.serve("node", "serve", logs=folder / "logs")) for node in nodes]:
            service.wait_for("attached")
        for node in nodes:
            node.run("peers", "accept", "--all")
        agree(coordinator, nodes, dataset="rows", title="Benchmark", purpose=PURPOSE, app=APP, count=1, expires="1d")
        times = _times(coordinator, rounds, floats)
    first, steady = times[0], times[1:]
    median = statistics.median(steady)
    return [
        Figure("round-seconds", median, "s", TARGET_SECONDS, spread=(min(steady), max(steady))),
        Figure("first-round-seconds", first, "s", None),
    ]


def _times(coordinator: Party, rounds: int, floats: int) -> list[float]:
    """Run the job; the seconds of each round, from the end of the one before (or the start of the server part)."""
    config = ["--config", f"num-server-rounds={rounds}", "--config", f"floats={floats}"]
    command = coordinator.command("--format", "json", "job", "run", str(APP), "--purpose", PURPOSE, "--yes", *config)
    times: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0.0
        for text in process.stdout:
            event = json.loads(text)
            if event.get("event") == "round" and event["data"]["stage"] == "evaluate":
                elapsed = float(event["data"]["elapsed"])  # by the coordinator's clock, since the server part began
                times.append(elapsed - last)
                last = elapsed
        _, told = process.communicate()
    if process.returncode or len(times) != rounds:
        raise DemoError(
            "the benchmark's job ended with {exit}: {why}", exit=process.returncode, why=told.strip()[-1000:]
        )
    return times
