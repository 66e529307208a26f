"""Which files of a job's folder are its result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from coordinator.results import ResultFolder


def test_what_is_no_part_of_a_result_may_go_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ResultFolder(tmp_path)
    result.put_json("summary.json", {})
    result.put_text("answer.bfv", b"answer")
    (tmp_path / "receipts" / "b").write_bytes(b"2")
    (tmp_path / "receipts" / "a").write_bytes(b"")
    (tmp_path / "exchanges").mkdir()
    (tmp_path / "exchanges" / "1").touch()
    looked_into: list[str] = []
    scandir = os.scandir

    def gone(path: Any = ".") -> Any:
        looked_into.append(Path(path).name)
        if Path(path).name == "exchanges":
            raise FileNotFoundError(path)  # as where it is removed in between
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert result.files() == [("answer.bfv", 6), ("receipts/a", 0), ("receipts/b", 1), ("summary.json", 2)]
    assert "receipts" in looked_into
