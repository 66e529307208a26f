"""What a serving process writes to stderr: events, one a line, and no exception's text."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from keyong.cli._log_sink import LogSink
from keyong.cli._logging import capture_loop, captured, configure
from keyong.cli._serving import report, serve

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_reader_that_went_does_not_break_who_logs() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", closefd=False) as stream:
        sink = LogSink(stream)
        sink.msg("one")
        assert sink.lost == 1
        os.close(writing)
    sink.msg("two")
    LogSink(None).msg("three")
    assert sink.lost == 2


def test_a_reader_that_stopped_holds_nobody_up_and_hears_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure("info", "json")
        log = structlog.get_logger()
        began = time.monotonic()
        for number in range(2000):
            log.info("step", number=number)
        assert time.monotonic() - began < 60, "who logs waited for who reads"
        held = os.read(reading, 2**20)
        log.info("step", number=2000)
        stream.close()
        rows = (held + reader.read()).decode().splitlines()
    told = [json.loads(row) for row in rows if row.endswith("}")]
    numbers = [event["number"] for event in told]
    assert numbers == [*range(len(numbers) - 1), 2000], "whole lines, in order"
    assert told[-1]["lost"] == 2000 - (len(numbers) - 1)


def test_a_full_disk_loses_events_alone() -> None:
    with open("/dev/full", "w") as full:
        sink = LogSink(full)
        sink.msg("one")
        sink.msg("two")
    assert sink.lost == 2


def test_a_service_ends_in_order_though_nobody_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    drained = []

    async def work() -> None:
        report("ready", "ready")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    async def drain() -> None:
        drained.append(True)

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", full)
        configure("info", "json")
        serve(work, drain, 1.0)
        monkeypatch.undo()
        with contextlib.suppress(OSError):  # what it held for the disk
            full.close()
    assert drained


def test_a_command_ends_as_it_would_though_nobody_can_be_told() -> None:
    command = f'"{sys.executable}" -m keyong nothing'
    script = f"{command} 2>&-; echo $?; {command} 2>/dev/full; echo $?"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.stdout.split() == [b"2", b"2"]


def test_what_a_service_has_loaded_is_not_looked_through_again() -> None:
    gc.unfreeze()
    try:
        report("attached", "attached")
        assert gc.get_freeze_count() == 0
        report("ready", "ready")
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
