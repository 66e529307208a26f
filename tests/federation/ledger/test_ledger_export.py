"""One file for an auditor: all envelopes, the disclosed fields, and nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from federation.crypto import SigningKey
from federation.ledger import (
    CheckpointMissingError,
    EntryInsertedError,
    EntryMissingError,
    EntryModifiedError,
    EntryReorderedError,
    FieldModifiedError,
    ForkError,
    KeySubstitutionError,
    Ledger,
    LedgerError,
    LedgerUnavailableError,
    LedgerUnreadableError,
    TruncatedError,
    UnsignedEntriesError,
    VerifierKey,
    verify_ledger,
)

Lines = list[dict[str, Any]]


@pytest.fixture
def exported(history: Ledger, tmp_path: Path) -> Path:
    path = tmp_path / "export.jsonl"
    history.export(path, disclose=lambda entry: ["plan"] if entry.kind == "intent" else [])
    return path


@pytest.fixture
def edit(exported: Path) -> Callable[[Callable[[Lines], object]], None]:
    def run(change: Callable[[Lines], object]) -> None:
        lines = [json.loads(line) for line in exported.read_text().splitlines()]
        change(lines)
        exported.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return run


def at(lines: Lines, index: int) -> int:
    """The line of entry ``index``."""
    return [number for number, line in enumerate(lines) if "entry" in line][index]


def test_an_export_verifies_and_discloses_only_what_was_named(history: Ledger, exported: Path) -> None:
    seen: dict[int, Any] = {}
    verdict = verify_ledger(
        exported, str(history.vkey), on_entry=lambda entry, fields: seen.update({entry.index: fields})
    )
    assert (verdict.entries, verdict.anchoring, verdict.open_intents) == (12, "unanchored", (11,))
    assert verdict.withheld == 1 + 5 + 10
    assert seen[1] == {"plan": "plan-0"}
    assert seen[2] == {}
    assert base64.b64encode(b"\x00raw\xff") not in exported.read_bytes()
    assert base64.b64encode(b'"steelworks"') not in exported.read_bytes()
    assert exported.stat().st_mode & 0o077 == 0


def test_an_empty_ledger_exports(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    ledger.export(path, disclose=lambda _: [])
    verdict = verify_ledger(path, ledger.vkey)
    assert (verdict.entries, verdict.completeness) == (0, "complete")


def test_an_export_while_the_writer_runs_is_one_snapshot(history: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"

    def disclose(_: object) -> list[str]:
        history.append("note", {})
        return []

    history.export(path, disclose=disclose)
    assert verify_ledger(path, history.vkey).entries == 12
    assert verify_ledger(history.folder, history.vkey).entries == 24


def set_entry(old: str, new: str, index: int) -> Callable[[Lines], object]:
    def change(lines: Lines) -> None:
        number = at(lines, index)
        assert old in lines[number]["entry"]
        lines[number]["entry"] = lines[number]["entry"].replace(old, new, 1)

    return change


def swap(lines: Lines) -> None:
    first, second = at(lines, 4), at(lines, 7)
    lines[first], lines[second] = lines[second], lines[first]


def without_checkpoints(lines: Lines) -> None:
    lines[:] = [line for line in lines if "checkpoint" not in line]


def without_last_checkpoint(lines: Lines) -> None:
    lines.pop()


@pytest.mark.parametrize(
    ("change", "error", "index"),
    [
        (set_entry('"time":"2026', '"time":"2027', 4), EntryModifiedError, 4),
        (set_entry('"time":"2026', '"time":"2027', 11), EntryModifiedError, 11),
        (lambda lines: lines.pop(at(lines, 5)), LedgerError, None),
        (lambda lines: lines.__delitem__(slice(at(lines, 5), at(lines, 6))), EntryMissingError, 5),
        (lambda lines: lines.insert(at(lines, 5) + 2, lines[at(lines, 5)]), EntryInsertedError, 5),
        (swap, EntryReorderedError, 4),
        (lambda lines: lines.__delitem__(slice(at(lines, 9), None)), TruncatedError, 9),
        (without_checkpoints, CheckpointMissingError, None),
        (without_last_checkpoint, UnsignedEntriesError, 11),
        (lambda lines: lines[at(lines, 1)]["fields"]["plan"].update(payload="IngiCg=="), FieldModifiedError, 1),
        (lambda lines: lines[at(lines, 1)].update(fields=[]), LedgerUnreadableError, 1),
        (lambda lines: lines[0].update(v=2), LedgerUnreadableError, None),
        (lambda lines: lines.append({"comment": "x"}), LedgerUnreadableError, None),
        (lambda lines: lines[at(lines, 1)].update(entry=7), LedgerUnreadableError, None),
    ],
)
def test_a_changed_export_is_caught(
    history: Ledger, exported: Path, edit: Any, change: Any, error: type[LedgerError], index: int | None
) -> None:
    edit(change)
    with pytest.raises(error) as caught:
        verify_ledger(exported, history.vkey)
    if error is not LedgerError:
        assert type(caught.value) is error
        assert caught.value.index == index


def test_a_truncation_that_changes_the_header_too_needs_a_receipt(history: Ledger, exported: Path, edit: Any) -> None:
    receipt = history.receipt_bundle(11)

    def change(lines: Lines) -> None:
        del lines[at(lines, 9) :]
        lines[0]["size"] = 9

    edit(change)
    assert verify_ledger(exported, history.vkey).anchoring == "unanchored"
    with pytest.raises(TruncatedError):
        verify_ledger(exported, history.vkey, receipts=[receipt])


def test_an_export_of_another_history_is_a_fork(history: Ledger, tmp_path: Path, key: SigningKey, clock: Any) -> None:
    receipt = history.receipt_bundle(1)
    other = tmp_path / "other"
    other.mkdir()
    with Ledger.create(other, history.origin, key, clock) as twin:
        for _ in range(13):
            twin.append("note", {})
        twin.export(tmp_path / "twin.jsonl", disclose=lambda _: [])
    with pytest.raises(ForkError) as caught:
        verify_ledger(tmp_path / "twin.jsonl", history.vkey, receipts=[receipt])
    assert len(caught.value.evidence) == 2


def test_the_key_comes_from_the_caller(exported: Path, history: Ledger) -> None:
    with pytest.raises(KeySubstitutionError):
        verify_ledger(exported, VerifierKey(history.origin, SigningKey.generate().public))


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"[]\n", b"{}\n", b"\x1f\x8b" + bytes(100), b"[" * 100_000 + b"\n", b'"' + b"a" * (5 << 20) + b'"\n'],
)
def test_files_that_are_no_export_are_refused(tmp_path: Path, history: Ledger, data: bytes) -> None:
    path = tmp_path / "not.jsonl"
    path.write_bytes(data)
    with pytest.raises(LedgerUnreadableError):
        verify_ledger(path, history.vkey)


def test_no_file_is_unavailable(tmp_path: Path, history: Ledger) -> None:
    with pytest.raises(LedgerUnavailableError):
        verify_ledger(tmp_path / "absent", history.vkey)


def test_a_long_line_is_refused_in_constant_memory(tmp_path: Path, exported: Path, history: Ledger) -> None:
    """A gigabyte without a newline (a sparse file here) is not read into memory."""
    with exported.open("r+b") as file:
        file.seek(0, 2)
        file.truncate(1 << 30)
    program = (
        "import resource, sys, pathlib;"
        "from federation.ledger import verify_ledger, LedgerUnreadableError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))\n"
        "try: verify_ledger(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
        "except LedgerUnreadableError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported), str(history.vkey)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "refused\n", done.stderr


def test_progress_reaches_the_total(history: Ledger, exported: Path) -> None:
    for path, fast in ((exported, False), (history.folder, False), (history.folder, True)):
        seen: dict[str, int] = {}
        verify_ledger(path, history.vkey, hash_only=fast, progress=partial(_note, seen))
        assert seen == {"done": 12, "total": 12}


def _note(seen: dict[str, int], done: int, total: int) -> None:
    seen.update(done=done, total=total)


def test_a_read_only_copy_verifies(history: Ledger, tmp_path: Path) -> None:
    """An auditor's copy without -wal and -shm, on media that cannot be written to."""
    vkey, folder = history.vkey, history.folder
    history.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("ledger.db", "ledger.checkpoint"):
        (copy / name).write_bytes((folder / name).read_bytes())
    before = sorted(path.name for path in folder.iterdir())
    copy.chmod(0o500)
    try:
        assert verify_ledger(copy, vkey).entries == 12
    finally:
        copy.chmod(0o700)
    assert verify_ledger(folder, vkey).entries == 12
    assert {"ledger.db", "ledger.checkpoint"} <= set(before)
