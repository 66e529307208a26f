"""Runs the app over utilities in one process, see `examples.common.emulate`: for choosing settings and for tests."""

from __future__ import annotations

from collections.abc import Sequence

from examples.common import emulate as common
from examples.common.emulate import Node, Settings, SumGrid, app_settings
from examples.grid_load import APP
from gridload.client_app import app as client_app
from gridload.server_app import app as server_app

__all__ = ["Node", "Settings", "SumGrid", "default_settings", "emulate"]


def default_settings(**overrides: bool | float | int | str) -> Settings:
    """Returns `[tool.flwr.app.config]` of the app with overrides; dashes in names are written as underscores."""
    config = app_settings(APP)
    named = {name.replace("_", "-"): value for name, value in overrides.items()}
    if unknown := named.keys() - config.keys():
        raise ValueError(f"no such setting: {', '.join(sorted(unknown))}")
    return {**config, **named}


def emulate(nodes: Sequence[Node], settings: Settings) -> SumGrid:
    """Runs the app over the nodes; its `model.npz` and `metrics.json` appear in the current directory."""
    return common.emulate(server_app, client_app, nodes, settings)
