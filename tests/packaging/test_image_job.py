"""A whole job between containers of the images that Containerfile builds, at T2: `make container`.

Nothing is pulled: the base is made from a package mirror. KEYONG_CONTAINER_IMAGES=1 takes the images keyong-node and
keyong-coordinator as they are; KEYONG_BUILD_OPTIONS are further options of `podman build`.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.parties import until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/minimal"
STATE = "/var/lib/keyong"
MILLS = ("mill-a", "mill-b", "mill-c")
OPTIONS = (
    "--cap-drop=ALL",
    "--read-only",
    "--tmpfs=/tmp",
    "--security-opt=no-new-privileges",
    f"--security-opt=seccomp={ROOT}/deploy/seccomp.json",
    "--security-opt=unmask=ALL",
    "--ulimit=nofile=1024:4096",
    "--ulimit=nproc=4096:4096",
)
SUBNET = "10.213.71"
ADDRESS = f"{SUBNET}.2"

pytestmark = pytest.mark.skipif(
    not os.environ.get("KEYONG_CONTAINERS"), reason="builds images, needs podman and a package mirror: make container"
)


def podman(*arguments: str, seconds: float = 300) -> str:
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    done = subprocess.run(
        ["podman", "--cgroup-manager=cgroupfs", *runtime, *arguments],
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"podman {shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.environ.get("KEYONG_CONTAINER_IMAGES"):
        return
    tar = tmp_path_factory.mktemp("base") / "base.tar"
    options = ["--variant=minbase", '--aptopt=APT::Sandbox::User "root"', "--include=ca-certificates"]
    subprocess.run(
        ["mmdebstrap", *options, "bookworm", str(tar)],
        env={**os.environ, "TMPDIR": "/var/tmp"}, check=True, capture_output=True,
    )  # fmt: skip
    podman("import", str(tar), "localhost/keyong-base")
    more = shlex.split(os.environ.get("KEYONG_BUILD_OPTIONS", ""))
    for target in ("node", "coordinator"):
        podman(
            "build", "--build-arg=BASE=localhost/keyong-base", *more, f"--target={target}",
            f"--tag=keyong-{target}", str(ROOT), seconds=1500,
        )  # fmt: skip


@dataclass
class Parties:
    """A coordinator and three nodes, each a container on an internal network with a volume of its own."""

    mark: str = field(default_factory=lambda: secrets.token_hex(3))

    def name(self, party: str) -> str:
        return f"keyong-{self.mark}-{party}"

    def options(self, party: str) -> list[str]:
        place = [f"--ip={ADDRESS}"] if party == "institute" else []
        return [*OPTIONS, f"--network={self.name('net')}", *place, f"--volume={self.name(party)}:{STATE}"]

    def once(self, party: str, *command: str) -> str:
        """What a command says in a container of its own, as long as the party's does not run."""
        return podman("run", "--rm", *self.options(party), image(party), *command)

    def serve(self, party: str) -> None:
        podman("run", "--detach", f"--name={self.name(party)}", *self.options(party), image(party))

    def say(self, party: str, *command: str) -> str:
        """What a command says in the running container of a party."""
        return podman("exec", self.name(party), "keyong", *command)

    def told(self, party: str, *command: str) -> Any:
        return json.loads(self.say(party, "--format", "json", *command))

    def healthy(self, party: str) -> bool:
        role = "coordinator" if party == "institute" else "node"
        asked = ["podman", "exec", self.name(party), "keyong", role, "health"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def copy(self, source: Path, party: str, target: str) -> None:
        podman("cp", str(source), f"{self.name(party)}:{target}")


def image(party: str) -> str:
    return "keyong-coordinator" if party == "institute" else "keyong-node"


@pytest.fixture
def parties(images: None) -> Iterator[Parties]:
    found = Parties()
    podman("network", "create", "--internal", f"--subnet={SUBNET}.0/24", found.name("net"))
    try:
        yield found
    finally:
        every = [found.name(party) for party in ("institute", *MILLS)]
        for words in (
            ["rm", "--force", *every],
            ["volume", "rm", "--force", *every],
            ["network", "rm", found.name("net")],
        ):
            subprocess.run(["podman", "--cgroup-manager=cgroupfs", *words], capture_output=True, check=False)


@pytest.mark.timeout(1800)
def test_a_consortium_of_containers_trains_and_goes_on_after_a_stop(parties: Parties, tmp_path: Path) -> None:
    founded = parties.once(
        "institute", "--format", "json", "consortium", "init", "--name", "Plates", "--member", "institute",
        "--entity", "Institute", "--address", f"{ADDRESS}:7443",
    )  # fmt: skip
    root = json.loads(founded)["fingerprint"]
    parties.serve("institute")
    until(lambda: parties.healthy("institute"), "the coordinator is not healthy", 60)
    for number, mill in enumerate(MILLS, start=1):
        invitation = parties.say("institute", "consortium", "invite", mill, "--entity", f"{mill} Ltd")
        assert "T2" in parties.once(mill, "join", invitation.strip())
        parties.serve(mill)
        until(lambda mill=mill: parties.healthy(mill), "a node is not healthy", 60)  # type: ignore[misc]
        table = tmp_path / f"{mill}.csv"
        subprocess.run([sys.executable, str(EXAMPLE / "make_csv.py"), str(number), str(table)], check=True)
        parties.copy(table, mill, f"{STATE}/drives.csv")
        parties.say(mill, "node", "dataset", "add", "drives", f"{STATE}/drives.csv", "--title", "Drives", "--simulated")
    for party in ("institute", *MILLS):
        parties.copy(EXAMPLE, party, f"{STATE}/example")
    app = f"{STATE}/example/app"
    for mill in MILLS:
        parties.say(mill, "peers", "accept", *(f"{one} Ltd" for one in MILLS))
        parties.say(
            mill, "agreement", "offer", "--to", "institute", "--dataset", "drives", "--purpose", "fed:ProcessOptimization",
            "--count", "2", "--expires", "1d", "--app", app, "--min-participants", "3",
        )  # fmt: skip
    for offer in parties.told("institute", "inbox")["offers"]:
        parties.say("institute", "agreement", "sign", offer["id"])
    run = ("job", "run", app, "--purpose", "fed:ProcessOptimization", "--yes")
    parties.say("institute", *run)

    podman("stop", "--time=60", parties.name("mill-b"))
    assert podman("inspect", "--format={{.State.ExitCode}}", parties.name("mill-b")).strip() == "0", "it did not drain"
    podman("start", parties.name("mill-b"))
    until(lambda: parties.healthy("mill-b"), "a node that was started again is not healthy", 60)
    parties.say("institute", *run)

    jobs = parties.told("institute", "job", "list")
    assert [one["status"] for one in jobs] == ["done", "done"]
    assert "integrity     intact" in parties.say("mill-b", "verify", f"{STATE}/home", "--root", root)
    assert parties.told("mill-b", "doctor")["tiers"] == ["T2"]
