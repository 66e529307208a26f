"""The runtime's tree is the one its digest was taken of, or nobody serves with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from keyong import runtime


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime of one file, as `build` leaves it."""
    monkeypatch.setenv("KEYONG_RUNTIMES", str(tmp_path))
    site = tmp_path / "small" / "site-packages"
    site.mkdir(parents=True)
    (site / "module.py").write_text("ANSWER = 42\n", encoding="utf-8")
    seen = {"module.py": runtime._seen(site / "module.py")}
    manifest = {"digest": "sha256:" + "1" * 64, "python": "/usr/bin/python3", "seen": seen}
    (tmp_path / "small" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return site


def test_an_untouched_tree_is_taken(tree: Path) -> None:
    assert runtime.check("small").digest == "sha256:" + "1" * 64


def test_a_tree_that_an_image_or_an_archive_carried_is_taken(tree: Path) -> None:
    """They keep the seconds of a file's time, and no fraction."""
    status = (tree / "module.py").stat()
    os.utime(tree / "module.py", ns=(status.st_atime_ns, status.st_mtime_ns // 10**9 * 10**9))
    assert runtime.check("small").digest == "sha256:" + "1" * 64


@pytest.mark.parametrize("change", ["edit", "touch", "remove"])
def test_a_changed_tree_is_refused(tree: Path, change: str) -> None:
    if change == "edit":
        (tree / "module.py").write_text("ANSWER = 43\n", encoding="utf-8")
    elif change == "touch":
        status = (tree / "module.py").stat()
        os.utime(tree / "module.py", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    else:
        (tree / "module.py").unlink()
    with pytest.raises(runtime.RuntimeChangedError, match=r"module\.py"):
        runtime.check("small")
    assert runtime.load("small").digest  # the check is what refuses


def test_an_absent_runtime_says_how_to_build_it(tree: Path) -> None:
    with pytest.raises(runtime.RuntimeAbsentError) as caught:
        runtime.load("other")
    assert "keyong node runtime build" in caught.value.hint


def test_distributions_hold_what_jobs_need_and_nothing_of_ours() -> None:
    names = {distribution.metadata["Name"].lower() for distribution in runtime.distributions()}
    assert {"flwr", "torch", "numpy", "pandas", "duckdb", "tenseal"} <= names  # the last two for queries
    assert not {"keyong", "opendp", "psycopg"} & names


def test_the_list_of_authorities_that_companies_add_to_is_no_part_of_it() -> None:
    held = {str(relative) for _, relative in runtime._files()}
    assert "certifi/core.py" in held and "certifi/cacert.pem" not in held
