"""A client session: what an app sees, and that nothing of what it prints or raises is in a frame."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federation.jobs import Content

APP = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    calls = context.state.metric_records.get("calls", MetricRecord({"n": 0}))
    calls["n"] += 1
    context.state["calls"] = calls
    weights = message.content["arrays"].to_numpy_ndarrays()
    print("SECRET-PRINT")
    arrays = ArrayRecord([weight + context.run_config["lr"] for weight in weights])
    metrics = MetricRecord({"num-examples": 4, "calls": calls["n"], "losses": [0.5, float("nan")]})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

@app.query("config")
def config(message, context):
    values = {**context.run_config, **context.node_config, "run": context.run_id, "node": context.node_id,
              "source": message.metadata.src_node_id, "me": message.metadata.dst_node_id}
    return Message(RecordDict({"config": ConfigRecord(values)}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    action = message.content["config"]["do"]
    if action == "raise":
        raise ValueError("SECRET-ROW 4711")
    if action == "exit":
        raise SystemExit(3)
    if action == "memory":
        raise MemoryError("SECRET-ROW")
    if action == "import":
        import nowhere_to_be_found
    if action == "none":
        return None
    if action == "string":
        return "SECRET-ROW"
    if action == "error":
        from flwr.app import Error
        return Message(Error(0, "SECRET-ROW"), reply_to=message)
    if action == "objects":
        arrays = ArrayRecord({"a": Array("object", (1,), "numpy.ndarray", b"SECRET-ROW")})
        return Message(RecordDict({"arrays": arrays}), reply_to=message)
    if action == "complex":
        return Message(RecordDict({"arrays": ArrayRecord([np.zeros(2, dtype=np.complex64)])}), reply_to=message)
    if action == "header":
        return Message(RecordDict({"c": ConfigRecord({str(n): "x" * 2**20 for n in range(5)})}), reply_to=message)
    return Message(message.content, reply_to=message)
"""


def _do(action: str) -> Content:
    return Content(configs={"config": {"do": action}})


def test_arrays_pass_through_and_the_context_is_kept(write_app: Callable[..., Any], start_client: Callable[..., Any]):
    worker, ready = start_client(write_app(client=APP), run_config={"lr": 2.0})
    assert ready == {"op": "ready"}
    weights = {str(number): np.full((2, number), number, dtype=np.float32) for number in range(12)}
    for round_number in (1, 2, 3):
        reply = worker.call("train", Content(arrays={"arrays": weights}))
        assert list(reply.arrays["arrays"]) == list(weights)  # order is kept, "10" after "9"
        for name, array in reply.arrays["arrays"].items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, weights[name] + 2)
        assert reply.metrics["metrics"]["calls"] == round_number
        assert np.isnan(reply.metrics["metrics"]["losses"][1])
    assert "SECRET-PRINT" in worker.log()
    assert b"SECRET" not in worker.seen


def test_configs_arrive(write_app: Callable[..., Any], start_client: Callable[..., Any]):
    node_config = {"partition-id": 0, "num-partitions": 3, "dataset-path": "/data"}
    worker, _ = start_client(write_app(client=APP), node_config=node_config, run_config={"model.width": 9})
    config = worker.call("query.config").configs["config"]
    assert config == {
        **{"rounds": 2, "lr": 0.5, "model.width": 9},
        **node_config,
        **{"run": 7, "node": 11, "source": 1, "me": 11},
    }


def test_inv3_no_text_of_an_exception_is_in_a_frame(write_app: Callable[..., Any], start_client: Callable[..., Any]):
    worker, _ = start_client(write_app(client=APP))
    expected = {
        "raise": "app-exception",
        "exit": "app-exception",
        "memory": "out-of-memory",
        "import": "app-missing-dependency",
        "none": "app-no-reply",
        "string": "app-reply-type",
        "error": "app-exception",
        "objects": "app-reply-type",
        "complex": "app-reply-type",
        "header": "app-reply-type",
    }
    assert {action: worker.call("evaluate", _do(action)) for action in expected} == expected
    assert worker.call("query.unknown") == "unsupported"
    assert worker.call("delete") == "unsupported"
    assert worker.call("system") == "unsupported"
    assert worker.call("evaluate", _do("echo")).configs == {"config": {"do": "echo"}}  # the session lives on
    assert b"SECRET" not in worker.seen
    assert "SECRET-ROW 4711" in worker.log()
    assert "the runtime has no module named nowhere_to_be_found" in worker.log()


@pytest.mark.parametrize(
    ("client", "code"),
    [
        ("def app(:", "app-syntax"),
        ("import a_library_that_is_not_there", "app-missing-dependency"),
        ("import task.missing", "app-import"),
        ("raise RuntimeError('SECRET')", "app-import"),
        ("import sys; sys.exit(0)", "app-import"),
        ("app = 'no ClientApp'", "app-import"),
        ("other = 1", "app-import"),
    ],
)
def test_an_app_that_cannot_be_imported_is_a_code(
    client: str, code: str, write_app: Callable[..., Any], start_client: Callable[..., Any]
):
    worker, answer = start_client(write_app(client=client, task=""))
    assert answer == {"op": "error", "code": code}
    assert worker.process.wait(30) == 0


def test_a_broken_project_and_an_unknown_config_key_are_codes(
    write_app: Callable[..., Any], start_client: Callable[..., Any]
):
    app = write_app(client=APP)
    assert start_client(app, run_config={"learning-rate": 1})[1] == {"op": "error", "code": "app-config"}
    (app / "pyproject.toml").write_text("[tool.flwr")
    assert start_client(app)[1] == {"op": "error", "code": "app-import"}


SHADOWS = """
import coordinator.part, frames, keyong_job.frames, queue, sandbox, secrets, task, tests
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
import sys

app = ClientApp()

@app.query()
def query(message, context):
    import wave  # a module of the standard library that nothing has imported before
    found = {
        "own": [frames.WHO, sandbox.WHO, coordinator.part.WHO, task.WHO, tests.WHO],
        "runtime": [hasattr(queue, "Queue"), hasattr(secrets, "token_bytes"), hasattr(wave, "Wave_read"),
                    hasattr(keyong_job.frames, "Channel")],
        "cwd": any(entry == "" or entry == __import__("os").getcwd() for entry in sys.path),
        "federation": "federation" in sys.modules,
        "telemetry": __import__("flwr.supercore.telemetry", fromlist=["x"]).FLWR_TELEMETRY_ENABLED,
    }
    return Message(RecordDict({"found": ConfigRecord(found)}), reply_to=message)
"""


def test_an_apps_modules_are_found_and_shadow_nothing(write_app: Callable[..., Any], start_client: Callable[..., Any]):
    own = dict.fromkeys(("frames", "sandbox", "task", "tests", "queue", "secrets", "wave", "keyong_job"), "WHO = 'app'")
    app = write_app(client=SHADOWS, **own)
    (app / "coordinator").mkdir()
    (app / "coordinator" / "__init__.py").touch()
    (app / "coordinator" / "part.py").write_text("WHO = 'app'")
    worker, answer = start_client(app)
    assert answer == {"op": "ready"}, worker.log()
    assert worker.call("query").configs["found"] == {
        "own": ["app"] * 5,
        "runtime": [True] * 4,
        "cwd": False,
        "federation": False,
        "telemetry": "0",
    }


CHILDREN = """
import os, subprocess, sys
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

def sockets():
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in map(int, os.listdir("/proc/self/fd"))
               if os.path.lexists(f"/proc/self/fd/{fd}"))

@app.query()
def query(message, context):
    print("not a frame", flush=True)
    os.write(1, b"not a frame either")
    own = sockets()
    listing = subprocess.run(["/bin/ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True)
    executed = listing.stdout.count("socket:")
    child = os.fork()
    if not child:
        os._exit(sockets())
    forked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = {"own": own, "executed": executed, "forked": forked, "variable": "KEYONG_CHANNEL_FD" in os.environ}
    return Message(RecordDict({"found": ConfigRecord(found)}), reply_to=message)
"""


def test_children_and_prints_do_not_reach_the_channel(write_app: Callable[..., Any], start_client: Callable[..., Any]):
    worker, _ = start_client(write_app(client=CHILDREN))
    found = worker.call("query").configs["found"]
    assert found == {"own": 1, "executed": 0, "forked": 0, "variable": False}
    assert "not a frame either" in worker.log()


def test_a_channel_on_a_standard_stream_is_moved_away(monkeypatch: pytest.MonkeyPatch):
    from federation.jobs.session import open_channel

    ours, theirs = socket.socketpair()
    saved = os.dup(1)
    try:
        os.dup2(theirs.fileno(), 1)
        theirs.close()
        monkeypatch.setenv("KEYONG_CHANNEL_FD", "1")
        channel = open_channel()
        os.write(1, b"a print")
        channel.send({"op": "ready"})
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    channel.close()
    assert ours.recv(1024)[12:] == b'{"op":"ready"}'
    ours.close()


def test_a_session_keeps_no_model_of_the_calls_before(write_app: Callable[..., Any], start_client: Callable[..., Any]):
    """Flower's records refer to themselves: left to Python's own collector, each call would leave its models behind."""
    worker, _ = start_client(write_app(client=APP), run_config={"lr": 2.0})
    model = Content(arrays={"arrays": {"w": np.zeros(2**21, dtype=np.float32)}})

    def held() -> int:
        rows = Path(f"/proc/{worker.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("RssAnon:"))

    worker.call("train", model)
    worker.call("nothing")  # answered after what the call before left was collected
    before = held()
    for _ in range(12):
        worker.call("train", model)
    worker.call("nothing")
    assert held() - before < 3 * 2**23  # of 24 models that went through
