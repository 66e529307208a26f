"""An app's folder as the commands take it: its code, its run config, its declared outputs."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.errors import UsageError

if TYPE_CHECKING:
    from federation.statements import OutputSchema
    from federation.statements.code import CodeBundle


class AppError(UsageError):
    """The app, or what was given for it, does not hold."""

    code = "app"


@dataclass(frozen=True)
class App:
    """What is known of an app before it runs."""

    bundle: CodeBundle
    config: dict[str, Any]
    outputs: OutputSchema | None
    fit_for_sums: bool


def load_app(path: Path, settings: Sequence[str], outputs: Path | None, rounds: int | None = None) -> App:
    """Read an app from its folder.

    Args:
        path: the folder that holds ``pyproject.toml``.
        settings: ``key=value``, each a value of the app's own config replaced for this run.
        outputs: a TOML file with the output schema, instead of what the app declares.
        rounds: as ``--rounds`` gave them: an app that declares its rounds is told the same number.

    Raises:
        AppError, UsageError: it is no app, a setting is unknown, or the outputs are malformed.
    """
    from federation.jobs import ProjectError, fuse, load_project
    from federation.statements.code import bundle_folder
    from keyong.outputs import declared_outputs, load_pyproject
    from keyong.planning import ROUNDS_KEY

    path = path.expanduser()
    bundle = bundle_folder(path)
    document = load_pyproject(bundle)
    try:
        project = load_project(path)
        given = parse_settings(settings, project.config)
        if rounds is not None and ROUNDS_KEY in project.config:
            if given.get(ROUNDS_KEY, rounds) != rounds:
                raise AppError(
                    "--rounds {rounds} and --config {key}={other} contradict each other",
                    hint="give one of them",
                    code="app-config",
                    rounds=rounds,
                    key=ROUNDS_KEY,
                    other=given[ROUNDS_KEY],
                )
            given[ROUNDS_KEY] = rounds
        config = fuse(project.config, given)
    except ProjectError as error:
        raise AppError(
            "the app does not hold: {why}",
            hint="see [tool.flwr.app] in its pyproject.toml",
            why=str(error),
            code=error.code,
        ) from None
    except RecursionError:  # dotted keys nest without a bracket
        raise _too_deep() from None
    schema = declared_outputs(document) if outputs is None else _outputs_file(outputs)
    return App(bundle, dict(config), schema, project.fit_for_sums)


def _too_deep() -> AppError:
    return AppError(
        "the app's pyproject.toml is nested too deeply",
        hint="see [tool.flwr.app] in its pyproject.toml",
        code="app-config",
    )


def parse_settings(settings: Sequence[str], known: Any) -> dict[str, Any]:
    """Read ``key=value`` pairs; values are TOML's numbers, booleans and strings, anything else is a string."""
    parsed: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise AppError(
                "{text} is not a setting", hint="write --config key=value", text=text[:80], code="app-config"
            )
        key = key.strip()
        if key not in known:
            raise AppError(
                "the app has no setting {key}",
                hint="it declares: {known}",
                code="app-config",
                key=key[:80],
                known=", ".join(sorted(known)) or "-",
            )
        parsed[key] = _value(value.strip(), known[key])
    return parsed


def _value(text: str, default: object) -> object:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    if not isinstance(value, bool | int | float | str):
        value = text
    if isinstance(default, str) and not isinstance(value, str):
        return text  # the app means a string
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _outputs_file(path: Path) -> OutputSchema:
    from keyong.outputs import OutputsError, declared_outputs, outputs_from

    try:
        document = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputsError("{path} cannot be read: {why}", path=path, why=str(error)[:200]) from None
    return declared_outputs(document) or outputs_from(document)
