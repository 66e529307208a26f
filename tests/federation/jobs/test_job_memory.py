"""What a session keeps in its page tables once its code is loaded, for a kill has to give all of it back."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from federation.jobs.memory import _advised

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


LIBRARY = """\
7f0000000000-7f0000100000 r--p 00000000 fe:00 1                         /usr/lib/a library.so
Size:               1024 kB
Rss:                 512 kB
Anonymous:             {own} kB
Swap:                  {swapped} kB
VmFlags: rd mr mw me
7f0000100000-7f0000200000 r-xp 00100000 fe:00 1                         /usr/lib/a library.so
Size:               1024 kB
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
"""


@pytest.mark.parametrize(("own", "swapped", "dropped"), [(0, 0, True), (4, 0, False), (0, 4, False)])
def test_a_library_that_was_written_to_stays_also_where_what_was_written_is_swapped_out(own, swapped, dropped) -> None:
    """Relocations that are dropped would be read from the file again: without them."""
    advised = [place for place, _, _ in _advised(LIBRARY.format(own=own, swapped=swapped))]
    assert advised == ([0x7F0000000000] if dropped else [])


def test_a_kernel_that_does_not_tell_what_is_swapped_out_has_nothing_dropped() -> None:
    assert list(_advised(re.sub("Swap:.*\n", "", LIBRARY).format(own=0))) == []
