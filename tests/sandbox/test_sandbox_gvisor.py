"""inv4, inv8: T3 runs jobs on gVisor's kernel without a network, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import (
    Ending,
    Limits,
    Mount,
    Runtime,
    SandboxError,
    SessionSpec,
    Tier,
    _bubblewrap,
    open_session,
    prove_tier,
)
from sandbox._gvisor import bundle_config, find_runsc
from sandbox.canary import empty_runtime

MIB = 1 << 20
real = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("runsc", path=_bubblewrap._PLACES) is None, reason="needs root and gVisor's runsc"
)


@pytest.mark.parametrize(
    ("program", "user", "said"), [(None, 0, "no runsc"), (None, 1000, "no runsc"), ("/usr/bin/runsc", 1000, "not root")]
)
def test_what_keeps_it_from_starting_is_named(
    monkeypatch: pytest.MonkeyPatch, program: str | None, user: int, said: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: program)
    monkeypatch.setattr("os.geteuid", lambda: user)
    with pytest.raises(SandboxError) as refused:
        find_runsc()
    assert said in refused.value.message and ("root" in refused.value.hint) == (user != 0)
    assert ("not root" in refused.value.message) == (program is not None)


def test_the_bundle_gives_nothing_that_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYONG_OF_THE_NODE", "secret")
    spec = SessionSpec(
        Runtime(Path("/srv/runtime"), "sha256:x"), ("-c", "pass"), mounts=(Mount(Path("/srv/rows"), "/data"),),
        env={"OMP_NUM_THREADS": "1"}, scratch={"/work": MIB}, tier=Tier.T3,
    )  # fmt: skip
    config = bundle_config(spec, None, ["/usr/bin/python3", "-I"])
    process, mounts = config["process"], {one["destination"]: one for one in config["mounts"]}
    assert {one["type"] for one in config["linux"]["namespaces"]} == {"pid", "network", "ipc", "uts", "mount"}
    assert config["root"]["readonly"] is True
    assert process["noNewPrivileges"] is True
    assert not any(process["capabilities"].values())
    assert process["user"]["uid"] == 65534
    assert (mounts["/data"]["source"], mounts["/runtime"]["source"]) == ("/srv/rows", "/srv/runtime")
    assert all("ro" in one["options"] for one in mounts.values() if one["type"] == "bind")
    assert {place for place, one in mounts.items() if one["type"] == "tmpfs"} == {"/tmp", "/dev/shm", "/work"}
    names = {entry.partition("=")[0] for entry in process["env"]}
    assert "OMP_NUM_THREADS" in names
    assert "KEYONG_OF_THE_NODE" not in names


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of runsc that keeps the bundle it is given and fails as one does that may not run."""
    program = tmp_path / "runsc"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "runsc version 1.2.3"; exit 0; }\n'
        f'echo "$@" > {tmp_path}/arguments\n'
        f'for one in "$@"; do case "$one" in --bundle=*) cp -r "${{one#--bundle=}}" {tmp_path}/bundle;; esac; done\n'
        'echo "cannot create sandbox" >&2\nexit 128\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(_bubblewrap, "_PLACES", f"{tmp_path}:{_bubblewrap._PLACES}")
    return tmp_path


def test_a_bundle_on_disk_has_no_network_and_is_gone_afterwards(stand_in: Path, root_only: None) -> None:
    before = set(Path("/run").glob("keyong-gvisor-*"))
    with empty_runtime() as runtime, pytest.raises(SandboxError, match="cannot create sandbox") as caught:
        open_session(SessionSpec(runtime, ("-c", "pass"), tier=Tier.T3))
    assert caught.value.code == "start"
    assert "--network=none" in (stand_in / "arguments").read_text().split()
    config = json.loads((stand_in / "bundle" / "config.json").read_text())
    launcher = config["process"]["args"][3]
    assert (stand_in / "bundle" / "rootfs" / launcher.lstrip("/")).is_file()
    assert set(Path("/run").glob("keyong-gvisor-*")) == before


def test_an_ordinary_user_or_a_machine_without_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_bubblewrap, "_PLACES", str(tmp_path))
    with pytest.raises(SandboxError, match="gVisor") as caught:
        prove_tier(Tier.T3)
    assert caught.value.code == "layer"
    assert "runsc" in caught.value.hint


@real
def test_the_canary_holds() -> None:
    assert prove_tier(Tier.T3) is Tier.T3


@real
def test_a_session_on_its_own_kernel() -> None:
    code = "import os; os.write(3, os.uname().release.encode())"
    with empty_runtime() as runtime, open_session(SessionSpec(runtime, ("-c", code), tier=Tier.T3)) as session:
        assert session.evidence.kernel.startswith("gVisor ")
        assert session.channel.recv(100) not in (b"", os.uname().release.encode())
        assert session.wait(60) == Ending("exited", exit_code=0)


@real
@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("kept = []\nwhile True: kept.append(bytearray(b'x' * 2**24))", "memory"),
        ("import time; time.sleep(99)", "wall"),
    ],
)
def test_its_limits_hold(code: str, limit: str) -> None:
    limits = Limits(memory_bytes=200 * MIB, wall_seconds=10 if limit == "memory" else 1)
    with empty_runtime() as runtime:
        with open_session(SessionSpec(runtime, ("-c", code), limits=limits, tier=Tier.T3)) as session:
            assert session.wait(60).limit == limit


@real
def test_its_kernel_bounds_threads_which_no_supervisor_sees() -> None:
    code = """
import os, threading, time
started = 0
try:
    while started < 500:
        threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
        started += 1
except RuntimeError:
    pass
os.write(3, str(started).encode())
os._exit(0)
"""
    spec = SessionSpec(Runtime(Path("/"), ""), ("-c", code), limits=Limits(processes=40), tier=Tier.T3)
    with empty_runtime() as runtime, open_session(replace(spec, runtime=runtime)) as session:
        assert 30 < int(session.channel.recv(100)) <= 40 + 16 + 128
        session.wait(60)


@real
def test_a_kill_leaves_nobody_and_nothing() -> None:
    before = set(Path("/run").glob("keyong-gvisor-*"))
    with empty_runtime() as runtime:
        with open_session(SessionSpec(runtime, ("-c", "import time; time.sleep(99)"), tier=Tier.T3)) as session:
            time.sleep(0.2)
            session.kill()
            assert session.wait(1) == Ending("killed")
    assert set(Path("/run").glob("keyong-gvisor-*")) == before
