"""Private files: atomic, durable, for one owner, never overwritten by accident, never read when others could have."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from federation.crypto import make_private_dir, read_private, remove_unfinished, write_private
from federation.errors import KeyongError, UnavailableError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secret.key"


def test_written_for_the_owner_alone_whatever_the_umask(path: Path) -> None:
    for mask in (0o000, 0o022, 0o377):
        before = os.umask(mask)
        try:
            write_private(path, b"secret", replace=True)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert read_private(path) == b"secret"


def test_an_existing_file_stays(path: Path) -> None:
    write_private(path, b"first")
    with pytest.raises(UsageError, match="exists already"):
        write_private(path, b"second")
    assert read_private(path) == b"first"
    write_private(path, b"third", replace=True)
    assert read_private(path) == b"third"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_of_many_writers_one_wins_and_its_content_is_whole(path: Path) -> None:
    """A check before the write instead of the exclusive link would let several win."""
    start = threading.Barrier(8)
    won: list[bytes] = []

    def write(number: int) -> None:
        data = bytes([number]) * 10_000
        start.wait()
        try:
            write_private(path, data)
        except UsageError:
            return
        won.append(data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read_private(path) == won[0]


def test_a_failed_write_leaves_the_old_file_and_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UnavailableError, match="No space left"):
        write_private(path, b"new", replace=True)
    assert read_private(path) == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_data_is_on_disk_before_its_name_and_the_name_before_the_return(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append(f"{'directory' if directory else 'file'}, named: {path.exists()}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_private(path, b"x")
    assert events == ["file, named: False", "directory, named: True"]


def test_replacing_a_link_leaves_its_target(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"not ours")
    path.symlink_to(target)
    with pytest.raises(UsageError, match="exists already"):
        write_private(path, b"x")
    write_private(path, b"x", replace=True)
    assert target.read_bytes() == b"not ours"
    assert not path.is_symlink()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"directory .*absent does not exist"):
        write_private(tmp_path / "absent" / "key", b"x")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666])
def test_a_file_open_to_others_is_refused_with_the_fix(path: Path, mode: int) -> None:
    write_private(path, b"x")
    path.chmod(mode)
    with pytest.raises(UsageError) as caught:
        read_private(path)
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    assert read_private(path) == b"x"


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(path, b"x")
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(UsageError, match="another user"):
        read_private(path)


def test_links_pipes_directories_and_nothing_are_refused(path: Path, tmp_path: Path) -> None:
    write_private(path, b"x")
    link = tmp_path / "link"
    link.symlink_to(path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for wrong, why in (
        (link, "symbolic link"),
        (pipe, "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "absent", "does not exist"),
        (path / "below", "does not exist"),
    ):
        with pytest.raises(KeyongError, match=why):
            read_private(wrong)


def test_a_private_file_is_small(path: Path) -> None:
    write_private(path, bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger"):
        read_private(path)


def test_a_private_directory_is_made_once_and_checked_ever_after(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        make_private_dir(directory)
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    make_private_dir(directory)
    directory.chmod(0o750)
    with pytest.raises(UsageError) as caught:
        make_private_dir(directory)
    assert caught.value.hint == f"chmod 700 {directory}"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750


def test_what_is_no_private_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    directory = tmp_path / "directory"
    make_private_dir(directory)
    link = tmp_path / "link"
    link.symlink_to(directory)
    for wrong in (file, link, file / "below"):
        with pytest.raises(UsageError, match="not a directory"):
            make_private_dir(wrong)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(UsageError, match="another user"):
        make_private_dir(directory)


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(path: Path) -> None:
    left = path.with_name(f".{path.name}.0123456789abcdef.tmp")
    left.write_bytes(b"half a key")
    living = path.with_name(f".{path.name}.fedcba9876543210.tmp")
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_unfinished(path.parent) == 1
        assert living.exists() and not left.exists()
    assert remove_unfinished(path.parent) == 1
    assert not living.exists()
