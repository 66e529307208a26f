"""What an app declares, read without flwr and the same as flwr reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.common.config import flatten_dict, fuse_dicts

from federation.jobs import ProjectError, fuse, load_project

TEXT = """
[project]
name = "app"
dependencies = ["flwr>=1.41", "torch"]
[tool.flwr.app.components]
serverapp = "pkg.server_app:app"
clientapp = "pkg.client_app:inner.app"
[tool.flwr.app.config]
rounds = 3
lr = 0.1
on = true
[tool.flwr.app.config.model.head]
name = "mlp"
[tool.keyong]
fit-for-sums = true
"""


def _write(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_declarations(tmp_path: Path):
    project = load_project(_write(tmp_path, TEXT))
    assert (project.server_app, project.client_app) == ("pkg.server_app:app", "pkg.client_app:inner.app")
    assert project.config == {"rounds": 3, "lr": 0.1, "on": True, "model.head.name": "mlp"}
    assert project.fit_for_sums
    assert project.dependencies == ("flwr>=1.41", "torch")
    assert not load_project(_write(tmp_path, TEXT.partition("[tool.keyong]")[0])).fit_for_sums


def test_the_run_config_is_what_flower_makes_of_it(tmp_path: Path):
    defaults = load_project(_write(tmp_path, TEXT)).config
    overrides = {"lr": 1, "model.head.name": "cnn"}
    assert fuse(defaults, overrides) == fuse_dicts(
        flatten_dict({"rounds": 3, "lr": 0.1, "on": True, "model": {"head": {"name": "mlp"}}}),
        overrides,  # type: ignore[arg-type]
    )
    with pytest.raises(ProjectError, match="declares no width") as refused:
        fuse(defaults, {"width": 1})
    assert refused.value.code == "app-config"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("[project]", "[project", "app-import"),
        ('"pkg.server_app:app"', '"pkg.server_app"', "app-import"),
        ('"pkg.client_app:inner.app"', "5", "app-import"),
        ('clientapp = "pkg.client_app:inner.app"', "", "app-import"),
        ("fit-for-sums = true", 'fit-for-sums = "yes"', "app-import"),
        ('["flwr>=1.41", "torch"]', '"torch"', "app-import"),
        ("lr = 0.1", "lr = [1, 2]", "app-config"),
        ("lr = 0.1", "lr = 2026-01-01", "app-config"),
    ],
)
def test_what_does_not_hold_is_refused(old: str, new: str, code: str, tmp_path: Path):
    assert old in TEXT
    with pytest.raises(ProjectError) as refused:
        load_project(_write(tmp_path, TEXT.replace(old, new)))
    assert refused.value.code == code


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ProjectError, match="cannot be read"):
        load_project(tmp_path)
