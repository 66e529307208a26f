"""`keyong ledger serve` as a process, and `keyong ledger page` as a command, on a home and on an export."""

from __future__ import annotations

import http.client
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from federation.errors import UsageError
from federation.ledger import LedgerUnreadableError
from federation.ledger.store import reading
from federation.ledger.unpack import unpack_export
from keyong.pages.serving import parse_address
from keyong.pages.source import open_source
from tests.keyong.conftest import Process, Run
from tests.keyong.pages.conftest import Mill


@pytest.fixture
def started(mill: Mill, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts the pages of the mill, and ends them."""
    running: list[Process] = []

    def start(*arguments: object) -> Process:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        log = tmp_path / f"serve-{len(running)}.log"
        running.append(
            Process("ledger", "serve", *arguments, "--listen", "127.0.0.1:0", environment=environment, log=log)
        )
        return running[-1]

    yield start
    for one in running:
        one.end()


def ask(link: str, cookie: str = "") -> tuple[int, str, str]:
    """A page over a socket of its own; the cookie that came with it."""
    place = urlsplit(link)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
    try:
        connection.request("GET", f"{place.path}?{place.query}", headers={"cookie": cookie})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), (answer.headers["set-cookie"] or "").split(";")[0]
    finally:
        connection.close()


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_a_process_prints_a_link_serves_judges_and_ends(mill: Mill, started: Callable[..., Process]) -> None:
    process = started("--home", mill.home.path)
    link = process.wait_for("ready")["link"]
    base = link.split("/login")[0]
    assert ask(base + "/")[0] == 401
    status, _, cookie = ask(link)
    assert status == 200 and ask(link)[0] == 401
    assert until(lambda: 'big good">holds' in ask(base + "/", cookie)[1])
    assert "entries found" in ask(f"{base}/search?party=lab", cookie)[1]
    process.process.send_signal(signal.SIGUSR1)
    until(lambda: len(process.events()) == 2)
    assert ask(process.events()[1]["link"])[0] == 200
    assert process.end() == 0
    assert (mill.home.path / "pages" / "index.db").is_file()


def test_an_export_is_served_without_its_home(mill: Mill, started: Callable[..., Process], tmp_path: Path) -> None:
    export = mill.parties.export("mill-a", tmp_path / "mill-a.export")
    before = export.read_bytes()
    process = started(export, "--root", mill.fingerprint)
    link = process.wait_for("ready")["link"]
    _, _, cookie = ask(link)
    page = until(lambda: (text := ask(link.split("/login")[0] + "/", cookie)[1]) and 'big good">holds' in text and text)
    assert "mill-a Ltd" in page and "uses" in page
    assert process.end() == 0
    assert export.read_bytes() == before and sorted(
        path.name for path in tmp_path.iterdir() if "serve" not in path.name
    ) == ["mill-a.export"]


def test_the_ledger_is_opened_for_reading_alone(mill: Mill) -> None:
    with open_source(mill.home.path, mill.fingerprint) as source:
        with pytest.raises(LedgerUnreadableError, match="readonly"), reading(source.database) as connection:
            connection.execute("DELETE FROM entry")
    assert mill.parties.ledgers["mill-a"].size > 10


def test_an_export_cut_in_half_is_shown_as_far_as_it_goes(mill: Mill, tmp_path: Path) -> None:
    whole = mill.parties.export("mill-a", tmp_path / "whole.export").read_bytes()
    part = tmp_path / "part.export"
    part.write_bytes(whole[: len(whole) * 2 // 3])
    with open_source(part, mill.fingerprint) as source:
        assert source.damage is not None
        assert 0 < source.index.bring_up() < 30


def test_what_is_no_export_is_refused(keyong: Run, tmp_path: Path, mill: Mill) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"nothing of the kind\n")
    ran = keyong("ledger", "serve", other, "--root", mill.fingerprint)
    assert ran.code == 4 and "Traceback" not in ran.err
    ran = keyong("ledger", "serve", tmp_path / "nowhere", "--root", mill.fingerprint)
    assert ran.code == 2
    ran = keyong("ledger", "serve", mill.home.path)
    assert ran.code == 2 and "--root" in ran.err


@pytest.mark.parametrize(
    "text", ["", "8741", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "0.0.0.0:8741", "[::]:1", "10.0.0.1:1"]
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text, ())


def test_addresses_that_are_taken() -> None:
    assert parse_address("localhost:0", ())[:2] == ("127.0.0.1", 0)
    assert parse_address("[::1]:5", ())[:2] == ("::1", 5)
    assert "ledger.example.com" in parse_address("0.0.0.0:1", ("Ledger.example.com",))[2]


def test_a_page_is_written_and_says_where_a_ledger_does_not_hold(keyong: Run, mill: Mill, tmp_path: Path) -> None:
    import shutil

    target = tmp_path / "page.html"
    ran = keyong("--home", mill.home.path, "ledger", "page", "--agreement", mill.agreement[7:15], "-o", target)
    assert ran.code == 0, ran.err
    text = target.read_text(encoding="utf-8")
    assert (
        "Content-Security-Policy" in text
        and "unsafe" not in text
        and "<script>document." not in text
        and mill.agreement in text
    )
    assert keyong("--home", mill.home.path, "ledger", "page", "--agreement", "ffffffffffff", "-o", target).code == 2
    copy = tmp_path / "copy"
    shutil.copytree(mill.home.path, copy)
    connection = sqlite3.connect(copy / "ledger" / "ledger.db")
    connection.execute(
        "UPDATE entry SET data = CAST(replace(CAST(data AS TEXT), '2026', '2025') AS BLOB) WHERE idx = 3"
    )
    connection.execute("UPDATE entry SET data = CAST(CAST(data AS TEXT) || ' ' AS BLOB) WHERE idx = 3")
    connection.commit()
    connection.close()
    ran = keyong("--home", copy, "ledger", "page", "--agreement", mill.agreement[7:15], "-o", target)
    assert ran.code == 4 and target.is_file() and "panel own bad" in target.read_text(encoding="utf-8")


def test_an_audit_as_a_page(keyong: Run, mill: Mill, tmp_path: Path) -> None:
    target = tmp_path / "audit.html"
    ran = keyong("audit", mill.home.path, "--root", mill.fingerprint, "--page", target)
    text = target.read_text(encoding="utf-8")
    assert ran.code in (0, 4) and "mill-a Ltd" in text and "Content-Security-Policy" in text


def test_unpacking_gives_the_ledgers_own_rows(mill: Mill, tmp_path: Path) -> None:
    part = tmp_path / "ledger.export"
    mill.parties.ledgers["mill-a"].export(part, disclose=lambda entry: tuple(entry.fields))
    assert unpack_export(part, tmp_path / "ledger.db") is None
    rows = "SELECT idx, kind, ref, time, leaf, data FROM entry ORDER BY idx"
    with reading(tmp_path / "ledger.db") as made, mill.parties.ledgers["mill-a"].reader() as own:
        assert made.execute(rows).fetchall() == own.execute(rows).fetchall()
        fields = "SELECT * FROM field ORDER BY idx, name"
        assert made.execute(fields).fetchall() == own.execute(fields).fetchall()
        assert made.execute("SELECT * FROM head").fetchall() == own.execute("SELECT * FROM head").fetchall()
