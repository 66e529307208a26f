"""Where attacks are tried: a node with its real line, ledger and sandbox, and around it what an attacker looks for."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enterprise_node.session
import enterprise_node.stages
from enterprise_node.output_gate import GatedReply
from enterprise_node.step_log import read_steps
from federation.statements import JobPlan, Member, Receipt
from federation.statements.code import CodeBundle
from federation.wire.messages import Invoked
from keyong import runtime as runtimes
from sandbox import Limits, Runtime, SessionSpec, Tier
from sandbox._gvisor import bundle_config
from sandbox.canary import _targets
from sandbox.session import Session
from tests.adversarial.attacks.programs.registry import ATTACKS, Attack
from tests.enterprise_node.conftest import World, make

PROGRAMS = Path(__file__).parent / "programs"
ROW = b"7531"
"""Part of a value in the data; nothing that leaves may hold it."""
SECRET_VARIABLE = "KEYONG_ATTACK_SECRET"
OURS = frozenset({"gate", "clock"})
"""Layers of the node, not of the session."""
BOUNDS = {
    "resources.thread_bomb": bundle_config(SessionSpec(Runtime(Path("/"), ""), ("-c", "")), None, [""])["process"][
        "rlimits"
    ][-1]["hard"],
    "resources.fill_disk": Limits().scratch_bytes,
}
"""What gVisor's kernel lets a session have, where no supervisor ends it."""
HIDDEN = (0x80000000).to_bytes(4, "little") + (0x1D6B).to_bytes(4, "little")
GROUPS = ("files", "network", "processes", "kernel", "resources", "replies")
_PROJECT = b"""[project]
name = "attacks"
version = "0.1.0"
[tool.flwr.app]
publisher = "test"
[tool.flwr.app.components]
serverapp = "programs.client:app"
clientapp = "programs.client:app"
[tool.flwr.app.config]
"""


def catalogue() -> dict[str, Attack]:
    """Every attack by its name."""
    import importlib

    for group in GROUPS:
        importlib.import_module(f"tests.adversarial.attacks.programs.{group}")
    return dict(ATTACKS)


@dataclass(frozen=True)
class Result:
    """What became of one attack.

    Attributes:
        got: what the attacker got; empty for nothing.
        outcome: of the step, as the ledger has it.
        code: why, where it is not ok, as others are told.
        own: why exactly, as the data's owner reads it.
        why: how an act was refused, by its own word.
        recorded: whether INTENT and OUTCOME are in the ledger.
        left: processes of the session that outlived it.
    """

    name: str
    got: str
    outcome: str
    code: str
    own: str = ""
    why: str = ""
    recorded: bool = True
    left: int = 0

    @property
    def blocked(self) -> bool:
        """Whether the attacker got nothing."""
        return not self.got and not self.left


class Ground:
    """One node, and attack after attack on it, each a job of its own in a session of its own."""

    def __init__(self, world: World, targets: dict[str, Any], tier: Tier, without: frozenset[str]) -> None:
        self.world = world
        self._tier = tier
        self._without = without
        files = {"pyproject.toml": _PROJECT, "targets.json": json.dumps(targets).encode()}
        files |= {f"programs/{path.name}": path.read_bytes() for path in PROGRAMS.glob("*.py")}
        world.bundle = CodeBundle(files)
        world.line.isolate_at(tier)
        self._agreement = world.agreement(count=1000)

    async def attack(self, *names: str) -> list[Result]:
        """Run one job that tries these attacks; more than one only where each is an act."""
        attacks = [catalogue()[name] for name in names]
        kind = attacks[0].kind
        quick = kind == "limit" and "clock" in attacks[0].only and "clock" not in self._without
        plan = self.world.plan(
            self._agreement,
            aggregation="each",
            rounds=1,
            round_seconds=2 if quick else 600 if self._tier is Tier.T3 else 60,
            memory_bytes=(400 if "memory" in names[0] else 3072) * 2**20,
        )
        await self.world.open(plan)
        before = len(self.world.entries("intent")), len(self.world.entries("outcome"))
        receipt, answer = await self.world.invoke(plan, mode=" ".join(names))
        session = self.world.line.jobs[plan.digest].session
        with _namespace(session._session if session is not None else None) as namespace:
            await self.world.line.close_job(plan.digest)
            left = _members(namespace)
        after = len(self.world.entries("intent")), len(self.world.entries("outcome"))
        recorded = after == (before[0] + 1, before[1] + 1) and receipt.intent >= 0
        header = Invoked.from_bytes(answer.header)
        leaving = header.reply.encode() + b"".join(bytes(part) for part in answer.body)
        told = receipt.code.encode() + leaving
        own = self._own_code(plan)
        if kind != "act":
            got = self._what_left(attacks[0], receipt, leaving, told, own)
            if self._tier in attacks[0].bounded and receipt.outcome == "ok":
                had = self._loot(plan)[names[0]]["had"]
                got = f"{had} of them" if had > BOUNDS[names[0]] else ""
            return [Result(names[0], got, receipt.outcome, receipt.code, own, "", recorded, left)]
        loot = self._loot(plan)
        found = []
        for name in names:
            died = own in catalogue()[name].codes and len(names) == 1
            one = loot.get(name, {"got": "" if died else "never tried", "why": f"{receipt.outcome} {receipt.code}"})
            got = one["got"] or ("a value left" if ROW in told else "")
            found.append(Result(name, got, receipt.outcome, receipt.code, own, one["why"], recorded, left))
        return found

    def _what_left(self, attack: Attack, receipt: Receipt, leaving: bytes, told: bytes, own: str) -> str:
        if ROW in told or (receipt.outcome != "ok" and leaving):
            return "a value left"
        if receipt.outcome != "ok":
            return "" if own in attack.codes else f"ended as {own}"
        if attack.name == "replies.hidden_zeros":
            return "bits left" if HIDDEN[:4] in leaving or HIDDEN[4:] in leaving else ""
        return "nobody stopped it"

    def errors(self) -> str:
        """What jobs wrote to stderr, the newest last."""
        folders = sorted(self.world.home.folder("logs").iterdir(), key=lambda folder: folder.stat().st_mtime)
        return "\n".join((folder / "stderr.txt").read_text(errors="replace") for folder in folders)[-4000:]

    def _own_code(self, plan: Any) -> str:
        """How the step ended, exactly: as ``keyong job logs`` tells the owner."""
        steps = read_steps(self.world.home.folder("logs", JobPlan.read(plan).id.removeprefix("urn:uuid:")))
        return str(steps[-1]["code"]) if steps else ""

    def _loot(self, plan: Any) -> dict[str, dict[str, Any]]:
        """What acts got, from the owner's logs."""
        folder = self.world.home.folder("logs", JobPlan.read(plan).id.removeprefix("urn:uuid:"))
        lines = (folder / "stdout.txt").read_text(errors="replace").splitlines()
        found = [json.loads(line.removeprefix("LOOT ")) for line in lines if line.startswith("LOOT ")]
        return {one["name"]: one for one in found}


@contextlib.contextmanager
def _namespace(session: Session | None) -> Iterator[str]:
    """A session's pid namespace, held open: its number would be given to another session's."""
    try:
        if session is None or session._started is None:
            raise FileNotFoundError
        place = f"/proc/{session._started.init}/ns/pid"
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        yield ""
        return
    try:
        yield f"pid:[{os.fstat(descriptor).st_ino}]"
    finally:
        os.close(descriptor)


def _members(namespace: str) -> int:
    """Processes that are still in a session's own pid namespace."""
    if not namespace or namespace == os.readlink("/proc/self/ns/pid"):
        return 0
    found = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{name}/ns/pid") == namespace
    return found


@contextlib.contextmanager
def ground(tier: Tier = Tier.T2, without: Sequence[str] = (), seconds: float = 8.0) -> Iterator[Ground]:
    """Yield a node at this tier, with some layers left out; only a test can do that."""
    layers = frozenset(without)
    sandboxed = layers - OURS
    with contextlib.ExitStack() as stack:
        base = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="keyong-attack-", ignore_cleanup_errors=True))
        )
        base.chmod(0o755)  # what an attacker may not read it shall find closed by the sandbox, not by a folder above
        world = stack.enter_context(_world(base))
        targets = {**stack.enter_context(_around(world)), "seconds": seconds}
        stack.enter_context(_replaced(Member, "floor", property(lambda member: str(tier))))
        if "supervisor" in layers:
            sandboxed |= {"cgroup"}  # what adds up a session, be it the kernel
        if "pid-namespace" in layers:
            sandboxed |= {"supervisor"}  # it knows a session by that namespace
        if sandboxed:
            weak = type("Weakened", (Session,), {"_without": sandboxed | {"canary", "attest"}})
            stack.enter_context(_replaced(enterprise_node.session, "open_session", weak))
        if "gate" in layers:
            stack.enter_context(_replaced(enterprise_node.stages, "check_reply", _no_gate))
        yield Ground(world, targets, tier, layers)


def _no_gate(reply: Any, *_: Any) -> GatedReply:
    return GatedReply(reply, 0, 0)


@contextlib.contextmanager
def _world(base: Path) -> Iterator[World]:
    yield from make(base, runtimes.load())


@contextlib.contextmanager
def _replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    kept = place.__dict__[name]
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, kept)


@contextlib.contextmanager
def _around(world: World) -> Iterator[dict[str, Any]]:
    """What a node has around it and an attacker wants: each is really there, or no attack on it would prove anything."""
    with contextlib.ExitStack() as stack:
        canary = stack.enter_context(_targets())
        other = world.base / "other.csv"
        other.write_text("x\n7531.25\n")
        pipe = world.base / "pipe"
        os.mkfifo(pipe, 0o666)
        stack.callback(os.close, os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        held = world.base / "held"
        held.write_text("7531.25-of-the-node")
        descriptor = os.open(held, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        stack.callback(os.close, descriptor)
        shared = Path("/dev/shm", f"keyong-attack-{secrets.token_hex(8)}")
        shared.write_text("7531.25")
        shared.chmod(0o644)
        stack.callback(shared.unlink)
        os.environ[SECRET_VARIABLE] = "7531.25"
        stack.callback(os.environ.pop, SECRET_VARIABLE, None)
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        libc = ctypes.CDLL(None, use_errno=True)
        key = secrets.randbits(30)
        segment = libc.shmget(key, 4096, 0o1666)
        stack.callback(libc.shmctl, segment, 0, None)
        yield {
            "dataset": str(other),
            "key": str(world.home.path / "keys" / "statement.key"),
            "home": str(world.home.path),
            "pipe": str(pipe),
            "shared": shared.name,
            "shm_key": key,
            "udp": datagrams.getsockname()[1],
            "variable": SECRET_VARIABLE,
            "pid": int(canary["CANARY_PID"]),
            "port": int(canary["CANARY_PORT"]),
            "abstract": canary["CANARY_ABSTRACT"],
            "datagram": canary["CANARY_DATAGRAM"],
            "socket": canary["CANARY_PATH"],
        }
