"""A server session: the app's ServerApp on the coordinator.

Frames in: ``start`` once, then ``replies`` or ``abort`` after each ``exchange``. Frames out: ``exchange``; at the end
``file`` for each result and ``done``, or ``error`` with one of `failures.SERVER_CODES`. The server part holds no
company's data, so its traceback goes to the requester, who wrote or chose it.
"""

from __future__ import annotations

import os
import stat
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import flower
from .codec import ContentError
from .deferral import defer_compiler
from .failures import CallError, classify, last_of_traceback, missing_module
from .frames import Channel, FrameError, result_path
from .grid import ExchangeError, JobGrid
from .memory import settle
from .project import fuse, load_project
from .session import finish, integer, lay_out_imports, open_channel, table
from .strategies import RefusedError, announce_starts

WORK_VARIABLE = "KEYONG_WORK"


def _run(channel: Channel, header: Mapping[str, object], app: Path) -> JobGrid:
    """Run the app's main; returns the grid, which knows of refusals that the app swallowed."""
    project = load_project(app)
    run_id = integer(header, "run_id")
    context = flower.Context(
        run_id=run_id,
        node_id=flower.SUPERLINK_NODE_ID,
        node_config={},
        state=flower.RecordDict(),
        run_config=fuse(project.config, table(header, "run_config")),
    )
    node_ids, aggregation = header["node_ids"], header["aggregation"]
    if not isinstance(node_ids, list) or aggregation not in ("sum", "each"):
        raise CallError("unsupported")
    grid = JobGrid(
        channel,
        run_id=run_id,
        node_ids=node_ids,
        aggregation=str(aggregation),
        declared_fit=header.get("fit_for_sums") is True,
    )
    announce_starts(grid.started)
    flower.identify(run_id, flower.SUPERLINK_NODE_ID)
    lay_out_imports(app)
    try:
        server_app = flower.load_app(project.server_app)
    except BaseException as error:
        raise _ImportFailedError from error
    if not isinstance(server_app, flower.ServerApp):
        raise CallError("app-import")
    settle()
    try:
        server_app(grid, context)
    except SystemExit as leave:
        if leave.code not in (None, 0):
            raise
    return grid


class _ImportFailedError(Exception):
    """Says that its cause was raised while the app was imported."""


def _error_frame(error: BaseException, app: Path) -> dict[str, object]:
    if isinstance(error, RefusedError):
        return {"op": "error", "code": error.code, "strategy": error.strategy, "reason": error.reason}
    if isinstance(error, ExchangeError):
        return {"op": "error", "code": "exchange-failed", "reason": error.code}
    importing = isinstance(error, _ImportFailedError)
    cause = error.__cause__ if importing and error.__cause__ else error
    code = "content-unsupported" if isinstance(cause, ContentError) else classify(cause, app, importing=importing)
    return {
        "op": "error",
        "code": code,
        "reason": missing_module(cause, app),
        "traceback": last_of_traceback(cause),
    }


def _results(folder: Path, cap: int) -> Iterator[tuple[str, bytes]]:
    """Yield each regular file below a folder; no link is followed.

    Raises:
        CallError: a name cannot be sent, or all files together are above the cap.
    """
    left = cap
    for _, _, names, directory in os.fwalk(folder, follow_symlinks=False):
        base = Path(os.readlink(f"/proc/self/fd/{directory}"))
        for name in sorted(names):
            if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                continue
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
                data = file.read(left + 1)
            left -= len(data)
            if left < 0:
                raise CallError("result-too-large")
            try:
                path = result_path((base / name).relative_to(folder).as_posix())
            except (FrameError, UnicodeEncodeError):
                raise CallError("result-name") from None
            yield str(path), data


def _enter_work() -> None:
    """Go where the trusted side says that the app works, and whose files are the result; stay here if it says nothing.

    Where Python started is no place to import from any more: the app can write there.
    """
    folder = os.environ.pop(WORK_VARIABLE, "")
    if folder:
        before = Path.cwd()
        os.chdir(folder)
        sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != before]


def serve(channel: Channel) -> None:
    """Run one job's server part."""
    header, _ = channel.receive(0)
    app = Path(str(header["app"]))
    folder = Path.cwd()
    channel.echo()  # most strategies send an aggregate on as it came
    try:
        grid = _run(channel, header, app)
        if grid.refusal:
            raise grid.refusal
        for path, data in _results(folder, integer(header, "result_bytes")):
            channel.send({"op": "file", "path": path}, [data])
        sys.stdout.flush()
    except BaseException as error:  # an app may also raise SystemExit
        sys.stdout.flush()
        traceback.print_exception(error)
        channel.send(_error_frame(error, app))
    else:
        channel.send({"op": "done"})


def main() -> None:
    """Serve the channel that the environment names, then leave."""
    _enter_work()
    defer_compiler()
    serve(open_channel())
    finish()
