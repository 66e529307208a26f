"""A job's live session on this node: snapshot, sandbox and the frames between. It lives as long as the job."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from enterprise_node._folders import remove_tree
from enterprise_node._threads import in_thread, until_done
from enterprise_node.materialise import Snapshot
from enterprise_node.workers import ENVIRONMENT, WORKER, Worker
from federation.errors import KeyongError
from federation.jobs.codec import Content, ContentError, decode
from federation.statements import Isolation
from federation.statements.code import CodeBundle
from federation.wire.body import Buffer
from federation.wire.offload import offload
from federation.wire.session_channel import SessionChannel, SessionEndedError, SessionFrameError
from sandbox import Limits, Mount, Runtime, SandboxError, Session, SessionSpec, Tier, open_session

log = structlog.get_logger("keyong.node")

ENDING_SECONDS = 2.0
"""A process that closed its end of the channel is at its end; one that is not after this time is made to be."""
REFUSALS = frozenset(
    {
        "app-config",
        "app-exception",
        "app-import",
        "app-missing-dependency",
        "app-no-reply",
        "app-reply-type",
        "app-syntax",
        "out-of-memory",
        "unsupported",
    }
)
"""The closed enumeration of what may be said of a job's failure; anything else is ``app-exception``."""


class JobFailedError(KeyongError):
    """The job's code failed; the code is one of a closed enumeration, the text stays in the owner's logs."""

    code = "app-exception"


@dataclass(frozen=True)
class SessionRequest:
    """What a session is opened with."""

    bundle: CodeBundle
    snapshot: Snapshot
    runtime: Runtime
    node_number: int
    run_id: int
    run_config: Mapping[str, Any]
    memory_bytes: int
    wall_seconds: float
    setup_seconds: float
    body_limit: int
    logs: Path
    """Where the session's stdout and stderr are kept when it ends: the owner's eyes only."""
    tier: Tier = Tier.T2
    worker: Worker | None = None
    """A session on standby that becomes this job's; where it fails to, a session is opened."""

    @property
    def limits(self) -> Limits:
        """Bounds of the whole session."""
        return Limits(memory_bytes=self.memory_bytes, wall_seconds=self.wall_seconds)


class JobSession:
    """One sandbox session running the app's client part."""

    def __init__(self, folder: Path, session: Session, channel: SessionChannel, request: SessionRequest) -> None:
        self._folders = [folder, *([request.worker.folder] if request.worker else ())]
        self._session = session
        self._channel = channel
        self._logs = request.logs
        self.snapshot = request.snapshot

    @classmethod
    async def open(cls, folder: Path, request: SessionRequest, spool: Path) -> JobSession:
        """Lay out the code, open the sandbox and load the app; what it printed is kept where that fails, too.

        Raises:
            SandboxUnavailableError: the isolation that is demanded cannot be had here.
            JobFailedError: the app cannot be loaded.
        """
        try:
            session = await in_thread(lambda: _open_sandbox(folder, request), undo=lambda one: one.close())
        except BaseException as error:
            if (worker := request.worker) is not None:
                await in_thread(lambda: remove_tree(worker.folder))
            if isinstance(error, SandboxError):
                raise SandboxUnavailableError.of(error) from None
            raise
        files = request.memory_bytes if session.sees_files else 0
        channel = SessionChannel(session.channel, body_limit=request.body_limit, spool=spool, file_limit=files)
        job = cls(folder, session, channel, request)
        start = {
            "op": "start",
            "app": session.path("/app"),
            "run_id": request.run_id,
            "node_id": request.node_number,
            "node_config": {"dataset-path": session.path("/data"), "partition-id": 0, "num-partitions": 1},
            "run_config": dict(request.run_config),
        }
        try:
            header, _ = await job._exchange(start, (), request.setup_seconds)
            if header.get("op") != "ready":
                raise _failure(header)
        except BaseException:
            await job.close()
            raise
        return job

    @property
    def isolation(self) -> Isolation:
        """What held this session, for the receipt."""
        evidence = self._session.evidence
        return Isolation(
            tier=str(evidence.tier),
            kernel=evidence.kernel,
            landlock_abi=evidence.landlock_abi,
            seccomp=_digest_text(evidence.seccomp_digest),
            arguments=_digest_text(evidence.arguments_digest),
            limits_by=evidence.limits_by,
        )

    async def call(
        self, stage: str, content: Mapping[str, Any], body: Sequence[Buffer], seconds: float, limit: int | None = None
    ) -> Content:
        """Run one step; returns what the app replied, unjudged; a body above ``limit`` bytes is not taken.

        Raises:
            JobFailedError: the app failed, ended, exceeded a limit or sent something that is no reply.
        """
        frame = {"op": "call", "type": stage, "content": content}
        header, view = await self._exchange(frame, body, seconds, limit)
        if header.get("op") != "reply" or not isinstance(header.get("content"), dict):
            raise _failure(header)
        try:
            return await offload(len(view), decode, header["content"], view)
        except ContentError as error:
            raise JobFailedError("the reply is not a content", code="app-reply-type", detail=error.code) from None

    async def _exchange(
        self, header: dict[str, Any], body: Sequence[Buffer], seconds: float, limit: int | None = None
    ) -> tuple[dict[str, Any], memoryview]:
        try:
            async with asyncio.timeout(seconds):
                await self._channel.send(header, body, room=limit or 0)
                return await self._channel.receive(limit)
        except TimeoutError:
            await self.kill()
            raise JobFailedError("the job took longer than the plan allows", code="limit-wall") from None
        except SessionEndedError:
            raise await self._ended() from None
        except SessionFrameError as error:
            await self.kill()
            if error.code == "session-frame-size":
                raise JobFailedError(
                    "the job's reply is larger than the plan allows", code="output-too-large"
                ) from None
            raise JobFailedError("the job sent a malformed reply", code="app-reply-type") from None

    async def _ended(self) -> JobFailedError:
        reason = JobFailedError("the job's process ended", code="app-exception")
        try:
            await asyncio.to_thread(self._session.wait, ENDING_SECONDS)
        except TimeoutError:  # it closed its channel and runs on; or many are being ended, on a busy machine
            await self.kill()
            reason = JobFailedError("the job's process no longer listens", code="app-exception")
        if limit := self._session.limit:
            return JobFailedError("the job hit its limit of {limit}", code=f"limit-{limit}", limit=limit)
        return reason

    def strike(self) -> None:
        """Send the session's processes their end, and wait for nothing."""
        self._session.strike()

    async def kill(self) -> None:
        """End the session at once, without grace."""
        await asyncio.to_thread(self._kill)

    def _kill(self) -> None:
        try:
            self._session.kill()
        except SandboxError as error:
            log.error("session-not-killed", code=error.code, reason=str(error))

    async def close(self) -> None:
        """End the session, keep what it printed for the owner, remove snapshot and code. May be repeated."""
        closing = asyncio.ensure_future(asyncio.to_thread(self._close))
        await until_done(closing)
        closing.result()

    def _close(self) -> None:
        self._kill()
        try:
            for name, data in (("stdout", self._session.stdout()), ("stderr", self._session.stderr())):
                (self._logs / f"{name}.txt").write_bytes(data)
            self._session.close()
        except (OSError, SandboxError) as error:
            log.error("session-not-closed", error=type(error).__name__)
        finally:
            for folder in self._folders:
                remove_tree(folder)


def _open_sandbox(folder: Path, request: SessionRequest) -> Session:
    app = folder / "app"
    app.mkdir()
    request.bundle.write(app)
    if request.worker is not None:
        session = request.worker.session
        try:
            session.engage(request.limits, {"/app": app, "/data": request.snapshot.folder})
            return session
        except (SandboxError, OSError) as error:
            log.warning("worker-not-engaged", error=type(error).__name__, reason=str(error))
            session.close()
    return open_session(
        SessionSpec(
            runtime=request.runtime,
            argv=WORKER,
            mounts=(Mount(app, "/app"), Mount(request.snapshot.folder, "/data")),
            env=ENVIRONMENT,
            limits=request.limits,
            tier=request.tier,
        )
    )


class SandboxUnavailableError(KeyongError):
    """No session of the demanded tier can be opened here."""

    code = "sandbox-unavailable"
    exit_code = 5

    @classmethod
    def of(cls, error: SandboxError) -> SandboxUnavailableError:
        """The sandbox's refusal under our root."""
        return cls(error.template, hint=error.hint_template, code=None, **{str(k): v for k, v in error.params.items()})


def _failure(header: Mapping[str, Any]) -> JobFailedError:
    code = header.get("code")
    known = code if isinstance(code, str) and code in REFUSALS else "app-exception"
    return JobFailedError("the job's code failed: {reason}", code=known, reason=known)


def _digest_text(value: str) -> str:
    return value if value.startswith("sha256:") or not value else f"sha256:{value}"
