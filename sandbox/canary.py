"""The whole canary: every forbidden act, tried within a real session, before a machine is trusted with a job."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox._attest import does_not_hold
from sandbox.errors import SandboxError
from sandbox.session import Session, open_session
from sandbox.spec import Evidence, Limits, Mount, Runtime, SessionSpec, Tier

ACTS: Final = Path(__file__).parent / "inside"
_SECONDS = 120.0

_GVISORS_OWN = """
list /|list /proc|list /sys/fs/cgroup|make a device|new user namespace by clone|outlive the supervisor
push into a terminal|raise a limit|raise priority|read /proc/1/task/1/mountinfo|read /proc/loadavg|read /proc/meminfo
read /proc/self/mountinfo|socket netlink|socket tcp|socket tcp6|socket udp|socket udp6|write /proc/self/oom_score_adj
"""
CONCEDED: Final = {
    Tier.T1: frozenset({"see the host's process", "see the host's file"}),
    Tier.T2: frozenset[str](),
    Tier.T3: frozenset(_GVISORS_OWN.strip().replace("\n", "|").split("|"))
    | {f"call {name}" for name in re.findall(r'^    "(\w+)": ', (ACTS / "calls.py").read_text(), re.MULTILINE)},
}
"""What a tier does not promise to block. At T1 a job can see that a process or a path exists, for without namespaces
stat(2) tells; the threat model names each. At T3 what reaches a kernel reaches gVisor's, which is the session's own."""


@dataclass(frozen=True)
class CanaryReport:
    """Every act that was tried, all of them blocked, and what blocked them; what the tier concedes is not among them."""

    acts: tuple[str, ...]
    evidence: Evidence


def run_canary(runtime: Runtime | None = None, tier: Tier = Tier.T2) -> CanaryReport:
    """Try every forbidden act in a session and return what was tried.

    Args:
        runtime: the runtime to try with; an empty one and the machine's own Python where none is given.
        tier: strength of the session.

    Raises:
        SandboxError: an act succeeded (``canary``), or no session can be opened at all.
    """
    results, evidence = try_acts(runtime, tier=tier)
    promised = {name: outcome for name, outcome in results.items() if name not in CONCEDED[tier]}
    succeeded = sorted(name for name, outcome in promised.items() if outcome != "blocked")
    if succeeded:
        raise does_not_hold(", ".join(succeeded))
    return CanaryReport(tuple(sorted(promised)), evidence)


def prove_tier(floor: Tier, *, development: bool = False) -> Tier:
    """Run the canary at the strongest tier this machine has, not below ``floor``, and return that tier.

    Decided once, when a service starts: each of its sessions demands this tier and no other.

    Args:
        floor: the weakest that is accepted. T0 is never fallen back to.
        development: take T0, which has nothing to prove but that a session comes up; only where the floor is T0, too.

    Raises:
        SandboxError: this machine gives less than ``floor``; or a layer that is there does not hold, which is no reason
            to do with a weaker one; or development is asked for above T0.
    """
    if development:
        return _prove_development(floor)
    if floor is Tier.T3:
        return run_canary(tier=Tier.T3).evidence.tier  # several times slower, so only where it is demanded
    try:
        return run_canary().evidence.tier
    except SandboxError as error:
        if floor > Tier.T1 or error.code not in ("layer", "start"):
            raise
    return run_canary(tier=Tier.T1).evidence.tier


def _prove_development(floor: Tier) -> Tier:
    if floor is not Tier.T0:
        raise SandboxError(
            "--development isolates nothing (T0), and the floor of isolation is {floor}",
            code="layer",
            hint="serve without it; or accept T0 in the roster, where the others see it (`keyong node tier T0`)",
            floor=floor,
        )
    with empty_runtime() as runtime:
        spec = SessionSpec(runtime, ("-c", "pass"), limits=Limits(wall_seconds=_SECONDS), tier=Tier.T0)
        with open_session(spec) as session:
            session.wait(_SECONDS)
            return session.evidence.tier


def try_acts(
    runtime: Runtime | None = None,
    opener: Callable[[SessionSpec], Session] = open_session,
    tier: Tier = Tier.T2,
) -> tuple[dict[str, str], Evidence]:
    """Return each act's outcome (``blocked``, ``succeeded`` or ``hung``) in a session that ``opener`` opens."""
    with contextlib.ExitStack() as stack:
        if runtime is None:
            runtime = stack.enter_context(empty_runtime())
        acts = stack.enter_context(_readable_copy())
        targets = stack.enter_context(_targets())
        spec = SessionSpec(
            runtime,
            ("/canary/acts.py",),
            mounts=(Mount(acts, "/canary"),),
            env={**targets, "CANARY_NAMESPACES": "" if tier is Tier.T1 else "1"},
            limits=Limits(wall_seconds=_SECONDS, memory_bytes=1 << 30),
            tier=tier,
        )
        session = stack.enter_context(opener(spec))
        session.channel.settimeout(_SECONDS)
        answer = b""
        while piece := session.channel.recv(1 << 16):
            answer += piece
        try:
            return json.loads(answer), session.evidence
        except ValueError:
            raise SandboxError(
                "the canary did not report ({ending})",
                code="canary",
                hint="run keyong doctor; no job runs on this machine until every forbidden act fails",
                ending=session.wait(_SECONDS),
            ) from None


@contextlib.contextmanager
def empty_runtime(python: Path = Path("/usr/bin/python3")) -> Iterator[Runtime]:
    """Yield a runtime of the interpreter and its standard library alone."""
    with tempfile.TemporaryDirectory(prefix="keyong-canary-") as name:
        packages = Path(name, "site-packages")
        packages.mkdir()
        for place in (packages, packages.parent):
            place.chmod(0o755)
        yield Runtime(packages.parent, digest="", python=python)


@contextlib.contextmanager
def _readable_copy() -> Iterator[Path]:
    """Yield the acts where a session can read them, also if this package was installed for its owner's eyes alone."""
    with tempfile.TemporaryDirectory(prefix="keyong-canary-") as name:
        place = Path(name)
        for source in ACTS.glob("*.py"):
            (place / source.name).write_bytes(source.read_bytes())
            (place / source.name).chmod(0o644)
        place.chmod(0o755)
        yield place


@contextlib.contextmanager
def _targets() -> Iterator[dict[str, str]]:
    """Yield the environment that names a process, sockets and a file of the host which a session must not reach."""
    name = f"keyong-canary-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyong-canary-")))
        directory.chmod(0o755)
        path = str(directory / "socket")
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in ("\0" + name, path):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        Path(path).chmod(0o777)
        # A process of its own: in a container we may be number 1, and so is the session's first process.
        waits = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
        process = stack.enter_context(subprocess.Popen(waits, stdin=subprocess.PIPE, close_fds=True))
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(f"\0{name}-datagram")
        yield {
            "CANARY_PID": str(process.pid),
            "CANARY_PORT": str(tcp.getsockname()[1]),
            "CANARY_ABSTRACT": name,
            "CANARY_DATAGRAM": f"{name}-datagram",
            "CANARY_PATH": path,
        }
