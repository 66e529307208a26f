"""The process that makes a snapshot: ours, started for one job, so that its memory is given back and its work can be ended.

It runs trusted code under the node's own account, with an empty environment, no network unless the source lies on one, and
a bound on each file it writes. It gets its order through its standard input and ends when that closes: with the node, and
with whoever gave up waiting. What it answers is a result or an error of ours; nothing else of it is read.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from enterprise_node.extraction import Extracted, Order, extract
from enterprise_node.source_file import DatasetChangedError
from enterprise_node.sources import (
    SourceCredentialsError,
    SourceQueryError,
    SourceSlowError,
    SourceUnavailableError,
)
from federation.errors import KeyongError, UnavailableError, UsageError

MAX_FILE_BYTES: Final = 64 << 30
"""Largest file of a snapshot, or of what is needed on the way to it."""
RESERVE_BYTES: Final = 1 << 30
"""What a snapshot leaves free of the disk, where the ledger has to be written too; half of what is free where that is less."""
REPORT_SECONDS: Final = 10.0
_ANSWER_BYTES: Final = 64 << 20
_BOOT: Final = (
    "import json, sys; start = json.loads(sys.stdin.buffer.readline()); sys.path[:] = start['path']; "
    "from enterprise_node.snapshot_process import serve; serve(start)"
)
_ERRORS: Final[Mapping[str, type[KeyongError]]] = {
    one.__name__: one
    for one in (
        DatasetChangedError,
        KeyongError,
        SourceCredentialsError,
        SourceQueryError,
        SourceSlowError,
        SourceUnavailableError,
        UnavailableError,
        UsageError,
    )
}


class SnapshotFailedError(KeyongError):
    """The process that makes snapshots failed in a way that is our fault; where, but not on what, is said."""

    code = "internal"


async def extract_apart(order: Order, *, seconds: float, log: Any) -> Extracted:
    """Carry out an order in a process of its own; it is gone when this returns, however it does.

    Args:
        seconds: longest it may take.
        log: hears every :data:`REPORT_SECONDS` how much was written.

    Raises:
        KeyongError: as `extract`; SourceSlowError where the time is over.
    """
    free = shutil.disk_usage(Path(order.folder).parent).free
    start = {
        "path": [os.path.abspath(entry) for entry in sys.path],  # noqa: PTH100  # an entry may be empty: here
        "file_bytes": min(MAX_FILE_BYTES, free - min(RESERVE_BYTES, free // 2)),
        "order": order.document(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _BOOT, env={}, start_new_session=True,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=_ANSWER_BYTES,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    reporting = asyncio.create_task(_report(Path(order.folder), Path(order.work), log))
    try:
        async with asyncio.timeout(seconds):
            try:
                process.stdin.write(json.dumps(start).encode() + b"\n")
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                pass  # it is gone; its status says how
            answer = await process.stdout.read()
            status = await process.wait()
    except TimeoutError:
        raise SourceSlowError(
            "the source did not give its rows in {seconds} seconds",
            hint="give the job more time (--round-seconds), or grant less",
            seconds=round(seconds),
        ) from None
    finally:
        reporting.cancel()
        if process.returncode is None:
            process.kill()
            await _reaped(process)
        process.stdin.close()
    return _result(answer, status)


async def _reaped(process: asyncio.subprocess.Process) -> None:
    ended = asyncio.ensure_future(process.wait())
    while not ended.done():
        try:
            await asyncio.wait((ended,))
        except asyncio.CancelledError:  # the folder is removed next: nobody may write there any more
            continue


async def _report(folder: Path, work: Path, log: Any) -> None:
    written = 0
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        written = await asyncio.to_thread(lambda: sum(map(_bytes_below, (folder, work))))
        log.info("materialising", bytes=written)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def _result(answer: bytes, status: int) -> Extracted:
    try:
        document = json.loads(answer)
    except ValueError:
        raise UnavailableError(
            "the process that makes the snapshot ended before it was done (status {status})",
            hint="see that this machine has memory left",
            code="resources",
            status=status,
        ) from None
    if "extracted" in document:
        return Extracted(**document["extracted"])
    error = document["error"]
    if error["kind"] not in _ERRORS:
        raise SnapshotFailedError(
            "the snapshot could not be made ({kind} at {place})", kind=error["kind"], place=error["place"]
        )
    params = {name: value for name, value in error["params"].items() if name != "code"}
    raise _ERRORS[error["kind"]](error["template"], hint=error["hint"], code=error["code"], **params)


# -- within the process -----------------------------------------------------------------------------------------------


def serve(start: Mapping[str, Any]) -> None:
    """Carry out the order that came through standard input, and answer on standard output."""
    from enterprise_node._offline import give_up_network

    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # whatever a library prints is no part of the answer
    try:
        order = Order.of(start["order"])
        if order.reading["kind"] != "postgresql":
            give_up_network()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (start["file_bytes"], start["file_bytes"]))
        threading.Thread(target=_end_with_input, daemon=True).start()
        made = extract(order)
        answer: dict[str, Any] = {"extracted": asdict(made)}
    except KeyongError as error:
        kind = next(one.__name__ for one in type(error).__mro__ if one.__name__ in _ERRORS)
        params = {name: value if isinstance(value, int) else str(value) for name, value in error.params.items()}
        answer = {
            "error": {
                "kind": kind,
                "template": error.template,
                "hint": error.hint_template,
                "code": error.code,
                "params": params,
            }
        }
    except Exception as error:  # its text may hold a row's value; type and place do not
        answer = {"error": {"kind": type(error).__name__, "place": _place_of(error)}}
    with os.fdopen(answers, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    os._exit(0)


def _place_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '')}:{trace.tb_lineno}" if trace is not None else ""


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
