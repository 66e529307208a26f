"""inv1, inv2: code that comes as something else than a bundle: refused by a name, on record, and nothing of it on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from federation.statements import code
from federation.statements.code import MAXIMAL_FILES, CodeBundle

EMPTY = hashlib.sha256(b"").hexdigest()


def listing(*items: dict[str, Any], body: bytes = b"") -> bytes:
    """A bundle with this list of files, whatever it holds."""
    return framed(json.dumps(list(items), separators=(",", ":"), sort_keys=True).encode(), body)


def framed(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(4, "big") + header + body


def named(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "sha256": EMPTY, "size": 0, **more}


BAD: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda good: b"",
    "cut in half": lambda good: good[: len(good) // 2],
    "cut by a byte": lambda good: good[:-1],
    "with a byte more": lambda good: good + b"x",
    "another byte": lambda good: good[:-1] + b"\0",
    "a zip": lambda good: b"PK\x03\x04" + bytes(4000),
    "a gzip bomb's beginning": lambda good: b"\x1f\x8b\x08" + bytes(4000),
    "a tar with a link": lambda good: b"pyproject.toml".ljust(156, b"\0") + b"2/etc/shadow".ljust(356, b"\0"),
    "up": lambda good: listing(named("../../keys/statement.key")),
    "absolute": lambda good: listing(named("/etc/cron.d/job")),
    "up in the middle": lambda good: listing(named("a/../../b")),
    "a backslash": lambda good: listing(named("..\\b")),
    "a NUL in a name": lambda good: listing(named("a\0b")),
    "no UTF-8 in a name": lambda good: framed(b'[{"path":"\xff\xfe","sha256":"' + EMPTY.encode() + b'","size":0}]'),
    "half a character in a name": lambda good: listing(named("\ud800")),
    "a link": lambda good: listing(named("a", link="/etc/shadow")),
    "a mode": lambda good: listing(named("a", mode=0o4755)),
    "twice a name": lambda good: listing(named("a"), named("a")),
    "a file and a folder": lambda good: listing(named("a"), named("a/b")),
    "a size that is not there": lambda good: listing(named("a", size=32 << 20)),
    "a negative size": lambda good: listing(named("a", size=-1)),
    "a size of many digits": lambda good: framed(b'[{"path":"a","sha256":"x","size":' + b"9" * 5000 + b"}]"),
    "a huge list": lambda good: framed(b"[" + b"1," * 600_000 + b"1]"),
    "too many files": lambda good: listing(*(named(f"{number:05}") for number in range(MAXIMAL_FILES + 1))),
    "a nested list": lambda good: framed(b"[" * 100_000 + b"]" * 100_000),
    "a header of four gigabytes": lambda good: b"\xff" * 64,
    "a pickle": lambda good: framed(b"\x80\x04cos\nsystem\n(S'id'\ntR."),
    "another app": lambda good: listing(named("pyproject.toml")),
}


async def test_what_is_no_bundle_is_refused_and_on_record(world: Any) -> None:
    good = world.bundle.to_bytes()
    for name, spoil in BAD.items():
        plan = world.plan(world.agreement())
        data = spoil(good)
        assert data != good
        before = len(world.entries("denied"))
        opened = await world.line.open_job(plan, memoryview(data))
        assert not opened.permitted and opened.code in ("bundle", "malformed", "code-mismatch"), (name, opened)
        assert [entry["code"] for entry in world.entries("denied")[before:]] == [opened.code], name
        assert not world.sessions and not world.line.jobs, name
        assert not list(world.home.folder("sessions").iterdir()), name
    assert not world.entries("intent"), "no use of the agreement is spent"
    assert (await world.open(plan)).permitted, "the same plan with its own code is taken"


async def test_an_app_that_nests_without_end_waits_for_approval_like_any_other(world: Any) -> None:
    """The node reads an app's name for its owner; the reading must not be what fails."""
    from federation.statements.code import CodeBundle

    world.bundle = CodeBundle({"pyproject.toml": b"x = " + b"[" * 50_000 + b"]" * 50_000, "a.py": b""})
    opened = await world.open(world.plan(world.agreement(approval=True)))
    assert (opened.permitted, opened.code) == (False, "approval")
    assert [entry["code"] for entry in world.entries("denied")] == ["approval"]


@pytest.mark.parametrize(
    "path", ["app/__pycache__/client.cpython-311.pyc", "app/client.pyc", "app/client.abi3.so", "A.PYD"]
)
async def test_inv1_code_compiled_beside_the_source_that_owners_are_shown(
    world: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.bundle = CodeBundle(dict(world.bundle.files) | {path: b"\x00"})
    opened = await world.line.open_job(plan := world.plan(world.agreement()), memoryview(world.bundle.to_bytes()))
    assert not opened.permitted and opened.code == "bundle"
    monkeypatch.setattr(code, "_compiled", lambda path: False)
    assert (await world.open(plan)).permitted
