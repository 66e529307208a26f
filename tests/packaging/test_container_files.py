"""Containerfile, compose.yaml, units and the seccomp profile agree with the code and with each other."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keyong.cli._containers import OPTIONS, PROFILE
from sandbox import Report, find_container, probe
from sandbox._syscalls import ALLOWED, JUDGED

ROOT = Path(__file__).parents[2]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
SECURITY = {"seccomp": PROFILE, "systempaths": "unconfined", "apparmor": "unconfined"}
# Tried by the canary and refused by the session's own filter before the container's is asked, or harmless to refuse.
TRIED = {
    "add_key",
    "bpf",
    "chroot",
    "io_uring_setup",
    "keyctl",
    "mknodat",
    "open_by_handle_at",
    "perf_event_open",
    "personality",
    "pidfd_getfd",
    "process_vm_readv",
    "ptrace",
    "sched_setscheduler",
    "setns",
    "setuid",
    "shmget",
    "socket",
    "syslog",
    "userfaultfd",
}


def helped(*words: str) -> str:
    command = [sys.executable, "-m", "keyong", *words, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def profile_names() -> set[str]:
    document = json.loads((ROOT / PROFILE).read_text())
    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {entry["action"] for entry in document["syscalls"]} == {"SCMP_ACT_ALLOW"}
    return {name for entry in document["syscalls"] for name in entry["names"]}


def test_every_source_of_the_image_exists_and_each_package_is_in_it() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) (\S+)$", CONTAINERFILE, re.M)
    sources = {source for sources, _target in copied for source in sources.split()}
    assert all((ROOT / source).exists() for source in sources)
    assert {"coordinator", "enterprise_node", "federation", "keyong", "sandbox", PROFILE} <= sources
    assert "://" not in CONTAINERFILE
    assert re.findall(r"^(?:ARG BASE=|FROM )(\S+)", CONTAINERFILE, re.M)[0] == "debian:bookworm-slim"


@pytest.mark.parametrize("role", ["node", "coordinator"])
def test_the_image_runs_commands_that_exist(role: str) -> None:
    stage = CONTAINERFILE[CONTAINERFILE.index(f"AS {role}\n") :]
    check, command = (json.loads(found) for found in re.findall(r"CMD (\[.+\])", stage)[:2])
    assert check == ["keyong", role, "health"]
    assert command[:2] == [role, "serve"]
    assert "health" in helped(role)
    options = helped(*command[:2])
    assert all(word in options for word in command[2:] if word.startswith("--"))
    keyong = CONTAINERFILE[CONTAINERFILE.index("AS keyong\n") : CONTAINERFILE.index("AS node\n")]
    assert "USER keyong" in keyong
    assert "STOPSIGNAL SIGTERM" in keyong
    assert 'ENTRYPOINT ["keyong"]' in keyong, "the exec form: a shell would not hand on signals"
    assert "VOLUME /var/lib/keyong" in keyong
    assert "KEYONG_HOME=/var/lib/keyong" in keyong


def test_compose_gives_what_doctor_prints_and_no_more() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load(COMPOSE)["services"]
    assert set(services) == {"coordinator", "mill-a", "mill-b", "mill-c"}
    printed = dict(option.removeprefix("--security-opt ").split("=") for option in OPTIONS["docker"])
    assert printed == SECURITY
    networks = [set(service["networks"]) for name, service in services.items() if name != "coordinator"]
    assert set.union(*networks) == set(services["coordinator"]["networks"])
    assert sum(map(len, networks)) == len(set.union(*networks)), "no two nodes share a network"
    for name, service in services.items():
        role = "coordinator" if name == "coordinator" else "node"
        given = [entry for entry in service["security_opt"] if not entry.startswith("no-new")]
        assert dict(entry.split("=") for entry in given) == SECURITY
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert "privileged" not in service
        assert service["read_only"] is True
        assert service["build"]["target"] == role
        assert service["healthcheck"]["test"] == ["CMD", "keyong", role, "health"]
        assert [volume.split(":")[1] for volume in service["volumes"]] == ["/var/lib/keyong"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_start_what_exists(unit: Path, tmp_path: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program == "/opt/keyong/bin/keyong"
    assert "serve" in helped(words[0])
    assert service["NoNewPrivileges"] == "yes"
    # Each covers a part of /proc, or forbids namespaces: no session could be built.
    for hostile in (
        "ProtectKernelTunables",
        "ProtectKernelLogs",
        "ProtectProc",
        "ProtectControlGroups",
        "RestrictNamespaces",
    ):
        assert hostile not in service
    if shutil.which("systemd-analyze") is None:
        return
    (tmp_path / unit.name).write_text(unit.read_text().replace(program, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False
    )
    assert unit.name not in done.stderr, done.stderr


def test_profile_allows_what_a_session_may_call_and_what_builds_it() -> None:
    names = profile_names()
    missing = set(ALLOWED) - names
    assert missing == set(), "a job may call these at T2, and the container would refuse them"
    assert set(JUDGED) <= names
    for refused in ("bpf", "kexec_load", "init_module", "open_by_handle_at", "ptrace", "keyctl", "perf_event_open"):
        assert refused not in names


def test_profile_allows_every_call_that_a_launch_makes(tmp_path: Path) -> None:
    """Counted, not believed: what the trusted side, bubblewrap and the launcher really call."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    report: Report = probe()
    if not report.tiers or report.tiers[0] != "T2":
        pytest.skip("this machine has no T2: " + "; ".join(report.refusals.values()))
    code = (
        "from sandbox import SessionSpec, open_session\nfrom sandbox.canary import empty_runtime\n"
        "with empty_runtime() as r, open_session(SessionSpec(r, ('-c', 'pass'))) as s: assert s.wait(60).exit_code == 0"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120)
    called = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", trace.read_text(errors="replace"), re.M))
    assert {"pivot_root", "mount", "landlock_restrict_self", "clone"} <= called
    assert called - TRIED - profile_names() == set()


@pytest.mark.parametrize(
    ("files", "environment", "kind"),
    [
        ({}, {}, None),
        ({".dockerenv": ""}, {}, "docker"),
        ({"run/.containerenv": ""}, {}, "podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/kubepods.slice/pod1\n"}, {}, "kubernetes"),
        ({"proc/self/cgroup": "0::/system.slice/docker-0a.scope\n"}, {}, "docker"),
        (
            {"proc/self/mountinfo": "1 2 0:3 / / rw - overlay overlay rw,lowerdir=/v/containers/storage/o\n"},
            {},
            "podman",
        ),
        ({"proc/self/mountinfo": "1 2 0:3 / /mnt/docker/x rw - ext4 a rw\n"}, {}, None),
        ({"proc/1/environ": "container=systemd-nspawn\0"}, {}, "other"),
        ({}, {"container": "podman"}, "podman"),
    ],
)
def test_containers_are_recognised(
    tmp_path: Path, files: dict[str, str], environment: dict[str, str], kind: str | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert find_container(tmp_path, environment) == kind


def test_zombies_are_reaped_where_the_node_is_process_one() -> None:
    """In an image whose entry point is keyong itself, nobody else reaps."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, for a pid namespace to be process 1 of")
    code = """
import os, sys, time
from sandbox import SessionSpec, Tier, open_session
from sandbox.canary import empty_runtime
assert os.getpid() == 1
orphans = "import os\\nfor _ in range(9):\\n  if os.fork() == 0:\\n    if os.fork() == 0: os._exit(0)\\n    os._exit(0)"
for tier in (Tier.T2, Tier.T1):
    with empty_runtime() as runtime, open_session(SessionSpec(runtime, ("-c", orphans), tier=tier)) as session:
        assert session.wait(60).exit_code == 0, session.stderr()
end = time.monotonic() + 30
while (left := sorted(name for name in os.listdir("/proc") if name.isdecimal())) != ["1"] and time.monotonic() < end:
    time.sleep(0.02)  # one that still ends is not one that nobody reaps
print(left)
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if "unshare" in done.stderr and done.returncode:
        pytest.skip("no pid namespace can be made here")
    assert done.stdout.strip() == "['1']", done.stderr
