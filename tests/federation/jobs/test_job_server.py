"""A server session: Flower's strategies over one synthetic reply, what is refused under ``sum``, and results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp import strategy as flower_strategies

from federation.jobs import Content, flower
from federation.jobs.grid import JobGrid

NODES = (11, 12, 13)
WEIGHTS = {11: 10, 12: 30, 13: 160}
NAMES = ("FedAvg", "FedProx", "FedAdam", "FedYogi", "FedAdagrad", "FedAvgM")
INITIAL = {
    "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "steps": np.array(0, dtype=np.int64),
    "b": np.zeros(4, dtype=np.float64),
}

HEAD = """
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import *
app = ServerApp()
initial = ArrayRecord({"w": Array(np.zeros(3, dtype=np.float32))})
"""


def client(kind: str, node_id: int, content: Content) -> Content:
    """Train or evaluate as a node would: deterministic, different at each node and each round."""
    generator = np.random.default_rng([node_id, int(content.configs["config"]["server-round"])])  # type: ignore[arg-type]
    metrics: dict[str, Any] = {
        "loss": float(generator.uniform()),
        "num-examples": WEIGHTS[node_id],
        "curve": [float(value) for value in generator.uniform(size=3)],
    }
    if kind == "evaluate":
        return Content(metrics={"metrics": metrics})
    arrays = {
        name: (array + generator.integers(1, 5))
        if array.dtype == np.int64
        else (array + generator.normal(size=array.shape)).astype(array.dtype)
        for name, array in content.arrays["arrays"].items()
    }
    return Content({"arrays": arrays}, {"metrics": metrics})


def plain(kind: str, node_id: int, content: Content) -> Content:
    metrics = {"metrics": {"num-examples": 1, "loss": float(node_id)}}
    return Content(content.arrays if kind == "train" else {}, metrics)


class _EveryReply(JobGrid):
    """Flower's own way: the strategy gets each node's reply."""

    def __init__(self) -> None:
        super().__init__(None, run_id=7, node_ids=NODES, aggregation="each", declared_fit=False)  # type: ignore[arg-type]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [
            flower.answer(
                message,
                f"m{message.metadata.dst_node_id}",
                flower.to_records(
                    client(
                        message.metadata.message_type,
                        message.metadata.dst_node_id,
                        self._as_first_sent(flower.to_content(message.content)),
                    )
                ),
            )
            for message in messages
        ]


SIX = (
    HEAD
    + """
import json
@app.main()
def main(grid: Grid, context) -> None:
    initial = ArrayRecord({name: Array(array) for name, array in np.load(context.run_config["initial"]).items()})
    for cls in (FedAvg, FedProx, FedAdam, FedYogi, FedAdagrad, FedAvgM):
        result = cls().start(grid, initial, num_rounds=3)
        np.savez(f"{cls.__name__}.npz", **{name: array.numpy() for name, array in result.arrays.items()})
        with open(f"{cls.__name__}.json", "w") as file:
            json.dump({"train": {n: dict(m) for n, m in result.train_metrics_clientapp.items()},
                       "evaluate": {n: dict(m) for n, m in result.evaluate_metrics_clientapp.items()}}, file)
"""
)


def test_six_strategies_give_what_flowers_own_aggregation_gives(
    write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace], tmp_path: Any
):
    np.savez(tmp_path / "initial.npz", **INITIAL)
    app = write_app(server=SIX)
    (app / "pyproject.toml").write_text(
        (app / "pyproject.toml").read_text().replace("rounds = 2", f"initial = '{tmp_path / 'initial.npz'}'")
    )
    result = run_server(app, client)
    assert result.end == {"op": "done"}, result.worker.log()
    assert len(result.exchanges) == len(NAMES) * 6
    flower.identify(7, 1)
    for name in NAMES:
        strategy = getattr(flower_strategies, name)()
        expected = strategy.start(_EveryReply(), flower.to_records(Content({"a": INITIAL}))["a"], num_rounds=3)
        (tmp_path / "got.npz").write_bytes(result.files[f"{name}.npz"])
        got = dict(np.load(tmp_path / "got.npz"))
        assert list(got) == list(expected.arrays)
        for key, array in expected.arrays.items():
            np.testing.assert_allclose(got[key], array.numpy(), rtol=2e-4, atol=2e-4, err_msg=f"{name} {key}")
            assert got[key].dtype == array.numpy().dtype
            assert np.abs(got[key] - INITIAL[key]).max() > 0.01, "the model must have moved"
        metrics = json.loads(result.files[f"{name}.json"])
        for kind, history in (
            ("train", expected.train_metrics_clientapp),
            ("evaluate", expected.evaluate_metrics_clientapp),
        ):
            for round_number, record in history.items():
                mine = metrics[kind][str(round_number)]
                assert set(mine) == set(record)
                for key, value in record.items():
                    np.testing.assert_allclose(mine[key], value, rtol=1e-9)


def test_a_broadcast_is_sent_once_to_the_whole_cohort(
    write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace]
):
    source = (
        HEAD
        + """
@app.main()
def main(grid, context):
    result = FedAvg(weighted_by_key="rows").start(grid, initial, num_rounds=1, timeout=90)
    assert abs(result.train_metrics_clientapp[1]["loss"] - 2.0) < 1e-9, result
"""
    )

    def reply(kind: str, node_id: int, content: Content) -> Content:
        metrics = {"metrics": {"rows": 5, "loss": float(node_id - 10)}}
        return Content(content.arrays if kind == "train" else {}, metrics)

    result = run_server(write_app(server=source), reply)
    assert result.end == {"op": "done"}, result.worker.log()
    train, evaluate = result.exchanges
    assert (train["type"], evaluate["type"]) == ("train", "evaluate")
    assert len(train["contents"]) == 1
    assert sorted(message["node_id"] for message in train["messages"]) == list(NODES)
    assert {message["content_index"] for message in train["messages"]} == {0}
    assert (train["weight_key"], train["timeout"]) == ("rows", 90)


RUN = """
class Mine(FedAvg):
    def aggregate_train(self, server_round, replies):
        return super().aggregate_train(server_round, replies)
@app.main()
def main(grid, context):
    try:
        ({strategy}).start(grid, initial, num_rounds=1)
    except Exception as error:
        print("swallowed", error)  # an app that goes on is refused all the same
        try:
            grid.push_messages([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
        except Exception:
            pass
"""


@pytest.mark.parametrize(
    ("strategy", "fields", "code", "named"),
    [
        ("Krum()", {"fit_for_sums": True}, "strategy-not-for-sums", "Krum"),
        ("Mine()", {}, "strategy-not-for-sums", "Mine"),
        ("FedAvg(fraction_train=0.5)", {}, "sampling-not-whole", "FedAvg"),
        ("FedAvg(min_available_nodes=4)", {"aggregation": "each"}, "cohort-too-small", "FedAvg"),
    ],
)
def test_inv8_a_strategy_that_one_mean_would_deceive_is_refused_before_round_1(
    strategy: str,
    fields: dict[str, Any],
    code: str,
    named: str,
    write_app: Callable[..., Any],
    run_server: Callable[..., SimpleNamespace],
):
    result = run_server(write_app(server=HEAD + RUN.format(strategy=strategy)), plain, **fields)
    assert (result.end["op"], result.end["code"], result.end["strategy"]) == ("error", code, named)
    assert result.end["reason"]
    assert result.exchanges == []


@pytest.mark.parametrize(
    ("strategy", "fields", "exchanges"),
    [
        ("Mine()", {"fit_for_sums": True}, 2),
        ("FedAvg(fraction_evaluate=0.0)", {}, 1),
        ("FedMedian()", {"aggregation": "each"}, 2),
        ("FedAvg(fraction_train=0.7)", {"aggregation": "each"}, 2),
    ],
)
def test_what_is_right_with_a_mean_or_gets_every_reply_runs(
    strategy: str,
    fields: dict[str, Any],
    exchanges: int,
    write_app: Callable[..., Any],
    run_server: Callable[..., SimpleNamespace],
):
    source = (HEAD + RUN.format(strategy=strategy)).replace("print(", "raise;print(")
    result = run_server(write_app(server=source), plain, **fields)
    assert result.end == {"op": "done"}, result.worker.log()
    assert len(result.exchanges) == exchanges


BY_HAND = (
    HEAD
    + """
@app.main()
def main(grid, context):
    def content(value):
        return RecordDict({"config": ConfigRecord({"value": value})})
    nodes = list(grid.get_node_ids())
    mode = context.run_config["lr"]
    if mode == 1:    # the same content, each time a new object
        messages = [Message(content(1), node, "query") for node in nodes]
    elif mode == 2:  # a content of its own for each node
        messages = [grid.create_message(content(node), "query", node, "g") for node in nodes]
    elif mode == 3:  # not the whole cohort
        messages = [Message(content(1), node, "query") for node in nodes[1:]]
    elif mode == 4:  # twice the same node
        messages = [Message(content(1), nodes[0], "query")] * len(nodes)
    elif mode == 5:  # not a node of this job
        messages = [Message(content(1), node, "query") for node in [*nodes[1:], 999]]
    elif mode == 6:
        messages = [Message(content(1), node, kind) for node, kind in zip(nodes, ["train", "query", "query"])]
    ids = grid.push_messages(messages)
    assert len(ids) == len(nodes)
    replies = list(grid.pull_messages(ids))
    assert not list(grid.pull_messages(ids))
    for reply in replies:
        if reply.has_error():
            print("node", reply.metadata.src_node_id, "failed", reply.error.reason)
        else:
            print("node", reply.metadata.src_node_id, "said", reply.content["metrics"]["loss"])
"""
)


@pytest.mark.parametrize(
    ("mode", "aggregation", "fit", "code", "contents"),
    [
        (1, "sum", False, "no-strategy-for-sums", 0),
        (1, "sum", True, "done", 1),
        (2, "sum", True, "not-one-broadcast", 0),
        (3, "sum", True, "not-one-broadcast", 0),
        (4, "sum", True, "unsupported", 0),
        (5, "sum", True, "unsupported", 0),
        (6, "sum", True, "unsupported", 0),
        (1, "each", False, "done", 1),
        (2, "each", False, "done", 3),
        (5, "each", False, "unsupported", 0),
    ],
)
def test_an_app_that_drives_the_grid_itself(
    mode: int,
    aggregation: str,
    fit: bool,
    code: str,
    contents: int,
    write_app: Callable[..., Any],
    run_server: Callable[..., SimpleNamespace],
):
    result = run_server(
        write_app(server=BY_HAND), plain, run_config={"lr": mode}, aggregation=aggregation, fit_for_sums=fit
    )
    assert result.end.get("code", result.end["op"]) == code, result.worker.log()
    assert [len(exchange["contents"]) for exchange in result.exchanges] == ([contents] if contents else [])


def test_under_each_a_nodes_failure_is_an_error_reply(
    write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace]
):
    def reply(kind: str, node_id: int, content: Content) -> Content | str:
        return "denied" if node_id == 12 else plain(kind, node_id, content)

    result = run_server(write_app(server=BY_HAND), reply, run_config={"lr": 2}, aggregation="each")
    assert result.end == {"op": "done"}
    log = result.worker.log()
    assert "node 12 failed denied" in log
    assert "node 11 said 11.0" in log
    assert "node 13 said 13.0" in log


def test_a_void_round_ends_the_job(write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace]):
    source = HEAD + RUN.format(strategy="FedAvg()").replace("try:", "if True:").split("    except")[0]
    result = run_server(write_app(server=source), lambda *_: "denied")
    assert result.end == {"op": "error", "code": "exchange-failed", "reason": "round-void"}


FILES = (
    HEAD
    + """
import os, sys
@app.main()
def main(grid, context):
    os.makedirs("deep/er")
    open("deep/er/model.bin", "wb").write(b"model" * 1000)
    open("空.txt", "w").write("x")
    open("empty", "w")
    os.symlink("/etc/passwd", "link")
    os.symlink("/etc", "folder")
    os.mkfifo("fifo")
    os.chdir("/")
    if context.run_config["lr"] == 9:
        open(os.path.join(HERE, "a\\nb"), "w")
    sys.exit(0)
HERE = os.getcwd()
"""
)


def test_results_are_the_regular_files_and_no_link_is_followed(
    write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace]
):
    app = write_app(server=FILES)
    result = run_server(app, plain)
    assert result.end == {"op": "done"}, result.worker.log()
    assert result.files == {"deep/er/model.bin": b"model" * 1000, "空.txt": b"x", "empty": b""}
    assert run_server(app, plain, result_bytes=5000).end["code"] == "result-too-large"
    assert run_server(app, plain, run_config={"lr": 9}).end["code"] == "result-name"


@pytest.mark.parametrize(
    ("server", "code"),
    [
        ("def app(:", "app-syntax"),
        ("import a_library_that_is_not_there", "app-missing-dependency"),
        ("1/0", "app-import"),
        ("app = 1", "app-import"),
        (
            HEAD + "@app.main()\ndef main(grid, context):\n    raise ValueError('x' * 40000 + 'the end')",
            "app-exception",
        ),
        (HEAD + "@app.main()\ndef main(grid, context):\n    raise SystemExit(2)", "app-exception"),
        (HEAD + "@app.main()\ndef main(grid, context):\n    raise MemoryError", "out-of-memory"),
    ],
)
def test_the_requester_gets_the_server_parts_traceback(
    server: str, code: str, write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace]
):
    end = run_server(write_app(server=server), plain).end
    assert end["code"] == code
    assert 0 < len(end["traceback"].encode()) <= 16 * 1024
    if "the end" in server:
        assert end["traceback"].endswith("the end\n")
    if code == "app-missing-dependency":
        assert end["reason"] == "a_library_that_is_not_there"


def test_two_threads_of_an_app_do_not_mix_their_exchanges(
    write_app: Callable[..., Any], run_server: Callable[..., SimpleNamespace]
):
    source = (
        HEAD
        + """
from concurrent.futures import ThreadPoolExecutor
@app.main()
def main(grid, context):
    def ask(value):
        record = RecordDict({"config": ConfigRecord({"value": value}), "arrays": initial})
        replies = grid.send_and_receive([Message(record, node, "query") for node in grid.get_node_ids()])
        return {reply.content["metrics"]["loss"] for reply in replies} == {11.0 + value, 12.0 + value, 13.0 + value}
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(32)))
"""
    )

    def reply(kind: str, node_id: int, content: Content) -> Content:
        return Content(metrics={"metrics": {"loss": node_id + float(content.configs["config"]["value"])}})  # type: ignore[arg-type]

    result = run_server(write_app(server=source), reply, aggregation="each")
    assert result.end == {"op": "done"}, result.worker.log()
    assert len(result.exchanges) == 32
