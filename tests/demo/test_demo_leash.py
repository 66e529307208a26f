"""What a story started ends with it, also where nobody can end it in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keyong.demo.leash import ENDED_BY_TERM

ROOT = Path(__file__).resolve().parents[2]
STORY = """
import contextlib, subprocess, sys
from keyong.demo.leash import leash

# A service in a session of its own, started by a command that has ended: nobody's child any more.
START = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=-3, start_new_session=True).pid)"
with leash() if sys.argv[1] == "leashed" else contextlib.nullcontext():
    try:
        print(subprocess.run([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True).stdout, end="", flush=True)
        sys.stdin.read()
    finally:
        print("in order", flush=True)
"""


def _play(form: str, number: int) -> tuple[int, str, int]:
    """Play a story and end it; its exit code, the last that it said, and the process that it started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STORY, form]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as story:
        assert story.stdout is not None
        service = int(story.stdout.readline())
        story.send_signal(number)
        return story.wait(30), story.stdout.read().strip(), service


def _ends(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while (Path("/proc") / str(process)).is_dir():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGKILL, -signal.SIGKILL, ""), (signal.SIGTERM, ENDED_BY_TERM, "in order")],
)
def test_what_a_story_started_ends_with_it(number: int, code: int, said: str) -> None:
    assert (ended := _play("leashed", number))[:2] == (code, said)
    assert _ends(ended[2], 30)


def test_without_the_leash_it_would_not() -> None:
    _, _, service = _play("loose", signal.SIGKILL)
    try:
        assert not _ends(service, 0.5)
    finally:
        os.kill(service, signal.SIGKILL)
