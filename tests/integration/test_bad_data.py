"""A file that cannot be a dataset: what is wrong, and what to do, before anything is registered."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.consortium import Consortium

GOOD = "x,y\n" + "".join(f"{n},{n / 2}\n" for n in range(100))

BAD: dict[str, tuple[bytes | None, tuple[str, ...], tuple[str, ...]]] = {
    "absent.csv": (None, (), ("no file",)),
    "empty.csv": (b"", (), ("empty",)),
    "names-alone.csv": (b"x,y\n", (), ("no rows",)),
    "ragged.csv": (GOOD.encode() + b"1,2,3\n", (), ("102",)),
    "gbk.csv": (("轧制力,厚度\n" + "甲,1\n" * 50).encode("gb18030"), (), ("gb18030",)),
    "text.csv": (GOOD.encode() + b"101,thick\n", ("--column", "y:number"), ("column y", "number", "101")),
    "column.csv": (GOOD.encode(), ("--column", "force:number"), ("force",)),
    "fake.parquet": (b"PK\x03\x04 a zip", (), ("parquet",)),
    "table.xlsx": (b"PK\x03\x04 a sheet", (), ("csv",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file(consortium: Consortium, tmp_path: Path, name: str) -> None:
    data, options, words = BAD[name]
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    mill = consortium.mill("a")
    done = mill.run("node", "dataset", "add", "other", path, "--title", "Other", *options)
    done.refused(2, *(word for word in words if word != "csv"))
    assert "thick" not in done.err + done.out, "a value of the file is shown"


def test_a_folder_and_a_file_of_others(consortium: Consortium, tmp_path: Path) -> None:
    mill = consortium.mill("a")
    mill.run("node", "dataset", "add", "other", tmp_path, "--title", "Other").refused(2, "folder")
    if os.geteuid() != 0:
        closed = tmp_path / "closed.csv"
        closed.write_text(GOOD)
        closed.chmod(0)
        mill.run("node", "dataset", "add", "other", closed, "--title", "Other").refused(2, "read")


def test_inv7_the_file_changed_since(consortium: Consortium, tmp_path: Path) -> None:
    """A dataset whose file is another one now is not used: the node says so, and the requester hears a code."""
    mill = consortium.mill("c")
    path = consortium.records(mill)
    kept = tmp_path / "kept.csv"
    shutil.copy2(path, kept)
    try:
        with path.open("a") as file:
            file.write("1,2,3,4\n")
        done = consortium.job()
        assert done.code != 0 and "Traceback" not in done.err
        assert "mill-c" in done.err and "dataset-changed" in done.err, done.err
    finally:
        shutil.copy2(kept, path)
    assert consortium.job().code == 0
