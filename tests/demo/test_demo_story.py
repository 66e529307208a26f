"""The demo, played in Chinese with a short training: every act happens, every refusal is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from federation.errors import UnavailableError
from keyong import runtime

ROOT = Path(__file__).resolve().parents[2]


def _ready() -> None:
    try:
        runtime.check()
    except UnavailableError as error:
        pytest.skip(f"the runtime is needed: {error}")


def _keyong(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KEYONG_HOME": str(home), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "keyong", *arguments],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=420, check=False,
    )  # fmt: skip


@pytest.mark.long  # `make demo` is the same, and each of its acts has a test of its own
@pytest.mark.timeout(450)
@pytest.mark.xdist_group("demo")
def test_the_whole_story(tmp_path: Path) -> None:
    _ready()
    played = _keyong("--lang", "zh", "demo", "--dir", str(tmp_path / "demo"), "--rounds", "2", home=tmp_path / "none")
    assert played.returncode == 0, played.stdout[-2000:] + played.stderr[-2000:]
    assert played.stdout.count("-> exit 3") == 4
    assert played.stdout.count("-> exit 4") == 1
    assert "模拟" in played.stdout  # it says that the records are simulated
    figures = json.loads((tmp_path / "demo" / "figures.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in figures][-2:] == ["federated", "pooled"]
    assert all(0 <= share <= 1 for row in figures for share in row["shares"])


@pytest.mark.long
@pytest.mark.xdist_group("demo")
def test_bench_round_prints_a_figure_with_its_target(tmp_path: Path) -> None:
    _ready()
    ran = _keyong("--format", "json", "bench", "round", "--rounds", "21", "--no-compare", home=tmp_path / "none")
    figures = {one["figure"]: one for one in map(json.loads, ran.stdout.splitlines())}
    assert figures["round-seconds"]["target"] == 0.1
    assert figures["round-seconds"]["holds"] is (figures["round-seconds"]["value"] <= 0.1)
    assert ran.returncode == (0 if figures["round-seconds"]["holds"] else 1), ran.stderr
