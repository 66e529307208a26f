"""How a followed job is told and which exit code its end has."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.exchange import JobDeniedError
from coordinator.scheduler import told
from federation.statements import DecisionRecord
from federation.wire.messages import Event
from keyong.asking import QueryEndedError, _ended
from keyong.cli import _state
from keyong.cli._following import Course, conclude, follow
from keyong.cli._refusals import CODES
from keyong.cli._words import why
from keyong.text import Said, explain, speak, speaking

JOB = "urn:uuid:00000000-0000-4000-8000-000000000001"
CLAUSE = {
    "permit": False,
    "agreement": "",
    "rule": "purpose",
    "constraints": [
        {
            "operand": "odrl:purpose",
            "operator": "isA",
            "right": "fed:ProcessOptimization",
            "left": "fed:Marketing",
            "satisfied": False,
            "note": "",
        }
    ],
}


def _follow(*events: tuple[str, dict[str, Any]]) -> Course:
    listed = [
        Event(number=n, time="2026-01-01T00:00:00Z", kind=kind, data=data) for n, (kind, data) in enumerate(events)
    ]
    client: Any = SimpleNamespace(events=lambda job, after: iter(listed))
    return follow(client, JOB, 2)


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("done", {}, 0),
        ("denied", {"code": "job-denied"}, 3),
        ("failed", {"code": "too-few-participants", "exit": 5}, 5),
        ("failed", {"code": "receipt", "exit": 4}, 4),
        ("failed", {"code": "internal"}, 1),
        ("failed", {"code": "odd", "exit": 77}, 1),
        ("cancelled", {}, 5),
        ("interrupted", {}, 5),
    ],
)
def test_exit_codes(kind: str, data: dict[str, Any], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    _state.prepare([])
    assert conclude(_follow((kind, data)), JOB, "fed:masked") == code


@pytest.mark.parametrize(
    ("data", "english", "chinese"),
    [
        ({"reason": "cancelled by the requester"}, "cancelled by the requester", "由使用方取消"),
        (
            told(JobDeniedError("nodes refused this plan ({reasons})", reasons="mill-a: purpose")),
            "nodes refused this plan (mill-a: purpose)",
            "节点已拒绝该计划（mill-a: purpose）",
        ),
        ({"reason": "of another release", "said": {"reason": "of {another} release"}}, *["of another release"] * 2),
        (
            {"reason": "nodes refused", "said": {"reason": "nodes refused this plan ({reasons})"}},
            *["nodes refused"] * 2,
        ),
        ({"reason": "odd", "said": {"reason": "{0.__class__}", "params": 7}}, "odd", "odd"),
    ],
)
def test_why_a_job_ended_is_said_in_the_language_spoken(data: dict[str, Any], english: str, chinese: str) -> None:
    assert why(data)[0] == english
    error = QueryEndedError("the query was not answered: {reason}", reason=Said(data))
    with speaking("zh"):
        assert why(data)[0] == chinese
        assert explain(error)[0] == f"查询未得到回答：{chinese}"
    assert error.message == f"the query was not answered: {data['reason']}", "JSON is not translated"


def test_a_node_that_refuses_a_query_says_why_in_words() -> None:
    offline = {"node": "mill-b", "code": "node-offline"}
    error = _ended("denied", {"code": "denied"}, [{"node": "mill-a", "code": "of another release"}, offline])
    sentence, hint = CODES["node-offline"]
    assert error.hint == f"mill-b says: {sentence}; {hint}"
    with speaking("zh"):
        said = explain(error)[1]
    assert said.startswith("mill-b") and sentence not in said and hint not in said
    record = DecisionRecord(permit=False, rule="action").model_dump(mode="json")
    denied = [{"node": "mill-a", "code": "action", "clause": record}]
    assert (
        "mill-a says: the agreement does not permit this action; ask the provider" in _ended("denied", {}, denied).hint
    )
    assert "mill-a: strange" in _ended("denied", {}, [{"node": "mill-a", "code": "strange"}]).hint


def test_a_job_without_an_end_is_no_success() -> None:
    _state.prepare([])
    assert _follow(("started", {"participants": 3})).exit_code == 1


@pytest.mark.parametrize(
    ("language", "sentence"),
    [("en", "does not permit the purpose fed:Marketing"), ("zh", "协议不允许用途 fed:Marketing")],
)
def test_inv7_a_refusal_names_node_clause_and_fix(
    language: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _state.prepare([])
    speak(language)
    course = _follow(
        ("denied", {"node": "mill-a", "code": "purpose", "clause": CLAUSE}), ("denied", {"code": "job-denied"})
    )
    assert conclude(course, JOB, "fed:none") == 3
    error, hint = capsys.readouterr().err.splitlines()
    assert "mill-a" in error and sentence in error
    assert "--purpose" in hint


def test_a_refusal_without_a_clause_is_told_by_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    _state.prepare([])
    course = _follow(("denied", {"node": "mill-a", "code": "agreement-revoked", "clause": {}}), ("denied", {}))
    conclude(course, JOB, "fed:none")
    assert "error: mill-a refused (agreement-revoked): the agreement was revoked" in capsys.readouterr().err


def test_json_is_a_line_for_each_event_and_one_for_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    _state.prepare(["--format", "json"])
    course = _follow(
        ("round", {"round": 1, "stage": "train", "metrics": {"loss": 0.5}}), ("done", {"total_weight": 10})
    )
    conclude(course, JOB, "fed:none")
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [row["event"] for row in rows] == ["round", "done", "end"]
    assert set(rows[0]) == {"event", "job", "time", "data"}
    marks = {"unprotected", "development"}
    assert set(rows[-1]) == {"event", "job", "status", "exit", *marks, "rounds_done", "metrics", "refusals"}
    assert (rows[-1]["unprotected"], rows[-1]["development"]) == (True, False)


def test_inv5_an_unprotected_result_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for language in ("en", "zh"):
        _state.prepare(["--lang", language])
        conclude(_follow(("done", {})), JOB, "fed:none")
        assert "UNPROTECTED" in capsys.readouterr().err
        conclude(_follow(("done", {})), JOB, "fed:masked")
        assert "UNPROTECTED" not in capsys.readouterr().err


def test_inv8_a_job_that_may_run_without_isolation_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for language, word in (("en", "DEVELOPMENT"), ("zh", "开发用途")):
        _state.prepare(["--lang", language])
        for kind in ("started", "resumed"):
            conclude(_follow((kind, {"participants": 1, "development": True}), ("done", {})), JOB, "fed:none")
            assert word in capsys.readouterr().err
        conclude(_follow(("started", {"participants": 1}), ("done", {})), JOB, "fed:none")
        assert word not in capsys.readouterr().err
