"""What a session keeps in its page tables once its code is loaded, for a kill has to give all of it back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOOK = """
import json, re, sys
import numpy
from federation.jobs.memory import settle

def tables():
    text, found = open("/proc/self/smaps").read(), [0, 0]
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text)[1:]:
        field = lambda name: int(re.search(rf"(?m)^{name}: *(\\d+) kB", part)[1])
        if "numpy" in part.split("\\n")[0]:
            found[0] += field("Rss") - field("Anonymous")
            found[1] += field("Anonymous")
    return found

numpy.linalg.inv(numpy.eye(3))
before = tables()
if "settle" in sys.argv:
    settle()
after = tables()
right = numpy.linalg.inv(numpy.diag([2.0, 4.0])).tolist()
print(json.dumps({"before": before, "after": after, "right": right}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page tables are read from Linux's /proc")
@pytest.mark.parametrize("settled", [True, False])
def test_code_that_ran_once_leaves_the_page_tables_and_what_was_written_stays(settled: bool) -> None:
    """Kilobytes of libraries' files, and of what is the process's own of them, before and after."""
    command = [sys.executable, "-c", LOOK, *(["settle"] if settled else [])]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    (files, own), (left, kept) = found["before"], found["after"]
    assert kept >= own, "addresses that the linker wrote are in no file"
    assert own > 0
    assert files > 1000
    assert (left < files / 4) is settled
    assert found["right"] == [[0.5, 0.0], [0.0, 0.25]], "its code is read again where it is used"
