"""Trying an app here before anyone is asked: both its parts in real sessions, on rows made up from a published schema.

No data of anyone is touched, so the whole traceback may be shown. What the app replied becomes the output schema that a plan
would carry.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.server_session import ServerPartError, ServerSession
from enterprise_node.session import JobFailedError, JobSession, SessionRequest
from enterprise_node.synthetic import synthetic_rows
from federation.jobs.codec import Content, decode, describe
from federation.jobs.project import ProjectError, load_project
from federation.secagg import Arrays
from federation.statements import ArraySpec, Column, MetricSpec, OutputSchema, StageOutput
from federation.statements.code import CodeBundle
from keyong.planning import ROUNDS_KEY
from sandbox import Runtime, Tier, probe

ROWS = 256
EXCHANGES = 8
STEP_SECONDS = 300.0
MEMORY_BYTES = 4 * 2**30
NODES = (1, 2)
"""Two pretended nodes: strategies of Flower want at least two. One session answers for both."""


@dataclass(frozen=True)
class CheckReport:
    """What a check run found.

    Attributes:
        ok: both parts ran to their end and every reply could leave under ``outputs``.
        outputs: schema of what was replied; None where no reply came.
        undeclared: what the default schema would not let out and the app would have to declare.
        code: why not ok, one of the closed codes.
        reason: the same in a sentence.
        client_output: stdout and stderr of the client part, tracebacks included.
        server_output: the same of the server part.
        files: what the server part left as a result: path and size.
        seconds: how long it took.
        tier: what both parts were isolated by.
        sent: the forms of the largest arrays that were sent, by stage; their values are not kept.
    """

    ok: bool
    outputs: OutputSchema | None
    undeclared: tuple[str, ...]
    code: str
    reason: str
    client_output: tuple[str, str]
    server_output: tuple[str, str]
    files: tuple[tuple[str, int], ...]
    seconds: float
    tier: Tier
    sent: Mapping[str, Arrays]


def tier_here(demanded: str) -> Tier:
    """The strongest isolation this machine has, and never less than what is demanded (``fed:minTier``; empty for any).

    Where there is none so strong, the one that is demanded: opening a session then says what is missing.
    """
    floor = max(Tier(demanded or Tier.T1), Tier.T1)
    return max((tier for tier in probe().tiers if tier >= floor), default=max(Tier(demanded or Tier.T2), Tier.T1))


def check_app(
    bundle: CodeBundle,
    columns: Sequence[Column],
    run_config: Mapping[str, Any],
    runtime: Runtime,
    *,
    rows: int = ROWS,
    seed: int = 1,
    tier: Tier = Tier.T2,
) -> CheckReport:
    """Run an app once, here, for one round.

    Args:
        bundle: the app.
        columns: schema of the dataset, as published; the rows are made up from it.
        run_config: overrides of the app's own config.
        runtime: what it may import.
        tier: what isolates both parts.

    Raises:
        UnavailableError: no sandbox can be had here.
    """
    return asyncio.run(_Check(bundle, columns, run_config, runtime, rows, seed, tier).run())


class _Check:
    def __init__(
        self,
        bundle: CodeBundle,
        columns: Sequence[Column],
        run_config: Mapping[str, Any],
        runtime: Runtime,
        rows: int,
        seed: int,
        tier: Tier,
    ) -> None:
        self._bundle = bundle
        self._columns = columns
        self._config = dict(run_config)
        self._runtime = runtime
        self._rows = rows
        self._seed = seed
        self._tier = tier
        self._stages: dict[str, StageOutput] = {}
        self._sent: dict[str, Arrays] = {}
        self._undeclared: list[str] = []
        self._files: list[tuple[str, int]] = []

    async def run(self) -> CheckReport:
        began = time.monotonic()
        code, reason = "", ""
        # Readable by all: as root, the session runs under a user of its own.
        with tempfile.TemporaryDirectory(prefix="keyong-check-") as name:
            folder = Path(name)
            outputs: dict[str, tuple[str, str]] = {"client": ("", ""), "server": ("", "")}
            try:
                await self._try(folder, outputs)
            except (JobFailedError, ServerPartError) as error:
                code, reason = error.code, str(error)
            except ProjectError as error:
                code, reason = error.code, str(error)
            logs = folder / "logs"
            if (logs / "stderr.txt").is_file():
                outputs["client"] = (
                    _text((logs / "stdout.txt").read_bytes()),
                    _text((logs / "stderr.txt").read_bytes()),
                )
        schema = None
        if self._stages:
            empty = StageOutput(sent=False)
            schema = OutputSchema(train=self._stages.get("train", empty), evaluate=self._stages.get("evaluate", empty))
        if not code and self._undeclared:
            code, reason = "outputs", "the app's replies hold more than may leave by default"
        return CheckReport(
            ok=not code and schema is not None,
            outputs=schema,
            undeclared=tuple(self._undeclared),
            code=code,
            reason=reason,
            client_output=outputs["client"],
            server_output=outputs["server"],
            files=tuple(self._files),
            seconds=time.monotonic() - began,
            tier=self._tier,
            sent=self._sent,
        )

    async def _try(self, folder: Path, outputs: dict[str, tuple[str, str]]) -> None:
        for part in ("client", "server", "spool", "logs"):
            (folder / part).mkdir()
        snapshot = await asyncio.to_thread(
            synthetic_rows, self._columns, self._rows, self._seed, folder / "client" / "data"
        )
        app = folder / "server" / "app"
        app.mkdir()
        self._bundle.write(app)
        project = load_project(app)
        config = {**self._config}
        if ROUNDS_KEY in project.config:
            config[ROUNDS_KEY] = 1
        request = SessionRequest(
            bundle=self._bundle,
            snapshot=snapshot,
            runtime=self._runtime,
            node_number=NODES[0],
            run_id=1,
            run_config=config,
            memory_bytes=MEMORY_BYTES,
            wall_seconds=STEP_SECONDS * 4,
            setup_seconds=STEP_SECONDS,
            body_limit=2**32,
            logs=folder / "logs",
            tier=self._tier,
        )
        start = {
            "op": "start",
            "run_id": 1,
            "run_config": config,
            "node_ids": list(NODES),
            "aggregation": "sum",
            "fit_for_sums": project.fit_for_sums,
            "result_bytes": 2**30,
        }
        client = await JobSession.open(folder / "client", request, folder / "spool")
        try:
            server = await ServerSession.open(
                app,
                self._runtime,
                start,
                memory_bytes=MEMORY_BYTES,
                wall_seconds=STEP_SECONDS * 4,
                spool=folder / "spool",
                tier=self._tier,
            )
            try:
                async with asyncio.timeout(STEP_SECONDS * 2):
                    await self._carry(server, client)
            except TimeoutError:
                raise ServerPartError("the app did not come to its end in time", code="limit-wall") from None
            finally:
                stdout, stderr = server.output()
                outputs["server"] = (_text(stdout), _text(stderr))
                await server.close()
        finally:
            await client.close()

    async def _carry(self, server: ServerSession, client: JobSession) -> None:
        exchanges = 0
        while True:
            header, body = await server.receive()
            match header.get("op"):
                case "exchange":
                    exchanges += 1
                    if exchanges > EXCHANGES:
                        return
                    await self._exchange(server, client, header, body)
                case "file":
                    self._files.append((str(header.get("path")), len(body)))
                case "done":
                    return
                case _:
                    reason = str(header.get("reason") or "") or str(header.get("traceback") or "")
                    raise ServerPartError(
                        "the server part failed ({code}): {reason}",
                        code=str(header.get("code", "app-exception")),
                        reason=reason.strip()[-4000:],
                    )

    async def _exchange(
        self, server: ServerSession, client: JobSession, header: Mapping[str, Any], body: memoryview
    ) -> None:
        stage = str(header.get("type"))
        contents = header.get("contents")
        if stage not in ("train", "evaluate") or not isinstance(contents, list) or len(contents) != 1:
            raise ServerPartError(
                "the app asked for {stage}; train and evaluate, the same content to all, are what a plan can hold",
                stage=stage,
            )
        sent = decode(contents[0], body)
        reply = await client.call(stage, contents[0], [body], STEP_SECONDS)
        self._stages.setdefault(stage, self._schema(stage, sent, reply))
        if _elements(sent.arrays) >= _elements(self._sent.get(stage, {})):
            self._sent[stage] = _forms(sent.arrays)
        metrics: dict[str, Any] = {}
        for values in reply.metrics.values():
            metrics |= values
        metrics[str(header.get("weight_key", "num-examples"))] = self._rows * len(NODES)
        described, buffers = describe(Content(arrays=reply.arrays, metrics={"metrics": metrics}))
        await server.send({"op": "replies", "replies": [{"node_id": 0, "content": described}]}, buffers)

    def _schema(self, stage: str, sent: Content, reply: Content) -> StageOutput:
        """The schema that lets this reply out, and what of it goes beyond the default."""
        sent_forms = {(r, n): (a.dtype.name, a.shape) for r, arrays in sent.arrays.items() for n, a in arrays.items()}
        forms = {(r, n): (a.dtype.name, a.shape) for r, arrays in reply.arrays.items() for n, a in arrays.items()}
        as_sent = bool(forms) and all(forms.get(place) == form for place, form in sent_forms.items())
        further = {place: form for place, form in forms.items() if not as_sent or place not in sent_forms}
        for (record, name), (dtype, shape) in further.items():
            self._undeclared.append(f"{stage}: array {record}/{name} {dtype}{list(shape)}")
        for record, values in reply.configs.items():
            if values:
                self._undeclared.append(f"{stage}: config record {record} (never leaves; take it out)")
        names: list[str] = []
        for values in reply.metrics.values():
            for name, value in values.items():
                if isinstance(value, list):
                    self._undeclared.append(
                        f"{stage}: metric {name} is a list (declare it as an array, or reply scalars)"
                    )
                else:
                    names.append(name)
        if len(names) > 16:
            self._undeclared.append(f"{stage}: {len(names)} metrics; at most 16 may leave")
        return StageOutput(
            sent=as_sent,
            arrays=tuple(
                ArraySpec(record=record, name=name, dtype=dtype, shape=shape)  # type: ignore[arg-type]
                for (record, name), (dtype, shape) in further.items()
            ),
            metrics=tuple(MetricSpec(name=name) for name in names[:16]),
        )


def _elements(arrays: Arrays) -> int:
    return sum(array.size for entries in arrays.values() for array in entries.values())


def _forms(arrays: Arrays) -> Arrays:
    """The arrays' types and shapes, over no memory."""
    return {
        record: {name: np.broadcast_to(np.zeros((), array.dtype), array.shape) for name, array in entries.items()}
        for record, entries in arrays.items()
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def as_toml(outputs: OutputSchema) -> str:
    """The schema as an app would declare it."""
    lines = []
    for stage in ("train", "evaluate"):
        part = outputs.train if stage == "train" else outputs.evaluate
        arrays: Any = (
            "sent"
            if part.sent and not part.arrays
            else [
                *(["sent"] if part.sent else []),
                *(array.model_dump(mode="json") for array in part.arrays),
            ]
        )
        metrics = ", ".join(json.dumps(metric.name, ensure_ascii=False) for metric in part.metrics)
        lines.append(f"[tool.keyong.outputs.{stage}]")
        lines.append(f"arrays = {_toml(arrays)}")
        lines.append(f"metrics = [{metrics}]")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
