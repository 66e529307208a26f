"""What an app declares may leave a node: ``[tool.keyong.outputs]`` of its pyproject, or a file of the same form."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from federation.errors import UsageError
from federation.statements import MetricSpec, OutputSchema, StageOutput
from federation.statements.code import CodeBundle


class OutputsError(UsageError):
    """The declaration of outputs is malformed."""

    code = "outputs"


def declared_outputs(document: Mapping[str, Any]) -> OutputSchema | None:
    """The output schema an app declares in ``[tool.keyong.outputs]`` (or a file of the same form); None without one.

    Form: a table a stage with ``arrays`` ("sent", or a list of {record, name, dtype, shape}) and ``metrics`` (names, or
    {name, minimum, maximum} with the bounds as strings).
    """
    tool = document.get("tool", {})
    table = tool.get("keyong", {}).get("outputs") if isinstance(tool, dict) else None
    if table is None:
        return None
    return outputs_from(table)


def outputs_from(table: Any) -> OutputSchema:
    """Read an outputs table; raises :class:`OutputsError` naming what is wrong."""
    try:
        stages = {}
        for stage in ("train", "evaluate"):
            part = dict(table.get(stage, {}))
            arrays = part.pop("arrays", "sent" if stage == "train" else [])
            metrics = part.pop("metrics", [])
            if part:
                raise OutputsError(
                    "unknown keys in the outputs of {stage}: {keys}", stage=stage, keys=", ".join(sorted(part))
                )
            stages[stage] = StageOutput(
                sent=arrays == "sent" or "sent" in arrays,
                arrays=() if arrays == "sent" else tuple(item for item in arrays if item != "sent"),
                metrics=tuple(
                    MetricSpec(name=item) if isinstance(item, str) else MetricSpec(**item) for item in metrics
                ),
            )
        extra = set(table) - {"train", "evaluate", "maximal-bytes"}
        if extra:
            raise OutputsError("unknown keys in the outputs: {keys}", keys=", ".join(sorted(extra)))
        schema = OutputSchema(train=stages["train"], evaluate=stages["evaluate"])
        if "maximal-bytes" in table:
            schema = OutputSchema(**{**dict(schema), "maximal_bytes": table["maximal-bytes"]})
        return schema
    except (ValidationError, TypeError, AttributeError, ValueError) as error:
        what = (
            error.errors(include_url=False, include_input=False)[0]["msg"]
            if isinstance(error, ValidationError)
            else "not of the form"
        )
        raise OutputsError(
            "the declared outputs cannot be read: {what}",
            hint='for example: [tool.keyong.outputs.train] arrays = "sent", metrics = ["train_loss"]',
            what=what,
        ) from None


def load_pyproject(bundle: CodeBundle) -> dict[str, Any]:
    """The app's pyproject, parsed."""
    try:
        return tomllib.loads(bundle.files["pyproject.toml"].decode("utf-8"))
    except (KeyError, ValueError, RecursionError) as error:
        raise UsageError("the app's pyproject.toml cannot be read: {why}", why=str(error)[:200]) from None
