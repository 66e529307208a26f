"""What surrounds the line and goes wrong: invitations, ports, clocks, disks, file modes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from federation.home import now
from federation.statements.enrolment import Invitation
from tests.integration.consortium import Consortium
from tests.integration.parties import Ended, ForkedParty, Party, environment, until
from tests.integration.rogue import in_place_of_the_coordinator
from tests.ports import own_port


def test_invitations_that_do_not_hold(consortium: Consortium, tmp_path: Path) -> None:
    path = consortium.invite("analyst", "Analyst Ltd", "--role", "analyst")
    text = path.read_text().strip()
    fresh = ForkedParty(tmp_path, "fresh")
    fresh.run("join", str(tmp_path / "absent")).refused(2, "no file")
    fresh.run("join", "hello").refused(2, "not an invitation")
    fresh.run("join", text[:-40]).refused(2, "damaged")
    fresh.run("join", text, "--fingerprint", "sha256:" + "0" * 64).refused(2, "fingerprint")
    old = Invitation.from_text(text).model_copy(update={"expires": (now() - timedelta(days=1)).replace(microsecond=0)})
    fresh.run("join", old.to_text()).refused(2, "expired")
    assert not (fresh.home / "identity.json").exists(), "a refused invitation leaves no identity"
    fresh.ok("join", path, "--fingerprint", consortium.fingerprint)
    ForkedParty(tmp_path, "second").run("join", text).refused(5, "used before")
    fresh.run("join", text).refused(2, "already holds an identity")
    consortium.institute.ok("consortium", "remove", "analyst")
    until(lambda: fresh.run("coordinator", "status").code != 0, "a removed member is still let in")


def test_no_coordinator_and_a_port_in_use(tmp_path: Path) -> None:
    other = ForkedParty(tmp_path, "other")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", own_port()))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("--name", "Other", "--member", "other", "--entity", "Other Ltd", "--address", address)
        other.ok("consortium", "init", *arguments)
        other.run("coordinator", "serve").refused(5, address, "in use")
    other.run("catalog", "list").refused(5, "cannot reach", address)
    other.run("consortium", "init", *arguments).refused(2, "already holds")


def test_inv8_keys_that_others_could_read(consortium: Consortium, tmp_path: Path) -> None:
    copy = ForkedParty(tmp_path, "copy")
    shutil.copytree(consortium.mill("a").home, copy.home, ignore=shutil.ignore_patterns("*.sock"))
    key = copy.home / "keys" / "statement.key"
    key.chmod(0o644)
    done = copy.run("node", "serve")
    done.refused(done.code, str(key))
    assert done.code in (2, 4, 5), done.err
    assert "chmod" in done.err, "it says how to repair it"


def _on_a_small_disk(party: Party, mount: Path, size: str, script: str, *arguments: str | Path) -> Ended:
    """Run a command with the home on a file system of its own, in a mount namespace that ends with it."""
    own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    made = f'mount -t tmpfs -o size={size} tmpfs "{mount}" && '
    if subprocess.run([*own, "sh", "-c", made + "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system of his own")
    command = party.command(*arguments)
    done = subprocess.run(
        [*own, "sh", "-c", made + script + ' exec "$@"', "sh", *command],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this machine lets nobody close a file system of his own: " + done.stderr)
    return Ended(done.returncode, done.stdout, done.stderr)


SETTLED = (
    "import pathlib, sqlite3\n"
    "for path in pathlib.Path('home').rglob('*.db'): sqlite3.connect(path).execute('PRAGMA wal_checkpoint(TRUNCATE)')"
)
"""A copy of a home that was served holds logs of its databases, whose end would make room on a full disk."""


@pytest.mark.parametrize(
    "spoil",
    ["dd if=/dev/zero of=fill bs=4k 2>/dev/null;", 'mount -o remount,ro "$PWD" || exit 77;'],
    ids=["full", "read-only"],
)
def test_inv2_a_disk_that_takes_nothing(consortium: Consortium, tmp_path: Path, spoil: str) -> None:
    """What cannot be put on record does not happen."""
    mount = tmp_path / "mount"
    mount.mkdir()
    party = Party(mount, "home")
    source = consortium.mill("b").home
    script = f'cd "{mount}" && cp -a "{source}" home && "{sys.executable}" -c "{SETTLED}" && {spoil}'
    data = consortium.records(consortium.mill("b"))
    done = _on_a_small_disk(
        party, mount, "16m", script, "node", "dataset", "add", "more", data, "--title", "More", "--simulated"
    )
    assert done.code != 0, done.out
    assert "Traceback" not in done.err and "error: " in done.err, done.err
    assert "internal error" not in done.err, done.err


def test_a_clock_that_is_off(consortium: Consortium, tmp_path: Path) -> None:
    """The coordinator's clock differs by an hour: the node says by how much, and what to do."""
    mill = consortium.mill("a")
    assert mill.service is not None
    seen, began = len(mill.service.events), time.monotonic()
    with in_place_of_the_coordinator(consortium, tmp_path, ahead=timedelta(hours=1)):
        told = until(
            lambda: [str(one) for one in mill.service.events[seen:] if "apart" in str(one)], "nothing was said", 30
        )
        (apart,) = re.findall(r"(\d+) s apart", told[0])
        # what an answer was on its way counts as a difference, and a second by rounding
        assert abs(int(apart) - 3600) <= time.monotonic() - began + 1, told
        consortium.institute.run("catalog", "list").refused(5, "apart")
