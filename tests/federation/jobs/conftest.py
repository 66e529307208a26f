"""Sessions as plain processes on a socket pair, and a trusted side that averages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import federation.jobs
from federation.jobs import Channel, Content, decode_many, describe

MAX_BODY = 2**30


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the job code as ``keyong_job`` and nothing else of ours."""
    folder = tmp_path_factory.mktemp("runtime")
    source = Path(federation.jobs.__file__).parent
    shutil.copytree(source, folder / "keyong_job", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


class Worker:
    """One session and the trusted end of its channel."""

    def __init__(self, runtime: Path, kind: str, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(120)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder / "work"
        self.folder.mkdir()
        self.logs = folder / "logs"
        with self.logs.open("wb") as logs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "keyong_job", kind],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "PYTHONPATH": str(runtime),
                    "KEYONG_CHANNEL_FD": str(theirs.fileno()),
                },
                cwd=self.folder,
                pass_fds=[theirs.fileno()],
                stdout=logs,
                stderr=subprocess.STDOUT,
            )
        theirs.close()
        self.channel = Channel(ours)
        self.seen = bytearray()  # all that crossed towards us, to search in

    def ask(self, header: Mapping[str, Any], buffers: Any = ()) -> tuple[dict[str, Any], memoryview]:
        self.channel.send(header, buffers)
        return self.receive()

    def receive(self) -> tuple[dict[str, Any], memoryview]:
        header, body = self.channel.receive(MAX_BODY)
        self.seen += repr(header).encode() + bytes(body)
        return header, body

    def call(self, kind: str, content: Content | None = None) -> Any:
        """Call the ClientApp; a Content, or the code of an error."""
        described, buffers = describe(content or Content())
        header, body = self.ask({"op": "call", "type": kind, "content": described}, buffers)
        if header["op"] == "error":
            assert set(header) == {"op", "code"} and not body
            return header["code"]
        assert header["op"] == "reply"
        return decode_many([header["content"]], body)[0]

    def log(self) -> str:
        return self.logs.read_text()

    def close(self) -> None:
        self.channel.close()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()


@pytest.fixture
def start(runtime: Path, tmp_path: Path) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def start(kind: str) -> Worker:
        workers.append(Worker(runtime, kind, tmp_path / f"session-{len(workers)}"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


PYPROJECT = """
[project]
name = "app"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"
[tool.flwr.app.config]
rounds = 2
lr = 0.5
[tool.flwr.app.config.model]
width = 3
"""


@pytest.fixture
def write_app(tmp_path: Path) -> Callable[..., Path]:
    def write_app(server: str = "", client: str = "", pyproject: str = PYPROJECT, **files: str) -> Path:
        app = tmp_path / "app"
        app.mkdir(exist_ok=True)
        for name, text in {"server_app": server, "client_app": client, **files}.items():
            (app / f"{name}.py").write_text(text)
        (app / "pyproject.toml").write_text(pyproject)
        return app

    return write_app


@pytest.fixture
def start_client(start: Callable[[str], Worker]) -> Callable[..., tuple[Worker, dict[str, Any]]]:
    def start_client(app: Path, **fields: Any) -> tuple[Worker, dict[str, Any]]:
        worker = start("client")
        header = {"op": "start", "app": str(app), "node_config": {}, "run_config": {}, "run_id": 7, "node_id": 11}
        return worker, worker.ask({**header, **fields})[0]

    return start_client


Reply = Callable[[str, int, Content], Content | str]


def mean(contents: list[Content], weights: list[int], weight_key: str) -> Content:
    """What the trusted side hands to the app under ``sum``."""
    total = sum(weights)
    shares = [weight / total for weight in weights]

    def average(values: list[Any]) -> Any:
        if isinstance(values[0], list):
            return [average(list(column)) for column in zip(*values, strict=True)]
        return float(sum(value * share for value, share in zip(values, shares, strict=True)))

    first = contents[0]
    arrays = {
        record: {
            name: np.asarray(
                sum(content.arrays[record][name] * share for content, share in zip(contents, shares, strict=True))
            )
            for name in entries
        }
        for record, entries in first.arrays.items()
    }
    metrics = {
        record: {
            name: total if name == weight_key else average([content.metrics[record][name] for content in contents])
            for name in entries
        }
        for record, entries in first.metrics.items()
    }
    return Content(arrays, metrics)


@pytest.fixture
def run_server(start: Callable[[str], Worker]) -> Callable[..., SimpleNamespace]:
    def run_server(
        app: Path, reply: Reply, *, node_ids: tuple[int, ...] = (11, 12, 13), aggregation: str = "sum", **fields: Any
    ) -> SimpleNamespace:
        worker = start("server")
        worker.channel.send(
            {
                "op": "start",
                "app": str(app),
                "run_config": {},
                "run_id": 7,
                "node_ids": list(node_ids),
                "aggregation": aggregation,
                "fit_for_sums": False,
                "result_bytes": 2**20,
                **fields,
            }
        )
        result = SimpleNamespace(exchanges=[], files={}, worker=worker)
        while True:
            header, body = worker.receive()
            if header["op"] == "file":
                result.files[header["path"]] = bytes(body)
            elif header["op"] == "exchange":
                result.exchanges.append(header)
                worker.channel.send(*_answer(header, body, reply, aggregation))
            else:
                assert header["op"] in ("done", "error")
                result.end = header
                return result

    return run_server


def _answer(header: dict[str, Any], body: memoryview, reply: Reply, aggregation: str) -> tuple[Any, Any]:
    contents = decode_many(header["contents"], body)
    replies = [
        (message["node_id"], reply(header["type"], message["node_id"], contents[message["content_index"]]))
        for message in header["messages"]
    ]
    if aggregation == "sum":
        got = [content for _, content in replies if isinstance(content, Content)]
        if not got:
            return {"op": "abort", "code": "round-void"}, ()
        key = header["weight_key"]
        weights = [int(next(iter(content.metrics.values()))[key]) for content in got]  # type: ignore[call-overload]
        replies = [(0, mean(got, weights, key))]
    entries: list[dict[str, Any]] = []
    buffers: list[memoryview] = []
    for node_id, content in replies:
        if isinstance(content, str):
            entries.append({"node_id": node_id, "error": content})
        else:
            described, parts = describe(content)
            entries.append({"node_id": node_id, "content": described})
            buffers += parts
    return {"op": "replies", "replies": entries}, buffers
