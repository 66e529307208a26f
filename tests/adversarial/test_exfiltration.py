"""Job code that wants out: what it got, and what the owner sees of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apps import OUTPUTS, client_that, server_with, write_app
from tests.integration.consortium import Consortium, as_text

SECRET_NAME = "KEYONG_TEST_SECRET"

SPY = """
import ctypes, glob, json, os, socket, subprocess, sys


def attempt(act):
    try:
        return repr(act())[:300]
    except BaseException as error:
        return f"refused: {type(error).__name__}"


def spy(secrets):
    found = {
        "environment": dict(os.environ),
        "host": socket.gethostname(),
        "uname": os.uname().nodename,
        "user": attempt(lambda: os.getlogin()),
        "cwd": os.getcwd(),
        "roots": attempt(lambda: sorted(os.listdir("/"))),
        "processes": attempt(lambda: len([name for name in os.listdir("/proc") if name.isdigit()])),
        "mounts": attempt(lambda: open("/proc/self/mounts").read()),
        "mountinfo": attempt(lambda: open("/proc/self/mountinfo").read()),
        "left": attempt(lambda: sorted(os.listdir("/tmp")) + sorted(os.listdir("/dev/shm"))),
        "dns": attempt(lambda: socket.getaddrinfo("example.org", 80)),
        "connect": attempt(lambda: socket.create_connection(("127.0.0.1", secrets["port"]), 2)),
        "udp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 53))),
        "ptrace": attempt(lambda: ctypes.CDLL(None).ptrace(16, 1, 0, 0)),
        "shell": attempt(lambda: subprocess.run(["cat", *secrets["paths"]], capture_output=True).stdout),
        "write": attempt(lambda: open("/data/mark", "w")),
        "rewrite": attempt(lambda: open("/app/pyproject.toml", "a")),
    }
    for number, path in enumerate(secrets["paths"]):
        found[f"path {number}"] = attempt(lambda: os.listdir(path) if os.path.isdir(path) else open(path, "rb").read())
    for place in ("/tmp", "/dev/shm"):
        attempt(lambda: open(f"{place}/left-by-a-job", "w").write("x"))
    return found
"""


@pytest.fixture(scope="module")
def secrets(consortium: Consortium) -> dict[str, Any]:
    """What the spies look for: paths that really are there, and a port that really answers."""
    mill, other = consortium.mill("a"), consortium.mill("b")
    paths = [
        *(mill.home / part for part in ("keys/statement.key", "identity.json", "store.db", "ledger")),
        consortium.records(mill),
        consortium.records(other),
        other.home / "keys" / "statement.key",
        consortium.institute.home / "keys" / "statement.key",
        consortium.institute.home / "keys" / "root.key",
        consortium.institute.home,
    ]
    assert all(path.exists() for path in paths)
    address = consortium.institute.ok("consortium", "roster").json["members"][0]["address"]
    port = int(address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
    return {"paths": [str(path) for path in paths], "port": port}


def _nothing(found: dict[str, Any], secrets: dict[str, Any]) -> None:
    for number, path in enumerate(secrets["paths"]):
        assert found[f"path {number}"].startswith("refused"), f"{path}: {found[f'path {number}']}"
    for act in ("dns", "connect", "udp", "write", "rewrite"):
        assert found[act].startswith("refused"), f"{act}: {found[act]}"
    assert found["shell"] == "b''" or found["shell"].startswith("refused"), found["shell"]
    assert found["ptrace"] == "-1" or found["ptrace"].startswith("refused"), found["ptrace"]
    assert found["left"] == "[]", "another job's files are there"
    assert socket.gethostname() not in (found["host"], found["uname"])
    assert SECRET_NAME not in found["environment"]
    seen = as_text({key: value for key, value in found.items() if not key.startswith("path")})
    for text in ("mill-a", "mill-b", "institute", "popen-gw", "KEYONG_HOME"):
        assert text not in seen, f"{text} in {seen}"
    seen = found["processes"]
    assert seen.startswith("refused") or int(seen) < 8, "it sees processes that are not its own"


def test_inv3_inv4_a_client_part_that_spies(consortium: Consortium, secrets: dict[str, Any], tmp_path: Path) -> None:
    body = f"""
    if len(y) == 200:
        found = spy(json.loads({json.dumps(secrets)!r}))
        found["node config"] = {{key: str(value) for key, value in context.node_config.items()}}
        print("FOUND", json.dumps(found), flush=True)
        raise ValueError(json.dumps(found))
    return reply(message, w, good)
    """
    app = write_app(tmp_path / "app", client=client_that(body, before=SPY), name="linear")
    for _ in range(2):  # the second time it looks for what the first has left
        run = consortium.submit(app, least=2)
        assert run.status == "done", run.events
        assert run.fallen == {"mill-a": "app-exception"}
        told = as_text(run.events)
        assert "FOUND" not in told and "environment" not in told, "what it printed or raised came out"
        logs = consortium.logs(consortium.mill("a"), run.job)
        (text,) = [line for line in logs["stdout"].splitlines() if line.startswith("FOUND")]
        _nothing(json.loads(text.removeprefix("FOUND ")), secrets)
        assert "ValueError" in logs["stderr"], "the owner sees what it raised"
    folder = tmp_path / "result"
    consortium.institute.ok("job", "result", run.job, "-o", folder)
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"FOUND" not in path.read_bytes(), f"{path} holds what the client part printed"


SPYING_SERVER = """
    found = spy(json.loads(SECRETS))
    found["nodes"] = [int(node) for node in grid.get_node_ids()]
    with open("found.json", "w") as file:
        json.dump(found, file)
    strategy = strategies.FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
"""


def test_inv4_a_server_part_that_spies(consortium: Consortium, secrets: dict[str, Any], tmp_path: Path) -> None:
    server = server_with("None", before=SPY).replace("    strategy = None\n", SPYING_SERVER)
    app = write_app(tmp_path / "app", server=server.replace("SECRETS", repr(json.dumps(secrets))))
    run = consortium.submit(app)
    assert run.status == "done", run.events
    folder = tmp_path / "result"
    consortium.institute.ok("job", "result", run.job, "-o", folder)
    (path,) = folder.rglob("found.json")
    found = json.loads(path.read_text())
    assert len(found["nodes"]) == 3
    found["left"] = found["left"].replace("'found.json'", "")
    _nothing(found, secrets)


QUERY = 'Message(RecordDict({"q": ConfigRecord({"a": 1})}), dst_node_id=node, message_type="query")'
ONE_MORE = (
    'Message(RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(4) + number)}), "config": ConfigRecord({})}), '
    'dst_node_id=node, message_type="train")'
)


@pytest.mark.parametrize(
    ("message", "nodes"),
    [(QUERY, "nodes"), (ONE_MORE, "nodes"), (ONE_MORE, "nodes[:1]")],
    ids=["a query", "a content for each node", "one node alone"],
)
def test_inv5_a_server_part_that_asks_more(consortium: Consortium, tmp_path: Path, message: str, nodes: str) -> None:
    asking = f"""
    nodes = list(grid.get_node_ids())
    messages = [{message} for number, node in enumerate({nodes})]
    for answer in grid.send_and_receive(messages):
        print("GOT", answer.content)
    return
    strategy = strategies.FedAvg()
"""
    server = server_with("None", before="from flwr.app import Message").replace("    strategy = None\n", asking)
    app = write_app(tmp_path / "app", server=server, outputs=OUTPUTS)
    before = {mill.name: len(consortium.entries(mill, "intent")) for mill in consortium.mills}
    run = consortium.submit(app)
    assert run.status == "failed", run.events
    after = {mill.name: len(consortium.entries(mill, "intent")) for mill in consortium.mills}
    assert before == after, "a node was asked"
