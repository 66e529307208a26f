"""The index finds what a look at every entry would find, forgets what is erased, and is never asked what is true."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.crypto import SigningKey
from federation.ledger import Ledger
from federation.ledger.store import reading
from keyong.pages import index as module
from keyong.pages.index import Index, covered, forget, glances
from keyong.pages.search import Wanted, search
from keyong.pages.source import Source

FACETS = ("party", "dataset", "kind", "outcome")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small ledger has many."""
    for name in ("keyong.pages.index.BLOCK", "keyong.pages.search.BLOCK"):
        monkeypatch.setattr(name, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A ledger of 150 entries of a few parties, datasets and outcomes."""
    path = tmp_path_factory.mktemp("indexed")
    with Ledger.create(path, "keyong/test/indexed", SigningKey.generate()) as ledger:
        for number in range(150):
            fields = {"requester": f"p{number % 7}", "dataset": f"d{number % 5}"}
            fields |= {"outcome": "ok" if number % 3 else "failed"}
            ledger.append("intent" if number % 2 else "owner", fields)
    yield path


@pytest.fixture
def indexed(folder: Path, tmp_path: Path, small_blocks: None) -> Index:
    """Its index, in blocks of sixteen."""
    found = Index(folder, tmp_path / "pages")
    assert found.bring_up() == 150
    return found


@given(
    st.dictionaries(st.sampled_from(FACETS), st.integers(0, 8), max_size=3),
    st.one_of(st.none(), st.integers(0, 160)),
    st.integers(1, 20),
)
def test_a_search_is_a_look_at_every_entry(chosen: dict[str, int], before: int | None, page: int) -> None:
    _same_as_a_look(chosen, before, page)


_ONE: list[tuple[Index, Path]] = []


@pytest.fixture(autouse=True)
def _one(indexed: Index, folder: Path) -> Iterator[None]:
    _ONE[:] = [(indexed, folder)]
    yield
    _ONE.clear()


def _same_as_a_look(chosen: dict[str, int], before: int | None, page: int) -> None:
    indexed, folder = _ONE[0]
    names = {"party": "p{}", "dataset": "d{}", "kind": "intent", "outcome": "ok"}
    facets = tuple((name, names[name].format(number)) for name, number in chosen.items())
    with reading(folder / "ledger.db") as ledger, indexed.reader() as index:
        matching = [one.index for one in glances(ledger, 0, 150) if set(facets) <= set(one.terms())]
        found = search(index, ledger, Wanted(facets), before, page)  # type: ignore[arg-type]
        top = 150 if before is None else before
        older = [one for one in reversed(matching) if one < top]
        assert list(found.indices) == older[:page]
        assert found.total == len(matching)
        assert (found.older is None) == (len(older) <= page)
        if found.older is not None:
            following = search(index, ledger, Wanted(facets), found.older, page)  # type: ignore[arg-type]
            assert list(following.indices) == older[page : 2 * page]
        newer = [one for one in matching if one >= top]
        assert (found.newer is None) == (not newer)
        if newer and found.newer is not None:
            back = search(index, ledger, Wanted(facets), found.newer, page)  # type: ignore[arg-type]
            assert list(back.indices)[: len(newer[:page])] == newer[:page][::-1]


def test_words_stand_for_beginnings_and_all_have_to_match(indexed: Index, folder: Path) -> None:
    with reading(folder / "ledger.db") as ledger, indexed.reader() as index:
        assert search(index, ledger, Wanted(words=("p3",))).total == 21
        assert search(index, ledger, Wanted(words=("P3", "d1"))).total == len(
            [n for n in range(150) if n % 7 == 3 and n % 5 == 1]
        )
        assert search(index, ledger, Wanted(words=("p3", "no-such"))).total == 0
        assert search(index, ledger, Wanted(words=("acme",)), also=[("p3", "ACME Steel")]).total == 21


def test_it_grows_with_the_ledger_and_is_the_same_as_made_at_once(tmp_path: Path, small_blocks: None) -> None:
    with Ledger.create(tmp_path, "keyong/test/growing", SigningKey.generate()) as ledger:
        growing = Index(tmp_path, tmp_path / "a")
        for number in range(40):
            ledger.append("owner", {"requester": f"p{number % 3}"})
            if number % 7 == 0:
                growing.bring_up()
        growing.bring_up()
        whole = Index(tmp_path, tmp_path / "b")
        whole.bring_up()
        tables = []
        for one in (growing, whole):
            with one.reader() as connection:
                tables.append(
                    connection.execute(
                        "SELECT facet, value, count, block, bits FROM term JOIN posting ON term = id ORDER BY 1, 2, 4"
                    ).fetchall()
                )
        assert tables[0] == tables[1] and tables[0]


def _bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_what_is_erased_is_not_kept_here(tmp_path: Path) -> None:
    with Ledger.create(tmp_path, "keyong/test/erased", SigningKey.generate()) as ledger:
        kept = ledger.append("owner", {"requester": "somebody-secret", "dataset": "passes"})
        index = Index(tmp_path, tmp_path / "pages")
        index.bring_up()
        assert b"somebody-secret" in _bytes(tmp_path / "pages")
        ledger.erase(kept.index, ["requester"], "asked to")
        index.bring_up()
        assert b"somebody-secret" not in _bytes(tmp_path / "pages")
        with index.reader() as connection, reading(tmp_path / "ledger.db") as read:
            assert search(connection, read, Wanted((("party", "somebody-secret"),))).total == 0
            assert search(connection, read, Wanted((("dataset", "passes"),))).total == 1


def test_forgetting_removes_every_file_of_it(tmp_path: Path) -> None:
    with Ledger.create(tmp_path, "keyong/test/forgotten", SigningKey.generate()) as ledger:
        ledger.append("owner", {"requester": "p"})
        Index(tmp_path, tmp_path / "pages").bring_up()
    forget(tmp_path)
    assert list((tmp_path / "pages").iterdir()) == []
    forget(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["another ledger", "another version", "not a database"])
def test_an_index_that_does_not_fit_is_made_anew(tmp_path: Path, damage: str) -> None:
    with Ledger.create(tmp_path, "keyong/test/anew", SigningKey.generate()) as ledger:
        ledger.append("owner", {"requester": "p"})
        index = Index(tmp_path, tmp_path / "pages")
        index.bring_up()
        if damage == "not a database":
            forget(tmp_path)
            index.path.write_bytes(b"nothing of the kind" * 100)
        else:
            value = ("leaf", "00") if damage == "another ledger" else ("version", "0")
            connection = index._open()
            connection.execute("UPDATE meta SET value = ? WHERE name = ?", value[::-1])
            connection.execute("UPDATE term SET value = 'stale'")
            connection.close()
        assert index.bring_up() == 1
        with index.reader() as connection, reading(tmp_path / "ledger.db") as read:
            assert search(connection, read, Wanted((("party", "p"),))).total == 1


def test_a_damaged_ledger_is_indexed_as_far_as_it_can_be_read(source: Source, tmp_path: Path) -> None:
    import sqlite3

    shutil.copytree(source.folder, tmp_path / "ledger")
    connection = sqlite3.connect(tmp_path / "ledger" / "ledger.db")
    connection.execute("UPDATE entry SET data = x'00', kind = 'x' WHERE idx = 2")
    connection.execute("UPDATE field SET payload = x'ff' WHERE idx = 3")
    connection.execute("DELETE FROM entry WHERE idx = 4")
    connection.commit()
    connection.close()
    index = Index(tmp_path / "ledger", tmp_path / "pages")
    total = index.bring_up()
    with index.reader() as made:
        assert covered(made) == total > 5


def test_it_is_for_its_owner_alone(indexed: Index) -> None:
    assert indexed.path.stat().st_mode & 0o077 == 0
    assert indexed.path.parent.stat().st_mode & 0o077 == 0
    assert module.FILE == "index.db"
