"""Commands that are killed at any of their writes: the home stays usable, and doing it again does it.

Every write is a kill point with ``make crash``; else some, spread over all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.crypto import remove_unfinished
from tests.faults import checks, forked, injection
from tests.faults.consortium import ForkedConsortium
from tests.faults.forked import ForkedParty
from tests.faults.injection import ANY, DIE_AFTER, Fault
from tests.integration.consortium import PURPOSE, write_records

STEP = 1 if os.environ.get("KEYONG_ALL_FAULTS") else 9


def killed(party: ForkedParty, *arguments: str | Path, text: str, step: int = STEP) -> Iterator[int]:
    """Kill the command at its first write, then at a later one, until one run of it is not killed any more."""
    nth = 1
    while True:
        running = party.start(*arguments, fault=Fault(ANY, DIE_AFTER, text, nth, 1))
        code = running.ended()
        if not running.faults.hit:
            assert code == 0, running.text
            return
        assert code == -9, running.text
        yield nth
        nth += step


@pytest.fixture(scope="module")
def inject() -> None:
    """Faults can be injected here."""
    if not forked.begin():
        pytest.skip(injection.NO_COMPILER)


def test_founding_is_killed(inject: None, tmp_path: Path) -> None:
    name = f"home-{os.getpid()}"
    party = ForkedParty(tmp_path, name, {})
    arguments = ("consortium", "init", "--name", "Mills", "--member", "institute", "--entity", "Institute Ltd")
    address = ("--address", "127.0.0.1:7443")
    met = 0
    for nth in killed(party, *arguments, *address, text=f"{name}/"):
        met += 1
        if not (party.home / "identity.json").exists():
            continue  # the next run, in the same folder, has to cope
        assert party.ok("whoami").json["member"] == "institute", nth
        party.home.rename(tmp_path / f"made-{nth}")
    assert met >= 3
    assert party.ok("whoami").json["member"] == "institute"
    for folder in (party.home, *party.home.iterdir()):
        if folder.is_dir():
            remove_unfinished(folder)  # what serving does first
    checks.check_no_leftovers(party.home)
    checks.Account(party.home).check()


@pytest.mark.long
def test_registering_offering_and_exporting_are_killed(faulty: ForkedConsortium) -> None:
    mill = faulty.mills[0]
    other = faulty.folder / "records" / "other.csv"
    write_records(other, 50, seed=9)
    export = faulty.folder / f"export-{os.getpid()}"
    offer = ("agreement", "offer", "--to", "institute", "--dataset", "other", "--title", "Other")
    commands: list[tuple[str | Path, ...]] = [
        ("node", "dataset", "add", "other", other, "--title", "Other", "--simulated"),
        (*offer, "--purpose", PURPOSE, "--expires", "30d", "--protection", "none"),
        ("ledger", "export", export),
    ]
    account = checks.Account(mill.home)
    for command in commands:
        exporting = command[0] == "ledger"
        touched, step = (export.name, 1) if exporting else ("mill-a/", STEP)
        for nth in killed(mill, *command, text=touched, step=step):
            account.check(whole=False)
            assert mill.run("agreement", "list").code == 0, nth
            assert not export.exists() or mill.run("verify", export, "--root", faulty.fingerprint).code == 0, nth
            if command[1] == "dataset":
                mill.run("node", "dataset", "remove", "other")
    account.check()
    mill.ok("verify", export, "--root", faulty.fingerprint)
    ended = faulty.institute.run(*faulty.request("--dataset", "mill-a/passes", rounds=1))
    assert ended.code == 0, ended.err
