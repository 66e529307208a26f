"""The README's second page, run as it stands: every command, in order, as a new user would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import own_port

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0


def walk() -> list[str]:
    """The page's command lines; listings of files left out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = text[text.index("## Your own consortium") : text.index("### When it refuses")]
    page = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^    ((?:keyong|python3) .*)$", page, re.MULTILINE)
    return [re.sub(r"\s+#.*$", "", line) for line in lines]


class Walker:
    """One user's shell: a home directory of its own, and what the commands printed so far."""

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self._port = str(own_port())
        self._stack = stack
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, "HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "KEYONG_LANG": "en"}
        self._environment.pop("KEYONG_HOME", None)
        self.fingerprint = self.job = ""
        self.offers: list[str] = []

    def follow(self, line: str) -> None:
        line = line.replace("127.0.0.1:7443", f"127.0.0.1:{self._port}").replace("sha256:…", self.fingerprint)
        line = line.replace("JOB", self.job)
        if line.endswith(" serve"):
            self._serve(line)
        elif line.endswith(" ID"):
            for offer in self.offers:
                self._run(line.removesuffix("ID") + offer)
        else:
            # A person answers at a terminal; nobody sits at this one.
            self._remember(line, self._run(f"{line} --yes" if " job run " in line else line))

    def _remember(self, line: str, said: str) -> None:
        if " consortium init " in line:
            self.fingerprint = re.findall(r"sha256:[0-9a-f]{64}", said)[0]
        elif line.endswith(" inbox"):
            self.offers = re.findall(r"^([0-9a-f]{8})  offer", said, re.MULTILINE)
        elif " job run " in line:
            self.job = re.findall(r"submitted as job ([0-9a-f]{8})", said)[0]

    def _run(self, line: str) -> str:
        done = subprocess.run(
            line, shell=True, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def _serve(self, line: str) -> None:
        process = subprocess.Popen(
            f"exec {line}", shell=True, cwd=ROOT, env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._stack.callback(self._end, process)
        wanted = "ready" if " coordinator " in line else "attached"
        heard, said = threading.Event(), []

        def listen() -> None:
            assert process.stdout is not None
            for text in process.stdout:
                said.append(text)
                if text.startswith(wanted):
                    heard.set()

        threading.Thread(target=listen, daemon=True).start()
        assert heard.wait(SECONDS), f"{line}\n{''.join(said)}"

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


@pytest.fixture
def walker(tmp_path: Path) -> Iterator[Walker]:
    doctor = subprocess.run([sys.executable, "-m", "keyong.cli", "doctor", "--offline"], capture_output=True, text=True)
    if doctor.returncode:
        pytest.skip(f"jobs cannot run on this machine:\n{doctor.stdout}")
    with contextlib.ExitStack() as stack:
        yield Walker(tmp_path, stack)


def test_the_walk_as_it_stands(walker: Walker, tmp_path: Path) -> None:
    for line in walk():
        walker.follow(line)
    assert len(walker.offers) == 3
    coefficients = [float(text) for text in (tmp_path / "result/output/coefficients.txt").read_text().split()]
    assert coefficients == pytest.approx([2.5, 1.2, 0.3], abs=0.1)
    assert (tmp_path / "result" / "model.safetensors").stat().st_size > 0
