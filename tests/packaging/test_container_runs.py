"""Both tiers within real containers: `make container`. The base is made from a package mirror, for no image is pulled."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox._own_uid import CAPABILITIES

ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix)
SECCOMP = f"--security-opt=seccomp={ROOT}/deploy/seccomp.json"
ORDINARY = ("--user=10001", "--cap-drop=ALL")
T2 = (
    *ORDINARY,
    "--read-only",
    "--tmpfs=/tmp",
    "--security-opt=no-new-privileges",
    SECCOMP,
    "--security-opt=unmask=ALL",
)
FEW = ("--user=0", "--cap-drop=ALL", f"--cap-add={','.join(CAPABILITIES)}")
CANARY = "from sandbox import *; r = run_canary(tier=Tier.{tier}); print(len(r.acts), r.evidence.tier)"

pytestmark = pytest.mark.skipif(
    not os.environ.get("KEYONG_CONTAINERS"), reason="takes minutes, podman and a package mirror: make container"
)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A root file system; KEYONG_CONTAINER_BASE names one that is there."""
    given = os.environ.get("KEYONG_CONTAINER_BASE")
    if given:
        yield Path(given)
        return
    place = Path(f"/var/tmp/keyong-base-{secrets.token_hex(4)}")
    packages = "--include=python3,bubblewrap"
    options = ["--variant=minbase", '--aptopt=APT::Sandbox::User "root"', packages]
    environment = {**os.environ, "TMPDIR": "/var/tmp"}
    subprocess.run(["mmdebstrap", *options, "bookworm", str(place)], env=environment, check=True, capture_output=True)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def contained(base: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    def run(options: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
        places = [f"--volume={place}:{place}:ro" for place in (ROOT, VENV.resolve())]
        bounds = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--network=none"]
        environment = [f"--env=PYTHONPATH={ROOT}", "--env=PYTHONDONTWRITEBYTECODE=1", "--env=KEYONG_HOME=/tmp/none"]
        runtime = ["--runtime", "runc"] if shutil.which("runc") else []
        podman = ["podman", "--cgroup-manager=cgroupfs", *runtime, "run", "--rm", *bounds, *places, *environment]
        python = str(VENV.resolve() / "bin/python")
        whole = [*podman, *options, "--rootfs", f"{base}:O", python, *command]
        return subprocess.run(whole, capture_output=True, text=True, timeout=300, check=False)

    yield run


def doctor(contained: Callable[..., Any], options: tuple[str, ...]) -> dict[str, Any]:
    done = contained(options, "-m", "keyong", "doctor", "--format", "json")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize(
    ("options", "tier"), [(T2, "T2"), (("--user=0",), "T1"), (FEW, "T1")], ids=["T2", "T1", "T1-few"]
)
def test_the_canary_is_clean(contained: Callable[..., Any], options: tuple[str, ...], tier: str) -> None:
    done = contained(options, "-c", CANARY.format(tier=tier))
    assert done.stdout.split()[1:] == [tier], done.stderr
    found = doctor(contained, options)
    assert (found["tiers"], found["container"]) == ([tier], "podman")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (tuple(option for option in T2 if option != SECCOMP), "Can't set hostname"),
        (tuple(option for option in T2 if "unmask" not in option), "Can't mount proc"),
        (("--user=0", "--cap-drop=KILL"), "KILL"),
    ],
    ids=["no-profile", "covered-proc", "no-kill"],
)
def test_each_option_is_needed_and_its_lack_is_told(
    contained: Callable[..., Any], options: tuple[str, ...], word: str
) -> None:
    found = doctor(contained, options)
    assert found["tiers"] == []
    isolation = next(one for one in found["findings"] if one["name"] == "isolation")
    assert not isolation["ok"]
    assert word in isolation["fix"]
    assert any("seccomp" in option for option in found["container_options"])


def test_t1_is_no_floor_that_nobody_accepted(contained: Callable[..., Any]) -> None:
    found = doctor(contained, ("--user=0",))
    assert (found["ok"], found["floor"], found["tiers"]) == (False, "T2", ["T1"])
