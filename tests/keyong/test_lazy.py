"""The command starts fast, and the base installation can verify: nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keyong.conftest import Run

HEAVY = (
    "grpc",
    "duckdb",
    "sqlmodel",
    "sqlalchemy",
    "torch",
    "flwr",
    "numpy",
    "pandas",
    "pyarrow",
    "packaging",
    "alembic",
)
SEEN = """
import sys
from keyong.cli import run
code = run(sys.argv[2:])
print(",".join(sorted(name for name in sys.argv[1].split(",") if name in sys.modules)), file=sys.stderr)
sys.exit(code)
"""
BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from keyong.cli import run
sys.exit(run(sys.argv[2:]))
"""


def _python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, ",".join(HEAVY), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ),
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [["--help"], ["verify", "--help"], ["job", "run", "--help"], ["node", "serve", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    ran = _python(SEEN, *arguments)
    assert ran.returncode == 0
    assert ran.stderr.strip() == ""
    assert "pydantic" not in ran.stderr


def test_verify_runs_on_the_base_installation(founder: Path, fingerprint: str) -> None:
    ran = _python(BLOCKED, "verify", founder, "--root", fingerprint)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].startswith("integrity     intact")


def test_a_command_that_needs_more_says_what_to_install(founder: Path) -> None:
    ran = _python(BLOCKED, "--home", founder, "catalog", "list")
    assert ran.returncode == 2
    assert "pip install 'keyong[node]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_completion_knows_commands_and_options(keyong: Run) -> None:
    environment = {
        **os.environ,
        "_KEYONG_COMPLETE": "complete_bash",
        "COMP_WORDS": "keyong agreement re",
        "COMP_CWORD": "2",
    }
    program = "import sys; sys.argv[0] = 'keyong'; from keyong.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert {"request", "revoke"} <= set(ran.stdout.replace("plain,", "").split()), ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("service", "absent"),
    [
        ("enterprise_node.service", {"duckdb", "pyarrow", "pandas", "torch", "flwr", "tenseal"}),
        ("coordinator.service", {"duckdb", "pyarrow", "pandas", "torch", "flwr", "tenseal", "enterprise_node"}),
    ],
)
def test_a_service_at_rest_holds_nothing_that_jobs_alone_need(service: str, absent: set[str]) -> None:
    program = f"import sys, {service}; print(*sorted(set(sys.modules) & set(sys.argv[1].split(','))))"
    ran = subprocess.run(
        [sys.executable, "-c", program, ",".join(absent)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == []
