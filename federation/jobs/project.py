"""What an app's pyproject.toml declares: its two components, its run config, whether it is fit for sums.

Standard library only, and no import of flwr: the trusted side reads the same declarations before it starts a job.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ConfigScalar = bool | int | float | str


class ProjectError(ValueError):
    """The app's pyproject.toml does not hold; ``code`` is ``app-import`` (the file) or ``app-config`` (the run
    config)."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


@dataclass(frozen=True)
class Project:
    """The declarations of an app.

    ``config`` is flat: nested tables are joined with dots, as Flower does. ``dependencies`` are as written, for a
    comparison with what a runtime has; nothing is installed.
    """

    server_app: str
    client_app: str
    config: Mapping[str, ConfigScalar]
    fit_for_sums: bool
    dependencies: tuple[str, ...]


def load_project(app: Path) -> Project:
    """Read the app's ``pyproject.toml``.

    Raises:
        ProjectError: it is missing, is not TOML, or lacks ``[tool.flwr.app.components]``.
    """
    try:
        document = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProjectError("app-import", f"pyproject.toml cannot be read: {type(error).__name__}") from None
    tool = _table(document, "tool")
    declared = _table(_table(tool, "flwr"), "app")
    components = _table(declared, "components")
    references = [components.get("serverapp"), components.get("clientapp")]
    for reference in references:
        if not isinstance(reference, str) or not all(reference.partition(":")):
            raise ProjectError(
                "app-import", "[tool.flwr.app.components] needs serverapp and clientapp as 'module:attribute'"
            )
    fit = _table(tool, "keyong").get("fit-for-sums", False)
    if not isinstance(fit, bool):
        raise ProjectError("app-import", "[tool.keyong] fit-for-sums is true or false")
    needed = _table(document, "project").get("dependencies", [])
    if not isinstance(needed, list) or not all(isinstance(item, str) for item in needed):
        raise ProjectError("app-import", "[project] dependencies is a list of strings")
    return Project(
        server_app=str(references[0]),
        client_app=str(references[1]),
        config=flatten(_table(declared, "config")),
        fit_for_sums=fit,
        dependencies=tuple(needed),
    )


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, ConfigScalar]:
    """Join nested tables' keys with dots.

    Raises:
        ProjectError: a value is no bool, int, float or string.
    """
    flat: dict[str, ConfigScalar] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, (bool, int, float, str)):
            flat[prefix + key] = value
        else:
            raise ProjectError("app-config", f"run config: {prefix}{key} is not a bool, int, float or string")
    return flat


def fuse(defaults: Mapping[str, ConfigScalar], overrides: Mapping[str, object]) -> dict[str, ConfigScalar]:
    """Return the run config: the app's own values, then the run's.

    Raises:
        ProjectError: the run sets a key that the app does not declare.
    """
    flat = flatten(overrides)
    unknown = sorted(set(flat) - set(defaults))
    if unknown:
        raise ProjectError("app-config", f"run config: the app declares no {', '.join(unknown)}")
    return {**defaults, **flat}


def _table(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = parent.get(key, {})
    if not isinstance(value, Mapping):
        raise ProjectError("app-import", f"pyproject.toml: {key} is not a table")
    return value
