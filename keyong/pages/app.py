"""The pages over HTTP: FastAPI behind the guard, every page rendered on the server, nothing written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from federation.errors import KeyongError, VerificationError
from federation.ledger.store import reading
from keyong.pages.access import SESSION_SECONDS, Access, Guard, read_cookie
from keyong.pages.judging import fault
from keyong.pages.rendering import ASSETS, render
from keyong.pages.source import Source
from keyong.pages.tilefiles import NoTileError, read_tile
from keyong.pages.views import NotThereError, Views
from keyong.pages.watch import Watch
from keyong.text import LANGUAGES, Language, explain, language, mark, speaking, translate_data

LANGUAGE_COOKIE = "keyong-lang"
_REFUSED = {
    401: mark("This page needs the login link that `keyong ledger serve` printed. It works once, in one browser."),
    403: mark("Another site asked for this page. Open it by yourself."),
    404: mark("There is no such page."),
    405: mark("These pages only read: nothing can be changed here."),
    421: mark("This server does not answer under that name. Use the address that `keyong ledger serve` printed."),
    500: mark("The page could not be made. The reason stands on the terminal of `keyong ledger serve`."),
}
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def application(source: Source, watch: Watch, access: Access) -> Any:
    """The ASGI application of one ledger's pages."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    spoken: Language = language()

    def chosen(headers: Mapping[str, str]) -> Language:
        wanted = read_cookie(headers, LANGUAGE_COOKIE)
        return wanted if wanted in LANGUAGES else spoken

    def plain(status: int, headers: Mapping[str, str], why: str = "") -> bytes:
        with speaking(chosen(headers)):
            sentence = why or translate_data(_REFUSED.get(status, _REFUSED[500]))
            return render("message.html", frame=None, status=status, sentence=sentence).encode()

    def page(request: Request, template: str, make: Callable[[Views], dict[str, Any]], **more: Any) -> Response:
        with speaking(chosen(request.headers)):
            frame = _frame(source, watch, request)
            try:
                with _views(source) as views:
                    return HTMLResponse(render(template, frame=frame, **make(views), **more))
            except KeyongError as error:
                return _told(error, frame)

    @app.get("/login")
    def login(request: Request, token: str = "") -> Response:
        session = access.redeem(token)
        if session is None:
            return HTMLResponse(plain(401, request.headers), 401)
        with speaking(chosen(request.headers)):
            # A page and not a redirect: the cookie is sent only with requests that begin on this site.
            answer = HTMLResponse(render("entered.html", frame=None))
        answer.set_cookie(
            access.cookie, session, max_age=int(SESSION_SECONDS), path="/", httponly=True, samesite="strict"
        )
        return answer

    @app.get("/lang/{wanted}")
    def speak(wanted: str, to: str = "/") -> Response:
        answer = RedirectResponse(to if to.startswith("/") and not to.startswith(("//", "/\\")) else "/", 303)
        if wanted in LANGUAGES:
            answer.set_cookie(LANGUAGE_COOKIE, wanted, max_age=365 * 86400, httponly=True, samesite="strict")
        return answer

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        path = ASSETS / name
        if path.parent != ASSETS or path.suffix not in TYPES or not path.is_file():
            return Response(status_code=404)
        return FileResponse(path, media_type=TYPES[path.suffix])

    @app.get("/tiles/{path:path}")
    def tile(path: str) -> Response:
        try:
            return Response(read_tile(source, path), media_type="application/octet-stream")
        except NoTileError as error:
            return PlainTextResponse(error.message, 404)

    @app.get("/")
    def overview(request: Request) -> Response:
        return page(request, "overview.html", lambda views: views.overview())

    @app.get("/search")
    def search(request: Request, before: int | None = None) -> Response:
        asked = {name: str(value) for name, value in request.query_params.items()}
        number = asked.get("q", "").strip()
        # Digits that are no entry's number may begin a digest.
        if re.fullmatch("[0-9]{1,15}", number) and int(number) < watch.size:
            return RedirectResponse(f"/entry/{int(number)}", 303)
        return page(request, "search.html", lambda views: views.search(asked, before))

    @app.get("/entry/{index}")
    def entry(request: Request, index: int) -> Response:
        return page(request, "entry.html", lambda views: views.entry(index))

    @app.get("/invocation/{index}")
    def invocation(request: Request, index: int) -> Response:
        return page(request, "invocation.html", lambda views: views.invocation(index))

    @app.get("/job/{plan}")
    def job(request: Request, plan: str, before: int | None = None) -> Response:
        return page(request, "job.html", lambda views: views.job(plan, before))

    @app.get("/agreements")
    def agreements(request: Request) -> Response:
        return page(request, "agreements.html", lambda views: views.agreements())

    @app.get("/agreement/{digest}")
    def agreement(request: Request, digest: str) -> Response:
        return page(request, "agreement.html", lambda views: views.agreement(digest))

    @app.get("/check")
    def check(request: Request) -> Response:
        return page(request, "check.html", lambda _: {})

    @app.exception_handler(HTTPException)
    @app.exception_handler(RequestValidationError)
    async def unknown(request: Request, _: Exception) -> Response:
        return HTMLResponse(plain(404, request.headers), 404)

    @app.exception_handler(Exception)
    async def failed(request: Request, _: Exception) -> Response:
        return HTMLResponse(plain(500, request.headers), 500)

    return Guard(app, access, plain)


@contextmanager
def _views(source: Source) -> Iterator[Views]:
    with reading(source.database) as ledger, source.index.reader() as index:
        yield Views(source, ledger, index)


def _told(error: KeyongError, frame: Mapping[str, Any]) -> Response:
    sentence, hint = explain(error)
    status = 404 if isinstance(error, NotThereError) else 409 if isinstance(error, VerificationError) else 503
    return HTMLResponse(
        render("message.html", frame=frame, status=status, sentence=f"{sentence} {hint}".strip()), status
    )


def _frame(source: Source, watch: Watch, request: Request) -> dict[str, Any]:
    """What every page shows around its own: whose ledger, what the server makes of it, how far the index is."""
    evidence, judged = source.evidence, watch.judgement
    if isinstance(source.damage, VerificationError):
        judged = fault(source.damage)
    return {
        "member": evidence.member,
        "consortium": evidence.history.latest.name,
        "origin": evidence.vkey.name,
        "vkey": str(evidence.vkey),
        "witnesses": [str(one) for one in evidence.quorum.keys],
        "needed": evidence.quorum.needed,
        "size": watch.size,
        "indexed": watch.indexed,
        "judged": judged,
        "fault": dict(judged.sentences).get(language(), "") if judged is not None else "",
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "is_export": source.is_export,
    }
