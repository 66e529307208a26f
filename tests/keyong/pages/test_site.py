"""Every page answers, says what is on record, in both languages; what others wrote stays text."""

from __future__ import annotations

import pytest

from federation.ledger.store import reading
from keyong.pages import rendering
from keyong.pages.source import Source
from tests.keyong.pages.conftest import HOSTILE, Mill, Site


async def paths(site: Site, source: Source, mill: Mill) -> list[str]:
    with reading(source.database) as connection:
        size = connection.execute("SELECT size FROM head").fetchone()[0]
        begun = [row[0] for row in connection.execute("SELECT idx FROM entry WHERE kind IN ('intent', 'denied')")]
    found = [
        "/",
        "/search",
        "/agreements",
        "/check",
        f"/agreement/{mill.agreement}",
        *(f"/job/{one}" for one in mill.plans),
    ]
    return [*found, *(f"/entry/{index}" for index in range(size)), *(f"/invocation/{index}" for index in begun)]


async def test_every_page_in_both_languages_and_nothing_of_others_runs(site: Site, source: Source, mill: Mill) -> None:
    for path in await paths(site, source, mill):
        for lang in ("en", "zh"):
            answer = await site.get(path, cookie=f"keyong-lang={lang}")
            assert answer.status_code == 200, (path, answer.text)
            assert f'<html lang="{lang}">' in answer.text
            assert (
                "<script>" not in answer.text
                and "<img" not in answer.text
                and "{{" not in answer.text.replace("{{7", "")
            )
            assert not {"\u202e", "\x07"} & set(answer.text), path


async def test_unescaped_it_would_run(site: Site, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [path for path in ("/", "/search") if "&lt;script&gt;" in (await site.get(path)).text]
    assert shown
    rendering.environment.cache_clear()
    real = rendering.Environment
    monkeypatch.setattr(rendering, "Environment", lambda **options: real(**{**options, "autoescape": False}))
    try:
        assert "<script>document." in (await site.get(shown[0])).text
    finally:
        monkeypatch.undo()
        rendering.environment.cache_clear()


async def test_what_is_asked_comes_back_as_text(site: Site) -> None:
    answer = await site.get("/search", cookie="")
    assert answer.status_code == 200
    for name in ("q", "party", "job", "agreement", "kind", "since", "before"):
        answer = await site.get(f"/search?{name}={HOSTILE}")
        assert "<script>document." not in answer.text and answer.status_code in (200, 404)


async def test_a_search_by_each_facet(site: Site, mill: Mill) -> None:
    cases = {
        "party=lab": 1, "dataset=passes": 1, f"agreement={mill.agreement}": 1, "kind=outcome": 4, "outcome=denied": 1,
        f"job={mill.plans[0][7:15]}": 1, f"q={mill.plans[0][7:15]}": 1, "q=lab+Ltd": 1, "q=nothing-like-it": 0,
        "kind=outcome&since=2999-01-01": 0, "until=2000-01-01": 0,
    }  # fmt: skip
    for query, least in cases.items():
        answer = await site.get(f"/search?{query}")
        count = int(answer.text.split('<p class="count"><b>')[1].split("<")[0].replace(",", ""))
        assert count >= least and (count == 0) == (least == 0), query


async def test_a_number_leads_to_its_entry(site: Site) -> None:
    answer = await site.get("/search?q=3")
    assert answer.status_code == 303 and answer.headers["location"] == "/entry/3"


async def test_the_way_names_who_what_which_clause_and_what_left(site: Site, source: Source, mill: Mill) -> None:
    with reading(source.database) as connection:
        index = connection.execute("SELECT min(idx) FROM entry WHERE kind = 'intent'").fetchone()[0]
    text = (await site.get(f"/invocation/{index}")).text
    for said in (
        "lab Ltd (lab)",
        "mill-a Ltd (mill-a)",
        "passes",
        mill.plans[0][7:19],
        "round 1",
        "Passes",
        "receipt ",
    ):
        assert said in text, said
    refused = (await site.get("/search?kind=denied")).text.split("/invocation/")[1].split('"')[0]
    text = (await site.get(f"/invocation/{int(refused)}")).text
    assert "11" in text or "refused" in text


NOWHERE = (
    "/entry/99999", "/entry/x", "/entry/-1", "/job/none", "/agreement/none", "/invocation/0", "/assets/../app.py",
    "/assets/nothing.css", "/tiles/tile/0/999", "/tiles/../ledger.db", "/tiles/tile/9/000", "/tiles/tile/0/000.p/256",
    "/docs", "/openapi.json", "/search?before=x",
)  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
async def test_what_is_not_there_is_said_and_nothing_leaks(site: Site, path: str) -> None:
    answer = await site.get(path)
    assert answer.status_code == 404 and "Traceback" not in answer.text and "sqlite" not in answer.text.lower()


async def test_a_fault_of_ours_says_nothing_of_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("row value 4711")

    monkeypatch.setattr("keyong.pages.views.Views.overview", broken)
    answer = await site.get("/")
    assert answer.status_code == 500 and "4711" not in answer.text
