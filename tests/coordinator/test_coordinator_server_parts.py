"""Server parts that cannot run, and hostile ones: refused with the reason, or ended; real sessions throughout."""

from __future__ import annotations

import pytest

import coordinator.job
from tests.coordinator.parties import FEDAVG, PYPROJECT, SERVER, Consortium

MAIN = "\n@app.main()\ndef main(grid, context):\n"
RUN = "    {strategy}.start(grid, initial, num_rounds=1)\n"


def strategy(expression: str) -> str:
    return SERVER + MAIN + RUN.format(strategy=expression)


REFUSALS = {
    "krum": (strategy("Krum()"), "strategy-not-for-sums", "Krum"),
    "median": (strategy("FedMedian()"), "strategy-not-for-sums", "FedMedian"),
    "trimmed mean": (strategy("FedTrimmedAvg()"), "strategy-not-for-sums", "FedTrimmedAvg"),
    "bulyan": (strategy("Bulyan()"), "strategy-not-for-sums", "Bulyan"),
    "dp wrapper": (
        strategy("DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 3)"),
        "strategy-not-for-sums",
        "DifferentialPrivacy",
    ),
    "sampling": (strategy("FedAvg(fraction_train=0.5)"), "sampling-not-whole", "0.5"),
    "own aggregation": (
        SERVER
        + "class Mine(FedAvg):\n    def aggregate_train(self, n, r): return None, None\n"
        + MAIN
        + RUN.format(strategy="Mine()"),
        "strategy-not-for-sums",
        "fit-for-sums",
    ),
    "own loop": (
        SERVER
        + MAIN
        + "    c = RecordDict({'arrays': initial})\n"
        + "    grid.send_and_receive([grid.create_message(c, 'train', n, '') for n in grid.get_node_ids()])\n",
        "no-strategy-for-sums",
        "fit-for-sums",
    ),
    "missing module": ("import xgboost\n" + FEDAVG, "app-missing-dependency", "xgboost"),
    "syntax error": (FEDAVG + "\ndef broken(:\n", "app-syntax", "server_app.py"),
    "exception": (SERVER + MAIN + "    raise ValueError('mine')\n", "app-exception", "ValueError: mine"),
    "more nodes than there are": (strategy("FedAvg(min_available_nodes=9)"), "cohort-too-small", "9"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_inv8_what_cannot_run_is_refused_with_the_reason_before_any_node_computes(
    live: Consortium, app, case: str
):
    source, code, words = REFUSALS[case]
    async with live.serving():
        _, last, _ = await live.run(app(source))
    assert (last.kind, last.data["code"]) == ("failed", code), last.data
    assert words in last.data["reason"] + last.data["hint"]
    assert not any(node.asked for node in live.nodes)
    assert all(len(node.closed) == 1 for node in live.nodes)


async def test_a_query_is_nothing_a_plan_can_hold(live: Consortium, app):
    fit = (
        SERVER
        + MAIN
        + "    c = RecordDict({'arrays': initial})\n"
        + "    grid.send_and_receive([grid.create_message(c, 'query', n, '') for n in grid.get_node_ids()])\n"
    )
    pyproject = PYPROJECT + "\n[tool.keyong]\nfit-for-sums = true\n"
    async with live.serving():
        _, last, _ = await live.run(app(fit, pyproject))
        assert last.data["code"] == "action-not-planned" and "query" in last.data["reason"]
        _, last, _ = await live.run(app(FEDAVG, pyproject), actions=("fed:train",))
        assert last.data["code"] == "action-not-planned" and "evaluate" in last.data["reason"]


async def test_an_endless_loop_ends_with_the_plans_time(live: Consortium, app, monkeypatch):
    monkeypatch.setattr(coordinator.job, "START_SECONDS", 1.0)
    async with live.serving():
        _, last, _ = await live.run(app("while True: pass\n"), round_seconds=1)
    assert last.data["code"] == "server-timeout" and "endless loop" in last.data["hint"]


async def test_a_bad_project_or_run_config_asks_no_node(live: Consortium, app):
    async with live.serving():
        _, last, events = await live.run(app(FEDAVG), run_config={"unknown": "3"})
        assert last.data["code"] == "app-config" and "unknown" in last.data["reason"]
        dotted = ".".join("a" * 5000) + " = 1\n"
        for bad in ("[project", "x = " + "[" * 50_000 + "]" * 50_000, "x = " + "9" * 5000, PYPROJECT + dotted):
            _, last, events = await live.run(app(FEDAVG, bad))
            assert last.data["code"] == "app-import", (last.data, bad[:60])
    assert [event.kind for event in events] == ["failed"]
    assert not any(node.plans for node in live.nodes)


# An app that takes hold of the session's channel and speaks for itself.
TAKE = """
import gc, json, os, struct, time
def channel():
    gc.unfreeze()  # what the session made before the app's turn is out of the collector's sight otherwise
    return next(o for o in gc.get_objects() if type(o).__name__ == "Channel")._socket
def frame(header, body=b"", size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    channel().sendall(struct.pack(">IQ", len(raw), len(body) if size is None else size) + raw + body)
def ids():
    gc.unfreeze()
    return list(next(o for o in gc.get_objects() if type(o).__name__ == "JobGrid").get_node_ids())
CONTENT = {"v": 1, "arrays": [["arrays", [["w", "float32", [3]]]]], "metrics": [], "configs": []}
def exchange(**changes):
    header = {"op": "exchange", "type": "train", "messages": [{"node_id": n} for n in ids()], "contents": [CONTENT],
              "weight_key": "num-examples"}
    frame({**header, **changes}, bytes(12))
"""
ATTACKS = {
    "a header of four gigabytes": ("channel().sendall(b'\\xff' * 12)", "session-frame"),
    "a body beyond its memory": ("frame({'op': 'exchange'}, size=2**50)", "session-frame-size"),
    "no json": ("frame(b'{')", "session-frame"),
    "an unknown frame": ("frame({'op': 'give-me-the-keys'})", "server-frame"),
    "exchange after files": ("frame({'op': 'file', 'path': 'a'}); exchange()", "server-frame"),
    "a file outside": ("frame({'op': 'file', 'path': '../../plan.json'}, b'x')", "result"),
    "a file twice": ("frame({'op': 'file', 'path': 'a'}); frame({'op': 'file', 'path': 'a'})", "result"),
    "a file below a file": ("frame({'op': 'file', 'path': 'a'}); frame({'op': 'file', 'path': 'a/b'})", "result"),
    "an endless name": ("frame({'op': 'file', 'path': 'a' * 300})", "result"),
    "too many files": ("[frame({'op': 'file', 'path': str(n)}) for n in range(30)]", "result"),
    "foreign nodes": ("exchange(messages=[{'node_id': n} for n in (1, 2, 3)])", "not-whole-cohort"),
    "one node": ("exchange(messages=[{'node_id': ids()[0]}])", "not-whole-cohort"),
    "one node thrice": ("exchange(messages=[{'node_id': ids()[0]}] * 3)", "not-whole-cohort"),
    "two contents": ("exchange(contents=[CONTENT, CONTENT])", "not-one-broadcast"),
    "a malformed content": ("exchange(contents=[{**CONTENT, 'v': 2}])", "content-header"),
    "more rounds": ("[(exchange(), grid._channel.receive(2**30)) for _ in range(9)]", "rounds-exceeded"),
    "its own code": ("frame({'op': 'error', 'code': 'denied', 'reason': '{hint.__class__}'})", "server-part"),
    "leaves at once": ("os._exit(3)", "server-ended"),
    "closes and goes on": ("channel().close(); os.close(3) if 0 else None; time.sleep(60)", "server-ended"),
    "eats memory": ("x = [bytearray(2**24) for _ in range(64)]; time.sleep(60)", None),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hostile_server_part_is_ended_with_a_code(live: Consortium, app, attack: str, monkeypatch):
    action, code = ATTACKS[attack]
    monkeypatch.setattr("coordinator.server_session.END_SECONDS", 0.5)
    monkeypatch.setattr("coordinator.results.RESULT_FILES", 20)
    source = TAKE + SERVER + MAIN + f"    {action}\n    time.sleep(60)\n"
    async with live.serving():
        job, last, _ = await live.run(app(source), memory_bytes=2**28 + 2**27)
        assert last.kind == "failed", last.data
        assert code is None or last.data["code"] == code, last.data
        assert live.service is not None and live.service.desk.running == 0
        assert b"the-requester" not in (await live.result(job))["plan.json"]
    assert all(len(node.closed) == 1 for node in live.nodes)
    outside = live.institute.path / "jobs"
    assert sorted(path.name for path in outside.iterdir()) == [job.removeprefix("urn:uuid:")]


async def test_an_abort_cannot_be_swallowed(live: Consortium, app):
    source = (
        SERVER
        + MAIN
        + "    import time\n    while True:\n        try:\n    "
        + RUN.format(strategy="        FedAvg()").strip("\n")
        + "\n        except BaseException: pass\n"
    )
    live.nodes[0].receipt = lambda receipt: receipt.model_copy(update={"round": 7})
    async with live.serving():
        _, last, _ = await live.run(app(source))
    assert last.data["code"] == "too-few-participants"
    assert len(live.nodes[1].asked) == 1
