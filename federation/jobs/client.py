"""A client session: the app's ClientApp beside one company's data.

Frames in: ``start`` once, then ``call`` until the channel closes. Frames out: ``ready``, ``reply``, or ``error`` with
one of `failures.CLIENT_CODES` and nothing else; what the app prints or raises goes to stdout and stderr, the data
owner's logs.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from . import flower
from .codec import decode, describe
from .deferral import defer_compiler
from .failures import CallError, classify, missing_module
from .frames import Buffer, Channel, FrameError
from .memory import settle
from .project import fuse, load_project
from .session import MAX_BODY, collect, finish, integer, lay_out_imports, open_channel, table


class _Session:
    """One ClientApp and the Context it keeps over all calls of a job."""

    def __init__(self, header: Mapping[str, object], app: Path) -> None:
        project = load_project(app)
        run_id, node_id = integer(header, "run_id"), integer(header, "node_id")
        self._context = flower.Context(
            run_id=run_id,
            node_id=node_id,
            node_config=table(header, "node_config"),  # type: ignore[arg-type]
            state=flower.RecordDict(),
            run_config=fuse(project.config, table(header, "run_config")),
        )
        flower.identify(run_id, node_id)
        lay_out_imports(app)
        self._app = flower.load_app(project.client_app)
        if not isinstance(self._app, flower.ClientApp):
            raise CallError("app-import")
        self._calls = 0

    def instruction(self, header: Mapping[str, object], body: Buffer) -> flower.Message:
        """Return a call as the message that the app gets; it holds nothing of the body.

        Raises:
            CallError: the app has no function for it.
        """
        kind = header.get("type")
        if not isinstance(kind, str) or not flower.valid_type(kind) or not flower.handles(self._app, kind):
            raise CallError("unsupported")
        self._calls += 1
        return flower.instruction(
            flower.to_records(decode(table(header, "content"), body)),
            kind,
            run_id=self._context.run_id,
            node_id=self._context.node_id,
            number=self._calls,
        )

    def answer(self, message: flower.Message) -> tuple[dict[str, object], list[memoryview]]:
        """Run the app on a message and return its reply's content.

        Raises:
            BaseException: whatever the app raises, and `CallError` where its answer is not one.
        """
        reply = self._app(message, self._context)
        if reply is None:
            raise CallError("app-no-reply")
        if not isinstance(reply, flower.Message):
            raise CallError("app-reply-type")
        if not reply.has_content():
            raise CallError("app-exception")  # a mod of the app answered with an error of its own
        try:
            return describe(flower.to_content(reply.content))
        except ValueError:
            raise CallError("app-reply-type") from None


def _report(error: BaseException, app: Path, *, importing: bool) -> dict[str, object]:
    sys.stdout.flush()
    traceback.print_exception(error)
    name = missing_module(error, app)
    if name:
        print(f"the runtime has no module named {name}", file=sys.stderr)
    return {"op": "error", "code": classify(error, app, importing=importing)}


def serve(channel: Channel) -> None:
    """Answer frames until the channel closes."""
    header, _ = channel.receive(0)
    app = Path(str(header["app"]))
    try:
        session = _Session(header, app)
    except BaseException as error:  # an app may also raise SystemExit
        channel.send(_report(error, app, importing=True))
        return
    settle()
    flower.store_by(channel.store)
    channel.send({"op": "ready"})
    while True:
        try:
            header, body = channel.receive(MAX_BODY)
        except FrameError as error:
            if error.code == "frame-closed":
                return
            raise
        try:
            message, size = session.instruction(header, body), len(body)
            del header, body  # a model's size less while the app trains
            content, buffers = session.answer(message)
            sys.stdout.flush()  # the logs of a call are there when its reply is
        except BaseException as error:
            channel.send(_report(error, app, importing=False))
        else:
            try:
                channel.send({"op": "reply", "content": content}, buffers)
            except FrameError:  # its header is above the cap; nothing was written yet
                channel.send({"op": "error", "code": "app-reply-type"})
            size += sum(len(buffer) for buffer in buffers)
            del message, content, buffers
            collect(size)


def main() -> None:
    """Serve the channel that the environment names, then leave."""
    defer_compiler()
    serve(open_channel())
    finish()
