"""What a service that was killed while it started a session left behind is found and ended, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from sandbox import end_orphans

WORDS = ["bwrap", "--info-fd", "9", "--args", "8", "--", "/usr/bin/python3", "-I", "-S", "/sandbox/launch.pyc"]


def proc(folder: Path, parent: str, words: list[str]) -> Path:
    """A table of processes with one orphan-to-be in it, number 77, and its parent."""
    for number, comm in (("77", "bwrap"), ("1", parent)):
        (folder / number).mkdir(parents=True)
        (folder / number / "comm").write_text(comm + "\n")
    (folder / "77" / "stat").write_text("77 (bwrap) S 1 77 77 0\n")
    (folder / "77" / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    return folder


@pytest.mark.parametrize(
    ("parent", "words", "orphan"),
    [
        ("init", WORDS, True),
        ("systemd", WORDS, True),
        ("python3", WORDS, False),
        ("keyong", WORDS, False),
        ("init", [*WORDS[:-1], "/app/main.py"], False),
        ("init", ["bwrap", "--ro-bind", "/", "/", "/sandbox/launch.py"], False),
        ("init", ["cat", *WORDS[1:]], False),
    ],
)
def test_what_is_an_orphan(tmp_path: Path, parent: str, words: list[str], orphan: bool) -> None:
    from sandbox.orphans import _is_orphan

    table = proc(tmp_path / "proc", parent, words)
    assert _is_orphan(table / "77", table) is orphan


def test_another_users_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.orphans import _is_orphan

    table = proc(tmp_path / "proc", "init", WORDS)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert not _is_orphan(table / "77", table)


def test_one_is_ended(tmp_path: Path) -> None:
    """A process of ours that waits; the table says that it is an orphan."""
    with subprocess.Popen(["sleep", "600"]) as waiting:
        table = proc(tmp_path / "proc", "init", WORDS)
        (table / "77").rename(table / str(waiting.pid))
        assert end_orphans(table) == 1
        assert waiting.wait(10) == -signal.SIGKILL
        assert end_orphans(table) == 0, "it is gone"
