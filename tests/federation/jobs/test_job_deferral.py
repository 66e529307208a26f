"""torch's compiler is imported by who compiles, and is then torch's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
TRAINS = """
import sys
from keyong_job.deferral import defer_compiler
defer_compiler()
defer_compiler()
import torch
def step():
    model = torch.nn.Linear(2, 1)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(3, 2)).sum().backward()
    optimiser.step()
    optimiser.load_state_dict(optimiser.state_dict())
step()
assert "sympy" not in sys.modules and len([name for name in sys.modules if name.startswith("torch._dynamo")]) == 1
"""
COMPILES = """
seen = []
def backend(graph, inputs):
    seen.append(graph)
    return graph.forward
@torch._compile._disable_dynamo
def kept_off(x):
    return x * 3
kept_off(torch.ones(2))
held = torch._dynamo
"""
USES = {
    "compile": "compiled = torch.compile(lambda x: kept_off(x + 1) + 1, backend=backend)",
    "submodule": """
import torch._dynamo.config
torch._dynamo.config.suppress_errors
compiled = held.optimize(backend)(lambda x: kept_off(x + 1) + 1)
""",
    "attribute": "compiled = held.optimize(backend)(lambda x: kept_off(x + 1) + 1)",
    "from": "from torch._dynamo import optimize; compiled = optimize(backend)(lambda x: kept_off(x + 1) + 1)",
}
COMPILED = """
assert compiled(torch.ones(2)).tolist() == [7, 7]
assert type(held).__name__ == "module" and held is sys.modules["torch._dynamo"]
assert held.graph_break.__module__ == "torch._dynamo.decorators"
assert len(seen) == 2 and not any("mul" in str(graph.code) for graph in seen), "what is kept off was compiled"
step()
"""


def run(runtime: Path, program: str) -> None:
    env = os.environ | {"PYTHONPATH": str(runtime), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_training_imports_no_compiler(runtime: Path) -> None:
    run(runtime, TRAINS)
    with pytest.raises(AssertionError, match="AssertionError"):
        run(runtime, TRAINS.replace("defer_compiler()\n", ""))


@pytest.mark.long
@pytest.mark.parametrize("use", USES)
def test_who_compiles_has_the_real_one(runtime: Path, use: str) -> None:
    run(runtime, TRAINS + COMPILES + USES[use] + COMPILED)
