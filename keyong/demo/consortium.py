"""What every story begins with: a consortium founded, members entered, offers made and signed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from keyong.demo.parties import DemoError, Party


def begin(stack: ExitStack, founder: Party, members: Sequence[Party], name: str, entities: Mapping[str, str]) -> str:
    """Found a consortium with its coordinator serving, and let every member join; returns the root fingerprint."""
    folder = founder.home.parent
    for part in ("logs", "invitations"):
        (folder / part).mkdir(mode=0o700, exist_ok=True)
    # Told beforehand, for the roster names it and a restart must find it again.
    address = f"127.0.0.1:{free_port()}"
    founder.run(
        "consortium",
        "init",
        "--name",
        name,
        "--member",
        founder.name,
        "--entity",
        f"{name} Institute",
        "--address",
        address,
    )
    fingerprint: str = founder.run("whoami")["consortium"]["fingerprint"]
    stack.enter_context(founder.serve("coordinator", "serve", logs=folder / "logs")).wait_for("ready")
    for member in members:
        invitation = folder / "invitations" / member.name
        founder.run("consortium", "invite", member.name, "--entity", entities[member.name], "-o", str(invitation))
    two_at_a_time(
        members,
        lambda one: one.run("join", str(folder / "invitations" / one.name), "--fingerprint", fingerprint),
    )
    return fingerprint


def two_at_a_time(parties: Sequence[Party], work: Callable[[Party], Any]) -> None:
    """Have each party do some work, as many at once as the smallest machine has cores; raises what the first raised."""
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, party) for party in parties]:
            done.result()


def agree(
    consumer: Party,
    providers: Sequence[Party],
    *,
    dataset: str,
    title: str,
    purpose: str,
    app: Path | None,
    count: int,
    expires: str,
    min_participants: int | None = 3,
    protection: str = "masked",
    actions: Sequence[str] = ("train", "evaluate"),
) -> list[dict[str, Any]]:
    """Every provider offers, the consumer signs; returns the agreements once each provider holds its own."""
    code = [] if app is None else ["--app", str(app)]
    asked = [part for action in actions for part in ("--action", action)]
    least = [] if min_participants is None else ["--min-participants", str(min_participants)]
    two_at_a_time(
        providers,
        lambda provider: provider.run(
            "agreement", "offer", "--to", consumer.name, "--dataset", dataset, "--title", title,
            *asked, "--purpose", purpose, "--count", str(count),
            "--expires", expires, *code, "--protection", protection, *least,
        ),
    )  # fmt: skip
    offers: list[dict[str, Any]] = consumer.run("inbox")["offers"]
    for offer in offers:
        consumer.run("agreement", "sign", offer["id"])

    def arrived(provider: Party) -> None:
        wanted = {offer["digest"] for offer in offers if offer["provider"] == provider.name}
        until(partial(_holds, provider, wanted), "no signed agreement reached {name}", provider.name)

    two_at_a_time(providers, arrived)
    return offers


def _holds(provider: Party, wanted: set[str]) -> bool:
    return wanted <= _held(provider)


def _held(provider: Party) -> set[str]:
    # One that has expired meanwhile has arrived all the same.
    listed = provider.run("agreement", "list", "--all")
    return {item["digest"] for item in listed if item["state"] in ("in-force", "expired")}


def until(holds: Callable[[], bool], otherwise: str, name: str, seconds: float = 60.0) -> None:
    """Wait for a condition; raises :class:`DemoError` with the sentence where it does not come true in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise DemoError(otherwise, name=name)
        time.sleep(0.05)


def free_port() -> int:
    """A port that is free now on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
