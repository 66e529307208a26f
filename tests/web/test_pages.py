"""What a reader's browser finds out by itself, and what no page lets run: in Chromium, over a socket and from files."""

from __future__ import annotations

import html
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.ledger import Checkpoint, Ledger, VerifierKey, parse_note, sign_checkpoint
from keyong.pages import rendering
from keyong.pages.judging import judge
from keyong.pages.source import open_source
from keyong.pages.still import agreement_page
from keyong.text import speaking
from tests.keyong.pages.conftest import RUNS, Mill
from tests.web.conftest import Browser, enter, let_in, serving

PATHS = ("/", "/search", "/agreements", "/check", "/entry/2", "/invocation/2", "/search?kind=intent")


def test_the_browser_verifies_the_whole_ledger(browser: Browser, address: str, mill: Mill) -> None:
    browser.open(f"{address}/check")
    said = browser.checked()
    assert "good" in said and "hashes, order and the ledger's signature hold" in said
    assert "Cosigned by" in said and "mill-b" in said
    note = parse_note((mill.home.path / "ledger" / "ledger.checkpoint").read_bytes())
    assert browser.text("#check-root") == Checkpoint.parse(note.text).root.hex()
    browser.run("document.body.dataset.checked = ''; document.getElementById('check-all').click()")
    assert "It extends the" in browser.checked()
    assert browser.complaints() == []


@pytest.mark.long
def test_each_entry_is_verified_and_shown_from_its_own_bytes(
    browser: Browser, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rendering.environment().filters, "pretty", lambda _: "as the server says")
    for index in (0, 1, 2):
        browser.open(f"{address}/entry/{index}")
        browser.checked()
        assert "good" in browser.run("return document.getElementById('check-entry').className")
        assert "as the server says" not in browser.text("main")
        assert browser.count(".field.verified") == browser.count(".field") > 0
    assert browser.complaints() == []


@pytest.mark.long
@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_the_console_is_silent(browser: Browser, address: str, lang: str, width: int) -> None:
    browser.open(f"{address}/lang/{lang}?to=/", width)
    for path in PATHS:
        browser.open(address + path, width)
        assert browser.run("return document.documentElement.lang") == lang
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), (path, width)
        assert browser.complaints() == [], path
    browser.open(f"{address}/lang/en?to=/")


def change(statement: str) -> Callable[[Path, Mill], None]:
    def work(folder: Path, _: Mill) -> None:
        connection = sqlite3.connect(folder / "ledger.db")
        connection.execute(statement)
        connection.commit()
        connection.close()

    return work


def resigned(folder: Path, _: Mill) -> None:
    """Signed by a key that is not the ledger's."""
    note = (folder / "ledger.checkpoint").read_bytes()
    forged = sign_checkpoint(Checkpoint.parse(parse_note(note).text), SigningKey.generate())
    connection = sqlite3.connect(folder / "ledger.db")
    connection.execute("UPDATE checkpoint SET note = ? WHERE size = (SELECT max(size) FROM checkpoint)", (forged,))
    connection.commit()
    connection.close()


BYTES = "CAST(replace(CAST(data AS TEXT), '\"v\":1', '\"v\":1 ') AS BLOB)"
TAMPERED: dict[str, tuple[Callable[[Path, Mill], None], int | None, str]] = {
    "bytes": (change(f"UPDATE entry SET data = {BYTES} WHERE idx = 3"), 3, "not those that were recorded"),
    "hash": (change("UPDATE entry SET leaf = zeroblob(32) WHERE idx = 4"), 4, "not those that were recorded"),
    "deleted": (change("DELETE FROM entry WHERE idx = 5"), 5, "missing"),
    "reordered": (
        change("UPDATE entry SET data = (SELECT data FROM entry WHERE idx = 6) WHERE idx = 4"),
        4,
        "recorded",
    ),
    "another key": (resigned, None, "not signed by this ledger's key"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_ledger_turns_red_at_the_entry(browser: Browser, mill: Mill, tmp_path: Path, name: str) -> None:
    work, entry, why = TAMPERED[name]
    copy = tmp_path / "copy"
    shutil.copytree(mill.home.path, copy)
    work(copy / "ledger", mill)
    with serving(copy, mill.fingerprint) as (base, access):
        enter(browser, base, access)
        assert browser.count(".own.server.bad") == 1 and "does not hold" in browser.text(".cards")
        browser.open(f"{base}/check")
        said = browser.checked()
        assert "bad" in said and why in said, said
        if entry is not None:
            assert f"at entry {entry}" in said or f"at entry {entry - 1}" in said
            shown = int(browser.run("return document.querySelector('#own-verdict a').pathname.split('/').pop()"))
            browser.open(f"{base}/search")
            assert browser.count(f'tr.broken[data-entry="{shown}"]') == (0 if name == "deleted" else 1)
            browser.open(f"{base}/entry/{shown + (name == 'deleted')}")
            browser.checked()
            assert "bad" in browser.run("return document.getElementById('check-entry').className")


def test_a_changed_field_is_red_though_the_tree_holds(browser: Browser, mill: Mill, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mill.home.path, copy)
    change("""UPDATE field SET payload = CAST('"other"' AS BLOB) WHERE idx = 1 AND name = 'requester'""")(
        copy / "ledger", mill
    )
    with serving(copy, mill.fingerprint) as (base, access):
        enter(browser, base, access)
        browser.open(f"{base}/entry/1")
        said = browser.checked()
        assert "requester" in browser.text("#check-entry") and "bad" in said
        browser.open(f"{base}/check")
        assert "good" in browser.checked()  # fields are no part of the tree: the entry's page says it


@pytest.mark.long
def test_a_ledger_that_was_put_back_is_noticed(browser: Browser, mill: Mill, tmp_path: Path) -> None:
    with serving(mill.home.path, mill.fingerprint) as (base, access):
        enter(browser, base, access)
        for size in (9999, 3):
            seen = f"JSON.stringify({{size: {size}, root: '00', time: ''}})"
            browser.run(f"localStorage.setItem('keyong-seen:' + document.body.dataset.origin, {seen})")
            browser.open(f"{base}/check")
            assert f"{size} entries before" in browser.checked()


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 600])
def test_every_shape_of_tree(browser: Browser, address: str, tmp_path: Path, size: int) -> None:
    key = SigningKey.generate()
    with Ledger.create(tmp_path, "keyong/test/shape", key) as ledger:
        for one in [ledger.submit("note", {"number": number}) for number in range(size)]:
            one.result()
        vkey = str(VerifierKey("keyong/test/shape", key.public))
        ledger.write_tiles(tmp_path / "tiles")
    files = {
        path.relative_to(tmp_path / "tiles").as_posix(): list(path.read_bytes())
        for path in (tmp_path / "tiles").rglob("*") if path.is_file()
    }  # fmt: skip
    browser.open(f"{address}/check")
    browser.checked()
    browser.driver.set_script_timeout(30)
    found = browser.driver.execute_async_script(
        """
        const [files, vkey, indices, done] = arguments;
        const fetchFile = async (path) => {
          if (!(path in files)) throw new Check.Fault("missing");
          return Uint8Array.from(files[path]);
        };
        (async () => {
          const whole = await Check.checkAll({ fetchFile, vkey, witnesses: [] });
          for (const index of indices) {
            const one = await Check.checkEntry({ fetchFile, vkey, witnesses: [], index });
            if (one.envelope.index !== index || !one.signed) throw new Error("another entry");
          }
          done([whole.size, whole.signed]);
        })().catch((error) => done(String(error) + error.entry));
        """,
        files,
        vkey,
        sorted({0, size // 2, max(0, size - 1), min(255, max(0, size - 1))}) if size else [],
    )
    assert found == [size, True]


@pytest.mark.long
def test_a_tree_of_three_levels(browser: Browser, address: str) -> None:
    """More than 65,536 entries: tiles above tiles; only those that lie on an entry's way are fetched."""
    from federation.ledger.entry import Entry, encode
    from federation.ledger.merkle import Frontier, leaf_hash
    from federation.ledger.tiles import tile_path

    size, wanted = 256 * 256 + 256 * 3 + 7, (0, 300, 65_535, 65_536, 66_200, 66_310)
    key, tree, levels = SigningKey.generate(), Frontier(), ([], [], [])  # type: ignore[var-annotated]
    kept: dict[int, list[bytes]] = {}
    for index in range(size):
        data = encode(Entry(index, "note", "0" * 64, "2026-01-01T00:00:00.000Z", "0" * 32, None, {}))
        if index // 256 in {one // 256 for one in wanted}:
            kept.setdefault(index // 256, []).append(data)
        levels[0].append(leaf_hash(data))
        for done in tree.append(levels[0][-1]):
            levels[done.level].append(done.hash)
    origin = "keyong/test/levels"
    files = {"checkpoint": sign_checkpoint(Checkpoint(origin, size, tree.root()), key)}
    for number, entries in kept.items():
        files[tile_path("entries", number, len(entries))] = b"".join(
            len(one).to_bytes(2, "big") + one for one in entries
        )
    for level, hashes in enumerate(levels):
        for number in range(-(-len(hashes) // 256)):
            row = hashes[256 * number : 256 * number + 256]
            if level or number in kept or len(row) < 256:
                files[tile_path(level, number, len(row))] = b"".join(row)
    browser.open(f"{address}/check")
    browser.checked()
    found = browser.driver.execute_async_script(
        """
        const [files, vkey, indices, done] = arguments;
        const fetchFile = async (path) => {
          if (!(path in files)) throw new Check.Fault("missing " + path);
          return Uint8Array.from(files[path]);
        };
        (async () => {
          const found = [];
          const check = (index) => Check.checkEntry({ fetchFile, vkey, witnesses: [], index });
          for (const index of indices) found.push((await check(index)).envelope.index);
          files[Object.keys(files).find((path) => path.startsWith("tile/2/"))][0] ^= 1;
          await check(indices[0]).catch((error) => found.push(error.code));
          done(found);
        })().catch((error) => done(String(error)));
        """,
        {path: list(content) for path, content in files.items()},
        str(VerifierKey(origin, key.public)),
        wanted,
    )
    assert found == [*wanted, "modified"]


# -- nothing of others runs ---------------------------------------------------------------------------------------------------


def unguarded(app: Any) -> Any:
    """The application with its content security policy taken away."""

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        async def without(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [one for one in message["headers"] if one[0] != b"content-security-policy"]
                message = {**message, "headers": kept}
            await send(message)

        await app(scope, receive, without)

    return bare


@pytest.mark.parametrize(("escaped", "policy"), [(True, True), (True, False), (False, True), (False, False)])
def test_hostile_names_run_only_where_both_protections_are_gone(
    browser: Browser, mill: Mill, monkeypatch: pytest.MonkeyPatch, escaped: bool, policy: bool
) -> None:
    rendering.environment.cache_clear()
    if not escaped:
        real = rendering.Environment
        monkeypatch.setattr(rendering, "Environment", lambda **options: real(**{**options, "autoescape": False}))
    try:
        with serving(mill.home.path, mill.fingerprint, (lambda app: app) if policy else unguarded) as (base, access):
            let_in(browser, base, access)
            assert browser.ran(f"{base}/search") is (not escaped and not policy)
    finally:
        monkeypatch.undo()
        rendering.environment.cache_clear()


@pytest.mark.long
def test_another_site_gets_nothing(browser: Browser, address: str, tmp_path: Path) -> None:
    """A page of another port on this host is another site's page: its requests bring the cookie, and are refused."""
    text = f"<!doctype html><iframe src='{address}/search'></iframe><script src='{address}/assets/check.js'></script>"
    asked = "fetch(target, {mode: 'no-cors', credentials: 'include'}).then((r) => r.text()).then(done, () => done('refused'))"
    with serving_text(text) as other:
        browser.open(other)
        browser.until("return document.readyState === 'complete'")
        for path in ("/search", "/tiles/checkpoint"):
            found = browser.driver.execute_async_script(f"const [target, done] = arguments; {asked}", address + path)
            assert found == "refused"
        assert browser.run("return typeof Check") == "undefined"


def serving_text(text: str) -> Any:
    """A site of one page."""
    import threading
    from contextlib import contextmanager
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    @contextmanager
    def run() -> Any:
        server = HTTPServer(("127.0.0.1", 0), Page)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return run()


@pytest.mark.long
def test_no_script_of_the_page_itself_can_write(browser: Browser, address: str) -> None:
    browser.open(address)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        status = browser.driver.execute_async_script(
            "const [method, done] = arguments; fetch('/search', {method}).then((r) => done(r.status), () => done(0))",
            method,
        )
        assert status == 405


# -- a file ---------------------------------------------------------------------------------------------------------------------


def still(mill: Mill, path: Path, lang: str = "en") -> Path:
    with speaking(lang), open_source(mill.home.path, mill.fingerprint) as source:  # type: ignore[arg-type]
        source.index.bring_up()
        path.write_text(agreement_page(source, mill.agreement, judge(source.path, mill.fingerprint)), encoding="utf-8")
    return path


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_file_opens_from_a_disk_and_verifies_itself(browser: Browser, mill: Mill, tmp_path: Path, lang: str) -> None:
    path = still(mill, tmp_path / "agreement.html", lang)
    for width in (1280, 390):
        browser.open(path.as_uri(), width)
        said = browser.checked()
        assert "good" in said and ("mill-b" in said), said
        assert browser.count("details.entry.verified") == browser.count("details.entry") > 5
        browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        assert browser.complaints() == []
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "") and "<img" not in text


@pytest.mark.long
def test_a_file_that_was_changed_says_so_at_the_entry(browser: Browser, mill: Mill, tmp_path: Path) -> None:
    path = still(mill, tmp_path / "agreement.html")
    text = path.read_text(encoding="utf-8")
    found = re.search(r'data-bundles="([^"]*)"', text)
    assert found is not None
    bundles = json.loads(html.unescape(found[1]))
    for part, why in (("data", "not those"), ("proof", "not those"), ("fields", "not the one")):
        changed = json.loads(json.dumps(bundles))
        one = changed[3]
        if part == "data":
            one["data"] = bundles[4]["data"]
        elif part == "proof":
            one["proof"] = one["proof"][::-1]
        else:
            one["fields"][0]["salt"] = "A" * 43 + "="
        path.write_text(text.replace(found[1], html.escape(json.dumps(changed))), encoding="utf-8")
        browser.open(path.as_uri())
        said = browser.checked()
        assert "bad" in said and f"at entry {one['index']}" in said and why in said
        assert browser.count(f'details.broken[data-entry="{one["index"]}"]') >= 1


def test_no_other_script_runs_in_a_file(browser: Browser, mill: Mill, tmp_path: Path) -> None:
    path = still(mill, tmp_path / "agreement.html")
    text = path.read_text(encoding="utf-8").replace("<main", f"{RUNS}<main", 1)
    path.write_text(text, encoding="utf-8")
    assert not browser.ran(path.as_uri())
    path.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), encoding="utf-8")
    assert browser.ran(path.as_uri())
