"""What others hear of how a step ended: eight outcomes whatever job code does; and no pickle anywhere near a reply."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest

from enterprise_node import steps
from enterprise_node.outcomes import APP_FAILED, INTERNAL, LIMIT_REACHED, NOT_RELEASED, OUTPUT_REFUSED, VISIBLE, visible
from enterprise_node.output_gate import OutputRefusedError
from enterprise_node.session import REFUSALS, JobFailedError
from federation.errors import KeyongError
from federation.secagg import OUTCOME_BITS, EncodingError

ROOT = Path(__file__).resolve().parents[2]
TRUSTED = ("coordinator", "enterprise_node", "federation", "keyong", "sandbox")
EXECUTES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "torch"}
"""Modules that run what they read, or that load files by such modules."""
LIMITS = ("limit-memory", "limit-wall", "limit-cpu", "limit-processes", "limit-disk", "limit-output", "limit-inodes")
GATE = ("output-config", "output-dtype", "output-not-finite", "output-metric-range", "output-too-large")


def test_inv3_whatever_job_code_does_is_one_of_eight() -> None:
    failures = [JobFailedError("x", code=code) for code in (*REFUSALS, *LIMITS, "output-too-large", "made-up")]
    refusals = [OutputRefusedError("x", code=code) for code in GATE]  # type: ignore[arg-type]
    told = {visible(error) for error in (*failures, *refusals, EncodingError("x"))}
    assert told | {"", INTERNAL, NOT_RELEASED} == set(VISIBLE)
    assert len(set(VISIBLE)) <= 8 and math.ceil(math.log2(len(VISIBLE))) <= OUTCOME_BITS
    assert visible(JobFailedError("x", code="limit-cpu")) == LIMIT_REACHED
    assert visible(OutputRefusedError("x", code="output-shape")) == OUTPUT_REFUSED
    assert visible(JobFailedError("x", code="out-of-memory")) == "limit-memory"


def test_endings_that_job_code_has_no_hand_in_keep_their_codes() -> None:
    for code in ("dataset-changed", "sandbox-unavailable", "protection-unavailable"):
        assert visible(KeyongError("x", code=code)) == code


ENDINGS = ("app-import", "app-syntax", "out-of-memory", "limit-processes")


async def test_inv3_job_code_that_chooses_how_to_fail_spells_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way to fail was a letter; now they are few, in the receipt and in the reason that later steps are told."""
    seen, without = set(), set()
    for code in ENDINGS:
        for told, through in ((seen, visible), (without, lambda error: error.code)):
            monkeypatch.setattr(steps, "visible", through)

            async def broken(code: str = code) -> Any:
                raise JobFailedError("broken", code=code)

            world.reply = broken
            plan = world.plan(world.agreement())
            await world.open(plan)
            receipt, _ = await world.invoke(plan)
            told.add((receipt.code, world.line.jobs[plan.digest].reason))
            await world.line.close_job(plan.digest)
    assert seen == {(code, code) for code in (APP_FAILED, LIMIT_REACHED, "limit-memory")}
    assert len(without) == len(ENDINGS)  # without the enumeration all of them can be told apart


def test_inv3_no_trusted_process_imports_what_runs_what_it_reads() -> None:
    # The benchmarks' apps are job code: they run in sessions alone.
    apps = {"busy_app", "children_app"}
    paths = [path for package in TRUSTED for path in (ROOT / package).rglob("*.py") if not apps & set(path.parts)]
    found = {str(path.relative_to(ROOT)): executing(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: what for name, what in found.items() if what} == OWN_BYTE_CODE


OWN_BYTE_CODE = {"keyong/runtime.py": ["marshal"], "sandbox/_launcher.py": ["marshal"]}
"""Both handle the byte code of this installation's own modules, nothing that a job wrote."""


def executing(text: str) -> list[str]:
    """What of a module's text would run what it reads."""
    if not any(word in text for word in (*EXECUTES, "np.load", "allow_pickle")):
        return []
    found = []
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found += [name for name in names if name.split(".")[0] in EXECUTES]
        pickles = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
        if pickles and not (isinstance(node.value, ast.Constant) and node.value.value is False):
            found.append("allow_pickle")
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called in ("np.load", "numpy.load") and "allow_pickle" not in {one.arg for one in node.keywords}:  # type: ignore[attr-defined]
            found.append(called)
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from torch import load", ["torch"]),
        ("import numpy as np\nnp.load(x, allow_pickle=True)", ["allow_pickle"]),
        ("import numpy as np\nnp.load(x)", ["np.load"]),
        ("import numpy as np\nnp.load(x, allow_pickle=False)", []),
    ],
)
def test_that_search_finds_what_it_looks_for(text: str, found: list[str]) -> None:
    assert executing(text) == found


PICKLED = """
import pickle
import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

class Bomb:
    def __reduce__(self):
        return print, ("the trusted process ran what job code wrote",)

@app.train()
def train(msg, context):
    array = Array(np.array([Bomb(), Bomb()], dtype=object)) if MODE == "object" else Array(
        dtype="object", shape=(2,), stype="numpy.ndarray", data=pickle.dumps(Bomb()))
    return Message(RecordDict({"arrays": ArrayRecord({"0": array})}), reply_to=msg)
"""


@pytest.mark.parametrize("mode", ["object", "raw"])
async def test_inv3_a_real_reply_that_holds_a_pickle_is_refused_and_never_loaded(
    real: Any, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    real.bundle.files["app/client.py"] = PICKLED.replace("MODE", repr(mode)).encode()
    plan = real.plan(real.agreement())
    await real.open(plan)
    try:
        receipt, answer = await real.invoke(plan)
    finally:
        await real.line.close()
    assert (receipt.outcome, answer.body) == ("failed", ()) and receipt.code in (APP_FAILED, OUTPUT_REFUSED)
    assert "ran what job code wrote" not in "".join(capfd.readouterr())
