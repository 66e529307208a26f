"""inv4, inv8: forbidden acts fail inside, and show when a layer is taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from sandbox import Mount, Report, Runtime, SandboxError, SessionSpec, canary, run_canary
from sandbox.canary import try_acts
from sandbox.session import Session

# Named here too, so that an act which goes missing from the canary is missed.
NAMES = """
learn the control groups name|read /etc/shadow|read /data/../../etc/shadow
read /proc/loadavg|read /proc/self/mountinfo|read /dev/mem|read /dev/kvm
read /sys/kernel/uevent_seqnum|list /|list /sys/fs/cgroup|list /root|create in /usr|create in /runtime
create in /runtime/site-packages|create in /canary|create in /|create in /dev|write /proc/sys/kernel/core_pattern
write /proc/sysrq-trigger|write /canary/acts.py|chmod data|utime data|xattr data|unlink data|rename data|truncate data
execute data|execute a written file|follow a link out|make a device|see the host's process|see the host's file
kill the host's process|become root|change groups|raise priority|schedule in real time|raise a limit|chroot
socket tcp|socket tcp6|socket udp|socket raw|socket netlink|socket packet|socket vsock|connect to the host
resolve a name|connect to the host's abstract socket|connect to the host's unix socket
new user namespace by clone|new user namespace by clone3|call unshare|call setns|call mount|call pivot_root
call ptrace|call process_vm_readv|call pidfd_getfd|call io_uring_setup|call bpf|call perf_event_open|call keyctl
call userfaultfd|call open_by_handle_at|call shmget|call semget|call msgget|call mq_open|call personality|call syslog
call settimeofday|call reboot|call memfd_create|call mbind|call by x32|call by 32 bit gate|push into a terminal
read the parent by memory file|find a foreign variable|find a host path in the command line|inherit a descriptor
find leftovers|outlive the supervisor|find foreign packages|be more than expected
"""
ACTS = [name for line in NAMES.strip().splitlines() for name in line.split("|")]


def weakened(*layers: str) -> type[Session]:
    """A session with layers left out: what no caller can ask for."""
    return type("Weakened", (Session,), {"_without": frozenset(layers)})


@cache
def outcomes(*without: str) -> dict[str, str]:
    return try_acts(opener=weakened(*without))[0]


@pytest.mark.parametrize("name", ACTS)
def test_act_is_blocked(machine: Report, name: str) -> None:
    assert outcomes()[name] == "blocked"


def test_every_act_is_blocked_and_none_is_lost(machine: Report) -> None:
    report = run_canary()
    assert len(report.acts) >= 150
    assert set(outcomes().values()) == {"blocked"}


@pytest.mark.parametrize(
    ("without", "acts"),
    [
        (
            ("seccomp", "canary", "attest"),
            "socket udp|socket netlink|call personality|call shmget|call ptrace|call unshare|call memfd_create|"
            "call setns|new user namespace by clone|push into a terminal|outlive the supervisor",
        ),
        (
            ("landlock", "canary"),
            "read /proc/loadavg|read /proc/self/mountinfo|list /|execute a written file|read the parent by memory file",
        ),
        (("landlock", "network-namespace", "canary", "attest"), "connect to the host's abstract socket"),
        (("seccomp", "landlock", "network-namespace", "canary", "attest"), "connect to the host|socket tcp"),
        (("empty-environment", "canary"), "find a foreign variable"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_act_succeeds_without_its_layer(machine: Report, without: tuple[str, ...], acts: str) -> None:
    """A test that cannot fail is none: each layer holds off something that nothing else does."""
    found = outcomes(*without)
    assert {name: found[name] for name in acts.split("|")} == dict.fromkeys(acts.split("|"), "succeeded")


def test_core_pattern_is_writable_for_root_without_three_layers(machine: Report, root_only: None) -> None:
    """Each of own uid, read-only /proc/sys and Landlock alone holds off the classic way to the host's root."""
    layers = ("own-uid", "proc-sys", "landlock")
    act = "write /proc/sys/kernel/core_pattern"
    assert outcomes(*layers, "canary", "attest")[act] == "succeeded"
    for kept in layers:
        assert outcomes(*(layer for layer in layers if layer != kept), "canary", "attest")[act] == "blocked"


@pytest.mark.parametrize("layer", ["seccomp", "landlock", "network-namespace"])
def test_canary_of_each_session_refuses_without_layer(runtime: Runtime, layer: str) -> None:
    with pytest.raises(SandboxError) as caught:
        weakened(layer)(SessionSpec(runtime, ("-c", "pass")))
    assert caught.value.code == "canary"


@pytest.mark.parametrize(
    ("layers", "word"),
    [(("seccomp", "canary"), "seccomp"), (("network-namespace", "canary"), "net namespace"), (("own-uid",), "own uid")],
)
def test_look_from_outside_refuses_without_layer(runtime: Runtime, layers: tuple[str, ...], word: str) -> None:
    """The trusted side does not rely on the session's own word."""
    if "own-uid" in layers and os.geteuid() != 0:
        pytest.skip("needs root: an ordinary user's sessions have no uid of their own")
    with pytest.raises(SandboxError, match=word) as caught:
        weakened(*layers)(SessionSpec(runtime, ("-c", "pass")))
    assert caught.value.code == "canary"


@pytest.mark.parametrize("layers", [(), ("read-only",), ("read-only", "landlock", "canary")], ids=lambda v: "-".join(v))
def test_data_is_written_only_without_both_layers(runtime: Runtime, public: Path, layers: tuple[str, ...]) -> None:
    public.chmod(0o777)
    code = "open('/data/written', 'w').close()"
    session = weakened(*layers, "canary")(SessionSpec(runtime, ("-c", code), mounts=(Mount(public, "/data"),)))
    with session:
        ending = session.wait(30)
    assert (ending.exit_code == 0) == (public / "written").exists() == ("landlock" in layers)


def test_canary_refuses_a_machine_where_an_act_succeeds(machine: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    results, evidence = outcomes("landlock", "canary"), try_acts()[1]
    monkeypatch.setattr(canary, "try_acts", lambda runtime, tier: (results, evidence))
    with pytest.raises(SandboxError, match="read /proc/loadavg") as caught:
        run_canary()
    assert caught.value.code == "canary"
    assert "doctor" in caught.value.hint


def test_an_ordinary_user_with_groups_of_its_own_has_the_tier(machine: Report, root_only: None) -> None:
    """As in a container, whose runtime adds the user's own group; nobody but root can give groups up."""
    code = "from sandbox import run_canary; import os; assert os.getgroups(); print(len(run_canary().acts))"
    command = ["setpriv", "--reuid=12345", "--regid=12345", "--groups=12345,100", sys.executable, "-c", code]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": "/var/tmp"}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 150
