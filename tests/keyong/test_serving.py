"""Real processes: a coordinator and a node that serve, a member that joins, agreements made and ended, a refusal."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from tests.keyong.conftest import Process, Run

Serve = Callable[..., Process]
PROJECT = """
[project]
name = "lin"
version = "0.1.0"
[tool.flwr.app.components]
serverapp = "lin:server"
clientapp = "lin:client"
[tool.flwr.app.config]
num-server-rounds = 1
[tool.keyong.outputs.train]
arrays = "sent"
metrics = ["train_loss"]
"""


def test_a_port_in_use_is_said_to_be(keyong: Run, founder: Path, runtimes: Path, isolating: None) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        ran = keyong("--home", founder, "coordinator", "serve", "--listen", address)
    assert ran.code == 5
    assert f"cannot listen on {address}" in ran.err


def test_port_0_prints_the_port_and_sigterm_ends_it_gracefully(founder: Path, serve: Serve, isolating: None) -> None:
    process = serve("--home", founder, "coordinator", "serve", "--listen", "127.0.0.1:0")
    ready = process.wait_for("ready")
    assert set(ready) == {"event", "member", "host", "port"}
    with socket.create_connection(("127.0.0.1", ready["port"]), timeout=30):
        pass
    assert process.end() == 0


def test_an_invitation_works_once(keyong: Run, joined: Path, tmp_path: Path) -> None:
    ran = keyong("--home", tmp_path / "second", "join", tmp_path / "mill-a.invitation")
    assert ran.code != 0
    assert "used before" in ran.err
    assert not (tmp_path / "second" / "identity.json").exists()


def test_from_a_dataset_to_a_refused_job(
    keyong: Run, founder: Path, joined: Path, passes: Path, serve: Serve, runtimes: Path, tmp_path: Path
) -> None:
    add = ("node", "dataset", "add", "passes", passes, "--title", "Passes", "--title-zh", "轧制道次")
    assert keyong("--home", joined, *add).code == 0
    assert keyong("--home", joined, "peers", "accept", "--all").code == 0
    node = serve("--home", joined, "node", "serve")
    node.wait_for("ready")
    node.wait_for("attached")

    status = keyong("--home", founder, "coordinator", "status", "--format", "json").json
    assert status["online"] == ["mill-a"]
    (entry,) = keyong("--home", founder, "catalog", "list", "--search", "轧制", "--format", "json").json
    assert (entry["provider"], entry["dataset"], entry["online"]) == ("mill-a", "passes", True)
    assert keyong("--home", founder, "catalog", "list", "--search", "nothing", "--format", "json").json == []
    ran = keyong("--home", founder, "catalog", "show", "mill-a/absent")
    assert ran.code == 2 and "publishes no dataset absent" in ran.err

    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (app / "lin.py").write_text("", encoding="utf-8")
    ran = keyong("--home", founder, "job", "run", app, "--purpose", "fed:Research")
    assert ran.code == 3 and "no agreement is in force" in ran.err

    clauses = ("--purpose", "fed:ProcessOptimization", "--count", "1", "--expires", "1d", "--app", app)
    terms = ("--to", "inst", "--dataset", "passes", "--protection", "none", "--action", "train")
    ran = keyong("--home", joined, "agreement", "offer", *terms, *clauses, "--column", "nope")
    assert ran.code == 2 and "has no column nope" in ran.err
    offered = keyong("--home", joined, "agreement", "offer", *terms, *clauses, "--format", "json").json
    assert offered["state"] == "offered"
    (waiting,) = keyong("--home", founder, "inbox", "--format", "json").json["offers"]
    assert waiting["id"] == offered["id"]
    signed = keyong("--home", founder, "agreement", "sign", waiting["id"], "--format", "json").json
    assert signed["state"] == "in-force"
    shown = keyong("--home", founder, "agreement", "show", waiting["id"], "--lang", "zh")
    assert "生效中" in shown.out and "更新也可以不加保护地离开" in shown.out

    run = ("job", "run", app, "--purpose", "fed:Marketing", "--action", "train")
    ran = keyong("--home", founder, *run)
    assert ran.code == 2 and "--yes" in ran.err, "nobody is there to be asked"
    said = ran.err.index("the agreement over mill-a/passes does not permit the purpose fed:Marketing")
    assert said < ran.err.index("the plan"), "the more fundamental first"
    assert keyong("--home", founder, "job", "list", "--format", "json").json == [], "nothing was signed"
    run += ("--yes",)
    ran = keyong("--home", founder, *run)
    assert ran.code == 3, ran.err
    assert "UNPROTECTED" in ran.err
    assert "mill-a refused (purpose): the agreement does not permit the purpose fed:Marketing" in ran.err
    rows = keyong("--home", founder, *run, "--format", "json").lines
    assert (rows[0]["event"], rows[-1]["event"], rows[-1]["exit"]) == ("plan", "end", 3)
    assert rows[-1]["refusals"][0]["code"] == "purpose"
    job = rows[-1]["job"]
    assert job in [one["job"] for one in keyong("--home", founder, "job", "list", "--format", "json").json]
    events = keyong("--home", founder, "job", "show", job, "--format", "json").json["events"]
    assert [one["kind"] for one in events] == ["denied", "denied"]
    kinds = [one["kind"] for one in keyong("--home", founder, "ledger", "show", "--format", "json").json]
    assert kinds.count("plan") == kinds.count("result") == 2

    other = runtimes / "other"
    (other / "site-packages").mkdir(parents=True)
    manifest = (runtimes / "torch" / "manifest.json").read_text(encoding="utf-8")
    (other / "manifest.json").write_text(manifest.replace("777", "888"), encoding="utf-8")
    ran = keyong("--home", founder, *run, "--runtime", "other")
    assert ran.code == 3 and "another runtime than the coordinator's" in ran.err

    assert keyong("--home", joined, "agreement", "revoke", waiting["id"], "--reason", "over").code == 0
    listed = keyong("--home", joined, "agreement", "list", "--all", "--format", "json").json
    assert [one["state"] for one in listed] == ["revoked"]
    assert node.end() == 0


def test_a_request_waits_in_the_owner_s_inbox(
    keyong: Run, founder: Path, joined: Path, passes: Path, serve: Serve
) -> None:
    assert keyong("--home", joined, "node", "dataset", "add", "passes", passes, "--title", "Passes").code == 0
    serve("--home", joined, "node", "serve").wait_for("attached")
    clauses = ("--purpose", "fed:Research", "--count", "1", "--expires", "30d")
    asked = keyong("--home", founder, "agreement", "request", "mill-a/passes", *clauses, "--format", "json").json
    assert asked["state"] == "requested"
    (waiting,) = keyong("--home", joined, "inbox", "--format", "json").json["requests"]
    assert waiting["id"] == asked["id"]


def test_removal_cuts_the_link(keyong: Run, founder: Path, joined: Path, passes: Path, serve: Serve) -> None:
    node = serve("--home", joined, "node", "serve")
    node.wait_for("attached")
    assert keyong("--home", founder, "consortium", "remove", "mill-a").code == 0
    assert node.wait_for("detached")["member"] == "mill-a"
