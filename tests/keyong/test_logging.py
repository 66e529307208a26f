"""What a serving process writes to stderr: events, one a line, and no exception's text."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from keyong.cli._logging import capture_loop, captured, configure

SECRET = "1234.56789"


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in text.splitlines()]


def test_an_event_is_one_line_that_says_who_and_when(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", "", component="node", member="mill-a")
    structlog.contextvars.bind_contextvars(request="00" * 8)
    structlog.get_logger("keyong.node").info("job-opened", plan="p\nq")
    structlog.get_logger("keyong.node").debug("not shown")
    (event,) = events(capfd.readouterr().err)
    assert list(event) == ["time", "level", "event", "component", "member", "request", "plan"]
    assert (event["component"], event["member"], event["level"]) == ("node", "mill-a", "info")


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_text_of_an_exception_is_never_written(form: Any, capfd: pytest.CaptureFixture[str]) -> None:
    configure("debug", form)
    log = structlog.get_logger()
    try:
        try:
            raise ValueError(f"row {SECRET}")
        except ValueError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError:
        log.error("failed", exc_info=True)
        log.exception("failed")
    err = capfd.readouterr().err
    assert "RuntimeError" in err and "test_logging" in err
    assert SECRET not in err


@pytest.mark.filterwarnings("ignore")
def test_what_python_and_libraries_would_write_is_an_event_without_its_text(capfd: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")

    class Thrown:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    def fail() -> None:
        raise ValueError(SECRET)

    async def leave_a_task() -> None:
        capture_loop()

        async def fail_later() -> None:
            raise ValueError(SECRET)

        task = asyncio.create_task(fail_later())
        await asyncio.wait([task])
        del task
        gc.collect()

    with captured():
        logging.getLogger("library").warning("row %s", SECRET)
        logging.getLogger("library").error(SECRET, exc_info=ValueError(SECRET))
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(SECRET, stacklevel=1)
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        asyncio.run(leave_a_task())
        thrown = Thrown()
        del thrown
        gc.collect()
    err = capfd.readouterr().err
    assert SECRET not in err
    told = [(event["event"], event["source"]) for event in events(err)]
    assert told[:3] == [("library", "library"), ("library", "library"), ("library", "py.warnings")]
    assert sorted(told[3:]) == [("unhandled", "task"), ("unhandled", "thread"), ("unhandled", "unraisable")]
