"""inv2, inv8: however deep, long named or closed a job makes its files, they are counted, and they go with its session."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import Limits, Mount, Report, Runtime, SessionSpec, Tier, _own_uid, _session_root, _trees, open_session
from sandbox._identity import allot_identity
from sandbox._meter import UidMeter

DEEP = 1100


def dig(place: Path, depth: int, name: str = "d") -> int:
    """Make that many directories below one another; returns the last one's descriptor."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    return here


def scratch(place: Path, bound: int) -> tuple[int, bool]:
    usage = UidMeter(0x7000_0000, {place: bound}).sample(Limits())
    return usage.scratch_files, usage.scratch_full


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "tree"
    place.mkdir()
    yield place
    if place.exists():
        _trees.remove_tree(place)


def test_removal_is_not_kept_off_by_depth_links_or_breadth(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    for start in ("one", "two"):
        (tree / start).mkdir()
        last = dig(tree / start, DEEP)
        os.symlink(tmp_path / "kept", "link", dir_fd=last)
        os.close(last)
    os.mkfifo(tree / "one" / "pipe")
    _trees.remove_tree(tree)
    assert not tree.exists() and (tmp_path / "kept" / "file").exists()


def test_removal_stops_where_the_way_up_is_another_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(dig(tree, 3))
    (tree / "other").mkdir()
    unlink_files = _trees._unlink_files

    def moved(directory: int) -> list[str]:
        found = unlink_files(directory)
        if not found and (tree / "d" / "d").exists():
            os.rename(tree / "d" / "d" / "d", tree / "other" / "d")
        return found

    monkeypatch.setattr(_trees, "_unlink_files", moved)
    with pytest.raises(OSError, match="Stale"):
        _trees.remove_tree(tree)


def test_files_are_counted_below_paths_that_are_too_long_to_name(tree: Path) -> None:
    here = dig(tree, 40, "n" * 200)
    file = os.open("big", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, bytes(5 << 20))
    for one in (file, here):
        os.close(one)
    assert scratch(tree, 8 << 20) == (41, False)
    assert scratch(tree, 1 << 20) == (41, True)


def test_what_cannot_be_looked_into_counts_as_full(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(dig(tree, _trees.DEEPEST - 1))
    assert scratch(tree, 8 << 20) == (_trees.DEEPEST - 1, False)
    listdir = os.listdir

    def closed(place: int | str) -> list[str]:
        if isinstance(place, int):
            raise PermissionError
        return listdir(place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", closed)
        assert scratch(tree, 8 << 20)[1]
    assert not scratch(tree / "gone", 8 << 20)[1]
    os.close(dig(tree, 2, "e"))
    deepest = dig(tree / "e", _trees.DEEPEST)
    os.close(deepest)
    assert scratch(tree, 8 << 20)[1]


@pytest.mark.usefixtures("root_only")
def test_one_place_that_stays_keeps_neither_the_others_nor_its_own_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    allot_identity().release()
    places = [tmp_path / str(0x7000_0000 + number) for number in range(3)]
    for place in places:
        (place / "data").mkdir(parents=True)
        (place / "data" / "rows").write_text("1,2,3")
        (place / "tmp").mkdir()
        os.close(dig(place / "tmp", DEEP if place == places[0] else 1))
        (place / "tmp").chmod(0o1777)
        os.chown(place / "tmp", 0x7000_0000, 0x7000_0000)
    remove_tree = _trees.remove_tree

    def stuck(place: Path) -> None:
        if place == places[1] / "tmp":
            raise OSError("a bad disk")
        remove_tree(place)

    monkeypatch.setattr(_own_uid, "ROOTS", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(_session_root, "remove_tree", stuck)
        assert _own_uid.clear_leftovers() == [str(places[1])]
    assert [place.exists() for place in places] == [False, True, False]
    assert os.listdir(places[1]) == ["tmp"]
    assert _own_uid.clear_leftovers() == [] and not places[1].exists()


@pytest.mark.usefixtures("root_only")
def test_a_job_that_digs_deep_neither_keeps_its_rows_nor_its_node(
    machine: Report, tmp_path: Path, public: Path
) -> None:
    if Tier.T1 not in machine.tiers:
        pytest.skip("T1 cannot be had here: " + machine.refusals[Tier.T1])
    (public / "rows").write_text("1,2,3")
    code = f"""
import os
os.chdir(os.environ["TMPDIR"])
for _ in range({DEEP}):
    os.mkdir("d"); os.chdir("d")
import time
time.sleep(5)
"""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "site-packages").mkdir(mode=0o755)
        Path(name).chmod(0o755)
        runtime = Runtime(Path(name), "sha256:of-a-test")
        spec = SessionSpec(runtime, ("-c", code), tier=Tier.T1, mounts=(Mount(public, "/data"),))
        with open_session(spec) as session:
            place = Path(session.path("/data")).parent
            assert session.wait(20).limit == "disk"
        assert not place.exists()
        with open_session(SessionSpec(runtime, ("-c", "pass"), tier=Tier.T1)) as session:
            assert session.wait(20).exit_code == 0
