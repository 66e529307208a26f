"""The wheel, installed with its base dependencies alone and away from the source: an auditor's installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.parties import TREE, Party
from tests.ports import own_port

pytestmark = pytest.mark.long
HEAVY = ("torch", "flwr", "grpc", "tenseal", "duckdb", "pyarrow", "numpy", "sqlmodel", "safetensors")


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean virtual environment with the wheel; returns its folder."""
    folder = tmp_path_factory.mktemp("auditor")
    quiet = ("-q", "--disable-pip-version-check")
    _with_an_index(sys.executable, "-m", "pip", "wheel", *quiet, "--no-deps", "-w", str(folder), str(TREE))
    (wheel,) = folder.glob("keyong-*.whl")
    _run(sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    _with_an_index(str(python), "-m", "pip", "install", *quiet, "-c", str(TREE / "requirements.lock"), str(wheel))
    return folder


def _with_an_index(*command: str) -> None:
    done = _try(*command)
    if done.returncode != 0 and not os.environ.get("CI"):
        pytest.skip("pip cannot do it here, it may lack an index: " + done.stderr.strip()[-300:])
    assert done.returncode == 0, done.stderr


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KEYONG"))}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=240, check=False)


def _run(*command: str) -> str:
    done = _try(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _keyong(auditor: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    home = ("--home", str(auditor / "no-home"), "--lang", "en")
    return _try(str(auditor / "venv" / "bin" / "keyong"), *home, *arguments)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A history in a file, and the root fingerprint."""
    folder = tmp_path_factory.mktemp("founder")
    founder = Party(folder, "founder")
    address = f"127.0.0.1:{own_port()}"
    founder.ok(
        "consortium", "init", "--name", "One", "--member", "founder", "--entity", "Founder Ltd", "--address", address
    )
    founder.ok("ledger", "export", folder / "founder.export")
    return folder / "founder.export", founder.ok("whoami").json["consortium"]["fingerprint"]


def test_verify_needs_the_base_alone(auditor: Path, export: tuple[Path, str]) -> None:
    path, fingerprint = export
    done = _keyong(auditor, "--format", "json", "verify", str(path), "--root", fingerprint)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["integrity"]["holds"] is True
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    changed = path.with_suffix(".changed")
    changed.write_bytes(data)
    done = _keyong(auditor, "verify", str(changed), "--root", fingerprint)
    assert done.returncode == 4 and "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_nothing_heavy_is_installed_or_imported(auditor: Path, export: tuple[Path, str]) -> None:
    path, fingerprint = export
    text = (
        "import sys, importlib.util\n"
        "from keyong.cli import run\n"
        f"code = run(['--home', '/nonexistent', 'verify', {str(path)!r}, '--root', {fingerprint!r}])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules or importlib.util.find_spec(name)]\n"
        "sys.exit(f'exit {code}, heavy {heavy}' if code or heavy else 0)\n"
    )
    done = _try(str(auditor / "venv" / "bin" / "python"), "-c", text)
    assert done.returncode == 0, done.stderr
    place = _run(str(auditor / "venv" / "bin" / "python"), "-c", "import keyong; print(keyong.__file__)")
    assert str(TREE) not in place, "it runs from the source"


def test_doctor_says_what_is_missing(auditor: Path) -> None:
    done = _keyong(auditor, "doctor", "--offline")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "keyong[node]" in done.stdout and "Traceback" not in done.stderr, done.stdout + done.stderr


def test_a_command_that_needs_more_names_the_extra(auditor: Path) -> None:
    done = _keyong(auditor, "node", "serve")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "keyong[node]" in done.stderr or "no identity" in done.stderr, done.stderr
