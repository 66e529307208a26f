"""Who is turned away: other names, other sites, other methods, no cookie, a used link. Each protection is taken away once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from keyong.pages import access as rules
from keyong.pages.access import LINK_SECONDS, SESSION_SECONDS, SESSIONS, Access
from tests.keyong.pages.conftest import Site


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_link_works_once() -> None:
    access = Access()
    token = access.new_link()
    session = access.redeem(token)
    assert session is not None and access.knows(session)
    assert access.redeem(token) is None
    assert access.redeem("") is None and not access.knows("") and not access.knows(token)


def test_a_new_link_ends_the_one_before() -> None:
    access = Access()
    before = access.new_link()
    access.new_link()
    assert access.redeem(before) is None


def test_links_and_sessions_end_with_time() -> None:
    time = Time()
    access = Access(clock=time)
    late = access.new_link()
    time.now += LINK_SECONDS + 1
    assert access.redeem(late) is None
    session = access.redeem(access.new_link())
    assert session is not None and access.knows(session)
    time.now += SESSION_SECONDS + 1
    assert not access.knows(session)


def test_sessions_are_few() -> None:
    access = Access()
    sessions = [access.redeem(access.new_link()) for _ in range(SESSIONS + 1)]
    assert not access.knows(str(sessions[0])) and access.knows(str(sessions[-1]))


def test_nothing_of_it_is_shown() -> None:
    access = Access()
    token = access.new_link()
    session = access.redeem(access.new_link())
    assert token not in repr(access) and str(session) not in repr(access)


REFUSED: list[tuple[int, str, dict[str, str]]] = [
    (421, "GET", {"host": "evil.example:8741"}),
    (421, "GET", {"host": "127.0.0.1.evil.example"}),
    (421, "GET", {"host": ""}),
    (405, "POST", {}),
    (405, "DELETE", {}),
    (405, "OPTIONS", {}),
    (403, "GET", {"sec-fetch-site": "cross-site"}),
    (403, "GET", {"sec-fetch-site": "same-site"}),
    (401, "GET", {"cookie": "keyong-pages-8741=made-up"}),
]


async def _ask(site: Site, method: str, headers: Mapping[str, str]) -> int:
    session = site.access.redeem(site.access.new_link())
    async with site.client() as client:
        answer = await client.request(
            method, "/search", headers={"cookie": f"{site.access.cookie}={session}", **headers}
        )
    assert "content-security-policy" in answer.headers and answer.headers["cache-control"] == "no-store"
    return answer.status_code


@pytest.mark.parametrize(("status", "method", "headers"), REFUSED)
async def test_a_request_is_turned_away(site: Site, status: int, method: str, headers: dict[str, str]) -> None:
    assert await _ask(site, method, headers) == status
    assert await _ask(site, "GET", {}) == 200


async def test_without_its_rule_each_would_be_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Access, "refusal", lambda *_: None)
    for _, method, headers in REFUSED:
        status = await _ask(site, method, headers)
        assert status == 200 if method == "GET" else status in (404, 405)


@pytest.mark.parametrize("host", ["127.0.0.1:8741", "localhost:9", "[::1]:8741", "LOCALHOST", "127.0.0.1"])
async def test_our_own_names_are_answered(site: Site, host: str) -> None:
    assert await _ask(site, "GET", {"host": host}) == 200


@pytest.mark.parametrize(
    "path", ["/", "/search", "/entry/0", "/tiles/checkpoint", "/tiles/tile/entries/000", "/lang/zh", "/no"]
)
async def test_without_a_cookie_nothing_is_told(site: Site, path: str) -> None:
    async with site.client() as client:
        answer = await client.get(path)
    assert answer.status_code == 401 and "mill-a" not in answer.text and "keyong ledger serve" in answer.text
    assert "set-cookie" not in answer.headers


async def test_the_login_link_becomes_a_cookie_that_scripts_and_sites_do_not_get(site: Site) -> None:
    token = site.access.new_link()
    async with site.client() as client:
        entered = await client.get(f"/login?token={token}")
        cookie = entered.headers["set-cookie"].lower()
        assert entered.status_code == 200 and "httponly" in cookie and "samesite=strict" in cookie
        assert token not in entered.text
        assert (await client.get("/")).status_code == 200
        again = await client.get(f"/login?token={token}")
        assert again.status_code == 401 and "set-cookie" not in again.headers


async def test_the_policy_allows_nothing_inline(site: Site) -> None:
    answer = await site.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert policy == rules.POLICY
    assert " style=" not in answer.text and "<style" not in answer.text and "onclick" not in answer.text
    assert all("src=" in tag for tag in answer.text.split("<script")[1:])


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_the_language_switch_leads_nowhere_else(site: Site, to: str) -> None:
    answer = await site.get(f"/lang/zh?to={to}")
    assert answer.status_code == 303 and answer.headers["location"] == "/"


async def test_other_protocols_are_not_spoken(site: Site) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await site.app({"type": "websocket", "headers": [], "path": "/"}, None, send)  # type: ignore[operator]
    assert sent == []
