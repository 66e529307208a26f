"""A test's port stays its own: what runs side by side takes none from another."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests import ports

TREE = Path(__file__).resolve().parents[2]
ASK = """
import secrets, sys
from tests import ports
drawn = secrets.randbelow
ports.secrets.randbelow = lambda count, first=[int(sys.argv[1]) - ports._FIRST]: first.pop() if first else drawn(count)
if sys.argv[2] == "unheld":
    ports._hold = lambda port: None
print(ports.own_port())
"""


def _another_process_draws(port: int, form: str) -> int:
    asked = [sys.executable, "-c", ASK, str(port), form]
    return int(subprocess.run(asked, cwd=TREE, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_a_port_is_none_that_the_system_hands_out_and_no_other_process_gets_it() -> None:
    handed_out = ports._handed_out()
    mine = ports.own_port()
    assert mine not in handed_out
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        assert any_port.getsockname()[1] in handed_out
    assert _another_process_draws(mine, "held") != mine
    assert _another_process_draws(mine, "unheld") == mine, "nobody listens on it: without the name it would be taken"
